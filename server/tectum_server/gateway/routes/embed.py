"""Vectors of pictures, texts and clips."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.responses import Response

from tectum_server.gateway import examples
from tectum_server.gateway.caller import CallerOf
from tectum_server.gateway.problems import documented
from tectum_server.gateway.reading import (
    JSON,
    described,
    media_type_of,
    misfit,
    read_json,
    require,
)
from tectum_server.gateway.reply import reply
from tectum_server.gateway.schemas.common import MOST_ITEMS
from tectum_server.gateway.schemas.embed import EmbedAnswer, EmbedClips, EmbedImages, EmbedTexts

router = APIRouter(prefix="/v1/embed", tags=["embed"], responses=documented())

FORM = "multipart/form-data"
MAX_FIELD_BYTES = 4096
"""Of one form field that is no file."""


def _image_body() -> dict[str, Any]:
    """The two forms in which pictures may come, for the documentation."""
    options = EmbedImages.model_json_schema()["properties"]
    del options["images"]
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
    images = {**files, "maxItems": MOST_ITEMS, "description": "The files, repeated."}
    form = {
        "type": "object",
        "required": ["images"],
        "additionalProperties": False,
        "properties": {"images": images, **options},
    }
    found = described(EmbedImages, examples.EMBED_IMAGES)
    found["requestBody"]["content"][FORM] = {"schema": form}
    return found


@router.post("/images", response_model=EmbedAnswer, openapi_extra=_image_body())
async def embed_images(caller: CallerOf) -> Response:
    """Turn pictures into vectors; as JSON with base64, or as multipart files named `images`."""
    body = await read_images(caller.request)
    batch = await caller.answer(
        caller.client.embed_images(
            body.images,
            kind=body.kind,
            dtype=body.data_type,
            dimensions=body.dimensions,
            **caller.options(body.model),
        )
    )
    return reply(EmbedAnswer.of(batch, body.encoding_format))


@router.post(
    "/texts",
    response_model=EmbedAnswer,
    openapi_extra=described(EmbedTexts, examples.EMBED_TEXTS),
)
async def embed_texts(caller: CallerOf) -> Response:
    """Turn texts into vectors of the space shared with images."""
    body = await read_json(caller.request, EmbedTexts)
    batch = await caller.answer(
        caller.client.embed_texts(
            body.texts,
            dtype=body.data_type,
            dimensions=body.dimensions,
            **caller.options(body.model),
        )
    )
    return reply(EmbedAnswer.of(batch, body.encoding_format))


@router.post(
    "/clips",
    response_model=EmbedAnswer,
    openapi_extra=described(EmbedClips, examples.EMBED_CLIPS),
)
async def embed_clips(caller: CallerOf) -> Response:
    """Turn short clips into vectors, for models with a video path."""
    body = await read_json(caller.request, EmbedClips)
    interval = body.frame_interval_ms
    batch = await caller.answer(
        caller.client.embed_clips(
            [clip.frames for clip in body.clips],
            None if interval is None else interval / 1000,
            kind=body.kind,
            dtype=body.data_type,
            dimensions=body.dimensions,
            **caller.options(body.model),
        )
    )
    return reply(EmbedAnswer.of(batch, body.encoding_format))


async def read_images(request: Request) -> EmbedImages:
    """The request in either of its two forms.

    Raises:
        RequestValidationError: it does not fit the schema.
        HTTPException: it is of another media type.
    """
    media_type = media_type_of(request)
    require(media_type, JSON, FORM)
    if media_type == JSON:
        return await read_json(request, EmbedImages)
    try:
        return EmbedImages.model_validate(await _form(request))
    except ValidationError as error:
        raise misfit(error, EmbedImages) from None


def _misplaced(name: str, why: str) -> RequestValidationError:
    return RequestValidationError([{"type": "form", "loc": ("body", name), "msg": why}])


async def _form(request: Request) -> dict[str, Any]:
    settings = request.app.state.settings
    fields: dict[str, Any] = {}
    async with request.form(
        max_files=settings.max_files, max_fields=16, max_part_size=MAX_FIELD_BYTES
    ) as form:
        for name, part in form.multi_items():
            value = await part.read() if isinstance(part, UploadFile) else part
            if name == "images":
                fields.setdefault("images", []).append(value)
            elif name not in EmbedImages.model_fields:
                raise _misplaced(name, "unknown field; files go in images")
            elif name in fields or isinstance(value, bytes):
                raise _misplaced(name, "allowed: one value, not a file; files go in images")
            else:
                fields[name] = value
    return fields
