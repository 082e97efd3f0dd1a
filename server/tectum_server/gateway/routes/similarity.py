"""How alike pictures, texts and vectors are."""

from fastapi import APIRouter
from starlette.responses import Response

from tectum_server.gateway import examples
from tectum_server.gateway.caller import CallerOf
from tectum_server.gateway.problems import documented
from tectum_server.gateway.reading import described, read_json
from tectum_server.gateway.reply import reply
from tectum_server.gateway.schemas.similarity import ComputeSimilarity, SimilarityAnswer

router = APIRouter(prefix="/v1", tags=["similarity"], responses=documented())


@router.post(
    "/similarity",
    response_model=SimilarityAnswer,
    openapi_extra=described(ComputeSimilarity, examples.SIMILARITY),
)
async def compute_similarity(caller: CallerOf) -> Response:
    """Compare two lists of pictures, texts and vectors, each item with each."""
    body = await read_json(caller.request, ComputeSimilarity)
    similarity = await caller.answer(
        caller.client.similarity(
            [item.read() for item in body.left],
            [item.read() for item in body.right],
            **caller.options(body.model),
        )
    )
    return reply(SimilarityAnswer.of(similarity))
