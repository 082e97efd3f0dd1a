"""What changed between neighbouring frames."""

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from tectum_server.gateway import examples
from tectum_server.gateway.caller import CallerOf
from tectum_server.gateway.problems import documented
from tectum_server.gateway.reading import described, read_json
from tectum_server.gateway.reply import reply
from tectum_server.gateway.schemas.latent_actions import LatentActionsAnswer, PredictLatentActions

router = APIRouter(prefix="/v1", tags=["latent actions"], responses=documented())


@router.post(
    "/latent-actions",
    response_model=LatentActionsAnswer,
    openapi_extra=described(PredictLatentActions, examples.LATENT_ACTIONS),
)
async def predict_latent_actions(caller: CallerOf) -> Response:
    """Find the latent action between each two neighbouring frames."""
    body = await read_json(caller.request, PredictLatentActions)
    interval = body.interval_ms
    batch = await caller.answer(
        caller.client.predict_latent_actions(
            [frame.image for frame in body.frames],
            captured_at=body.captured_at(),
            interval=None if interval is None else interval / 1000,
            decode_actions=body.decode_actions,
            predict_frames=body.predict_frames,
            dtype=body.data_type,
            **caller.options(body.model),
        )
    )
    # In a thread: predicted frames are written as PNG, which takes its time and frees the GIL.
    return reply(await asyncio.to_thread(LatentActionsAnswer.of, batch, body.encoding_format))
