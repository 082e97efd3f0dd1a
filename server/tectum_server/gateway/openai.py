"""`POST /v1/embeddings` as OpenAI's clients know it: texts to vectors.

Errors on this route have OpenAI's shape too (`problems.py`), and where OpenAI has no word for a
failed item, the first one fails the call.
"""

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import BeforeValidator, Field, WithJsonSchema
from starlette.responses import Response

from tectum_server.gateway import codec, examples
from tectum_server.gateway.caller import CallerOf
from tectum_server.gateway.codec import EncodingFormat
from tectum_server.gateway.problems import OPENAI_ROUTE, OpenAIProblem, documented
from tectum_server.gateway.reading import described, read_json
from tectum_server.gateway.reply import reply
from tectum_server.gateway.schemas.common import (
    MOST_CHARACTERS,
    MOST_ITEMS,
    Answered,
    Dimensions,
    Items,
    ModelChoice,
    NumbersOrBase64,
    Text,
)

router = APIRouter(tags=["OpenAI"])


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_TEXT = {"type": "string", "maxLength": MOST_CHARACTERS}
_TEXTS = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MOST_ITEMS}
Texts = Annotated[Items[Text], BeforeValidator(_listed), WithJsonSchema({"anyOf": [_TEXT, _TEXTS]})]


class CreateEmbeddings(ModelChoice):
    """Texts to turn into vectors."""

    input: Texts
    """One text or several; none empty."""
    encoding_format: EncodingFormat = "float"
    """Vectors as lists of numbers, or as base64 of little-endian float32."""
    dimensions: Dimensions | None = None
    """Keep only the first so many, renormalised. Absent: all."""
    user: str | None = Field(default=None, max_length=512)
    """Accepted because OpenAI's clients may send it; not used."""


class OpenAIEmbedding(Answered):
    """One text's vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: NumbersOrBase64


class Usage(Answered):
    """How much was embedded."""

    prompt_tokens: int
    """As the model's tokenizer counts them; of a text too long for it, those that were read."""
    total_tokens: int
    """The same."""


class Embeddings(Answered):
    """The texts' vectors."""

    object: Literal["list"] = "list"
    data: list[OpenAIEmbedding]
    model: str
    """The model that answered."""
    space_id: str
    """Only vectors with equal space ids may be compared. OpenAI's clients ignore it."""
    usage: Usage


@router.post(
    OPENAI_ROUTE,
    response_model=Embeddings,
    responses=documented(model=OpenAIProblem),
    openapi_extra=described(CreateEmbeddings, examples.OPENAI),
)
async def create_embeddings(caller: CallerOf) -> Response:
    """Turn texts into vectors, for programs written for OpenAI's API."""
    body = await read_json(caller.request, CreateEmbeddings)
    batch = await caller.answer(
        caller.client.embed_texts(
            body.input, dimensions=body.dimensions, **caller.options(body.model)
        )
    )
    data = [
        OpenAIEmbedding(index=i, embedding=codec.vector(np.asarray(row), body.encoding_format))
        for i, row in enumerate(batch.vectors)
    ]
    tokens = sum(answer.tokens for answer in batch.answers())
    return reply(
        Embeddings(
            data=data,
            model=batch.info.model,
            space_id=batch.space_id,
            usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
        )
    )
