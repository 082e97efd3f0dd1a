"""From a request's body to what a route takes: counted, parsed and checked, once.

FastAPI would parse a body on the event loop, and every other caller would wait for it: seconds,
where megabytes are numbers or brackets. Here a body of too many values is refused before it is
parsed, and a large one is parsed in a thread.
"""

import asyncio
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

JSON = "application/json"
MOST_VALUES = 262_144
"""Values in one JSON body: 64 vectors of 4096 numbers, parsed in a twentieth of a second. They
govern what parsing costs, and bytes hardly do: a picture is one."""
LARGE = 256 * 1024
"""Bytes from which a body is worth a thread."""

Schema = TypeVar("Schema", bound=BaseModel)

_REFERENCE = "#/components/schemas/{model}"


async def read_json(request: Request, schema: type[Schema]) -> Schema:
    """The request as its schema says.

    Raises:
        RequestValidationError: it does not fit, is not JSON, or has more than `MOST_VALUES`.
        HTTPException: it is of another media type; or what `limits.py` says of its body.
    """
    require(media_type_of(request), JSON)
    content = await request.body()
    if len(content) < LARGE:
        return _parse(schema, content)
    return await asyncio.to_thread(_parse, schema, content)


def _parse(schema: type[Schema], content: bytes) -> Schema:
    # Each value but the outermost comes after one of these. Those within texts count as well:
    # telling them apart is parsing.
    marks = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    if marks >= MOST_VALUES:
        allowed = f"allowed: at most {MOST_VALUES}; vectors can be base64, which is one each"
        said = f"found about {marks} values; {allowed}"
        raise RequestValidationError([{"type": "too_long", "loc": ("body",), "msg": said}])
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        raise misfit(error) from None


def misfit(error: ValidationError) -> RequestValidationError:
    """What FastAPI would raise for what pydantic found in a body."""
    found: list[Any] = error.errors(include_url=False)
    for one in found:
        if not isinstance(one["input"], int | float):  # what is no number may be megabytes
            del one["input"]
    return RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found])


def media_type_of(request: Request) -> str:
    """What the body says it is, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def require(media_type: str, *allowed: str) -> None:
    """Refuse a body of another media type.

    Raises:
        HTTPException: it is none of those.
    """
    if media_type not in allowed:
        found = f"found {media_type or 'none'}; allowed: {' or '.join(allowed)}"
        raise HTTPException(415, found)


def described(schema: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    """A route's `openapi_extra`: the body that `read_json` reads."""
    reference = {"$ref": _REFERENCE.format(model=schema.__name__)}
    content = {JSON: {"schema": reference, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


def components(*schemas: type[BaseModel]) -> dict[str, Any]:
    """What `described` refers to, for the document's components."""
    found = models_json_schema(
        [(schema, "validation") for schema in schemas], ref_template=_REFERENCE
    )
    definitions: dict[str, Any] = found[1]["$defs"]
    return definitions
