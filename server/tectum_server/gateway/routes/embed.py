"""Vectors of pictures, texts and clips."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tectum_server.gateway import examples
from tectum_server.gateway.caller import CallerOf
from tectum_server.gateway.problems import documented
from tectum_server.gateway.reply import reply
from tectum_server.gateway.schemas.embed import EmbedAnswer, EmbedClips, EmbedImages, EmbedTexts

router = APIRouter(prefix="/v1/embed", tags=["embed"], responses=documented())

MAX_FIELD_BYTES = 4096
"""Of one form field that is no file."""


def _image_body() -> dict[str, Any]:
    """The two forms in which pictures may come, for the documentation."""
    schema = EmbedImages.model_json_schema()
    options = {name: part for name, part in schema["properties"].items() if name != "images"}
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
    form = {
        "type": "object",
        "required": ["images"],
        "additionalProperties": False,
        "properties": {"images": {**files, "description": "The files, repeated."}, **options},
    }
    content = {
        "application/json": {"schema": schema, "examples": examples.EMBED_IMAGES},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}


@router.post("/images", response_model=EmbedAnswer, openapi_extra=_image_body())
async def embed_images(request: Request, caller: CallerOf) -> Response:
    """Turn pictures into vectors; as JSON with base64, or as multipart files named `images`."""
    body = await read_images(request)
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


@router.post("/texts", response_model=EmbedAnswer)
async def embed_texts(
    body: Annotated[EmbedTexts, Body(openapi_examples=examples.EMBED_TEXTS)], caller: CallerOf
) -> Response:
    """Turn texts into vectors of the space shared with images."""
    batch = await caller.answer(
        caller.client.embed_texts(
            body.texts,
            dtype=body.data_type,
            dimensions=body.dimensions,
            **caller.options(body.model),
        )
    )
    return reply(EmbedAnswer.of(batch, body.encoding_format))


@router.post("/clips", response_model=EmbedAnswer)
async def embed_clips(
    body: Annotated[EmbedClips, Body(openapi_examples=examples.EMBED_CLIPS)], caller: CallerOf
) -> Response:
    """Turn short clips into vectors, for models with a video path."""
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
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if media_type == "multipart/form-data":
            return EmbedImages.model_validate(await _form(request))
        if media_type == "application/json":
            return EmbedImages.model_validate_json(await request.body())
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from error
    detail = f"found {media_type or 'none'}; allowed: application/json or multipart/form-data"
    raise HTTPException(415, detail)


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
            elif name in fields or isinstance(value, bytes):
                where = ("body", name)
                problem = {"type": "form", "loc": where, "msg": "allowed: one value, not a file"}
                raise RequestValidationError([problem])
            else:
                fields[name] = value
    return fields
