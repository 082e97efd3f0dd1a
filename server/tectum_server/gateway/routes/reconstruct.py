"""Hide part of an image, a clip, a text or actions, and have the model fill it in."""

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from tectum_server.gateway import examples
from tectum_server.gateway.caller import Caller, CallerOf
from tectum_server.gateway.problems import documented
from tectum_server.gateway.reading import described, read_json
from tectum_server.gateway.reply import reply
from tectum_server.gateway.schemas import reconstruct as schema
from tectum_server.gateway.schemas.reconstruct import Reconstruct, ReconstructAnswer

router = APIRouter(prefix="/v1", tags=["reconstruct"], responses=documented())


@router.post(
    "/reconstruct",
    response_model=ReconstructAnswer,
    openapi_extra=described(Reconstruct, examples.RECONSTRUCT),
)
async def reconstruct(caller: CallerOf) -> Response:
    """Hide part of the target and have the model fill it in."""
    return reply(await _ask(await read_json(caller.request, Reconstruct), caller))


# In threads where answers hold pictures: PNG takes its time to write and frees the GIL.
async def _ask(body: Reconstruct, caller: Caller) -> ReconstructAnswer:
    client, options = caller.client, caller.options(body.model)
    mask = None if body.mask is None else body.mask.read()
    if body.image is not None:
        image = client.reconstruct_image(body.image, mask, text=body.text_condition, **options)
        return await asyncio.to_thread(schema.of_image, await caller.answer(image))
    if body.clip is not None:
        interval = _seconds(body.frame_interval_ms)
        clip = client.reconstruct_clip(body.clip.frames, mask, frame_interval=interval, **options)
        return await asyncio.to_thread(schema.of_clip, await caller.answer(clip))
    if body.text is not None:
        text = client.reconstruct_text(
            body.text, mask, image=body.image_condition, top_k=body.top_k or 5, **options
        )
        return schema.of_text(await caller.answer(text))
    actions = client.reconstruct_actions(
        body.actions or [],
        mask,
        step_interval=_seconds(body.step_interval_ms),
        text=body.text_condition,
        image=body.image_condition,
        state=body.state_condition,
        **options,
    )
    return schema.of_actions(await caller.answer(actions))


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
