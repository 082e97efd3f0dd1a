"""From a request's body to what a route takes: counted, parsed and checked, once.

FastAPI would parse a body on the event loop, and every other caller would wait for it: seconds,
where megabytes are numbers or brackets. Here a body of too many values is refused before it is
parsed, and a large one is parsed in a thread.
"""

import asyncio
from typing import Any, TypeVar, get_args

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from tectum_server.gateway.wrong import kind_of

JSON = "application/json"
MOST_VALUES = 262_144
"""Values in one JSON body: 64 vectors of 4096 numbers, parsed in a twentieth of a second. They
govern what parsing costs, and bytes hardly do: a picture is one."""
LARGE = 256 * 1024
"""Bytes from which a body is worth a thread."""

Schema = TypeVar("Schema", bound=BaseModel)

_MOST_ECHOED = 40
"""Characters of a wrong value that its caller is told."""
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
        raise misfit(error, schema) from None


def misfit(error: ValidationError, schema: type[BaseModel]) -> RequestValidationError:
    """What FastAPI would raise for what pydantic found in a body of that schema.

    With it goes what `wrong.py` tells of: an unknown field's neighbours, and of what may be
    megabytes no more than its kind, its length and its beginning.
    """
    found: list[Any] = error.errors(include_url=False)
    for one in found:
        given = one["input"]
        one["kind"] = kind_of(given)
        if isinstance(given, str):
            one["length"], one["input"] = len(given), given[:_MOST_ECHOED]
        elif not isinstance(given, int | float):
            del one["input"]
        if one["type"] == "extra_forbidden":
            one["allowed"] = _fields_at(schema, one["loc"][:-1])
    return RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found])


def _fields_at(schema: type[BaseModel], place: tuple[int | str, ...]) -> tuple[str, ...]:
    """The fields of the part of a request that lies at a place, `("left", 0, "embedding")`."""
    for part in place:
        if part in schema.model_fields:
            schema = _part_of(schema.model_fields[str(part)].annotation) or schema
    return tuple(schema.model_fields)


def _part_of(annotation: Any) -> type[BaseModel] | None:
    """The schema in a field's type: `Clip` of `list[Clip] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_part_of, get_args(annotation))), None)


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
