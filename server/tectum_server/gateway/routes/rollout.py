"""What would be seen if this or that were done."""

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from tectum_server.gateway import examples
from tectum_server.gateway.caller import CallerOf
from tectum_server.gateway.problems import documented
from tectum_server.gateway.reading import described, read_json
from tectum_server.gateway.reply import reply
from tectum_server.gateway.schemas.rollout import PredictRollout, RolloutAnswer

router = APIRouter(prefix="/v1", tags=["rollout"], responses=documented())


@router.post(
    "/rollout",
    response_model=RolloutAnswer,
    openapi_extra=described(PredictRollout, examples.ROLLOUT),
)
async def predict_rollout(caller: CallerOf) -> Response:
    """Predict what each candidate would lead to, for models with a world model."""
    body = await read_json(caller.request, PredictRollout)
    interval = body.frame_interval_ms
    batch = await caller.answer(
        caller.client.rollout(
            body.frames,
            body.candidates,
            past_actions=body.past_actions,
            goal=body.goal,
            steps=body.steps,
            action_space_id=body.action_space_id,
            frame_interval=None if interval is None else interval / 1000,
            return_latents=body.return_latents,
            decode_frames=body.decode_frames,
            dtype=body.data_type,
            **caller.options(body.model),
        )
    )
    # In a thread: painted frames are written as PNG, which takes its time and frees the GIL.
    return reply(await asyncio.to_thread(RolloutAnswer.of, batch, body.encoding_format))
