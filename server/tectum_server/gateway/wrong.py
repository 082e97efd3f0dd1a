"""What a schema says of a request that it does not take: a reason of the contract's, and a field.

The worker judges by the same words, so a caller meets one reason for one mistake, whether the
gateway saw it or the worker did. How a refusal is written is `problems.py`'s business.
"""

import difflib
from typing import Any

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

_KIND = "contract"
_REASONS = {
    "missing": "FIELD_MISSING",
    # Every bound from below here is the contract's "at least one", or two frames.
    "too_short": "FIELD_MISSING",
    "string_too_short": "FIELD_MISSING",
    "too_long": "TOO_MANY_ITEMS",
    "finite_number": "NOT_FINITE",
}
"""The contract's reasons for pydantic's own errors; FIELD_OUT_OF_RANGE for all others."""
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
"""Pydantic's errors for numbers that are too small or too large: where each says its bound."""
_LENGTHS = {
    "too_short": ("min_length", "at least", "items"),
    "too_long": ("max_length", "at most", "items"),
    "string_too_short": ("min_length", "at least", "characters"),
    "string_too_long": ("max_length", "at most", "characters"),
}
"""The same for lists and texts, and what they are made of."""
_TYPES = {
    "list": "a list",
    "string": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "an object",
    "model": "an object",
    "model_attributes": "an object",
}
"""What is allowed where something of another type was found: pydantic's `list_type` and so on."""
_KINDS = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    bytes: "a file",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
"""What JSON and forms are made of."""
NOT_FINITE = "found NaN or infinity; allowed: finite numbers"
"""In the SDK's words, which judges vectors too."""
_LONGEST_KEY = 64
"""Characters of an unknown field that are compared with those that there are."""


def wrong(
    description: str, *, reason: str = "FIELD_OUT_OF_RANGE", field: str = ""
) -> PydanticCustomError:
    """What a validator raises.

    Args:
        description: what was found and what is allowed.
        reason: name in the contract's ErrorReason.
        field: below the place that is being validated; empty: that place.
    """
    told = {"description": description, "reason": reason, "field": field}
    return PydanticCustomError(_KIND, "{description}", told)


def within(allowed: str) -> WrapValidator:
    """For a number, or a list of them, with two bounds: a refusal tells both, `1 to 20`."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] not in _BOUNDS:
                raise
            place = "".join(f"[{index}]" for index in first["loc"])
            raise wrong(f"{_found(first)}allowed: {allowed}", field=place) from None

    return WrapValidator(check)


def description_of(error: Any) -> str:
    """What was found and what is allowed, of one of pydantic's errors."""
    kind = error["type"]
    if kind in _BOUNDS:
        key, word = _BOUNDS[kind]
        return f"{_found(error)}allowed: {word} {_whole(error['ctx'][key])}"
    if kind in _LENGTHS and "ctx" in error:
        return _of_length(error)
    if kind == "extra_forbidden":
        return _of_unknown(error)
    if kind == "missing":
        return "found nothing; this field is required"
    if kind == "finite_number":
        return NOT_FINITE
    if kind == "literal_error":
        allowed = error["ctx"]["expected"].replace("'", "")
        return f"{_found(error)}allowed: {allowed}"
    if allowed := _TYPES.get(kind.removesuffix("_type")):
        return f"found {error.get('kind') or kind_of(error.get('input'))}; allowed: {allowed}"
    # What was written as text, or as another kind of number: `soon`, `1.5`.
    if allowed := _TYPES.get(kind.partition("_parsing")[0].removesuffix("_from_float")):
        return f"{_found(error)}allowed: {allowed}"
    return str(error["msg"]).removeprefix("Value error, ")


def kind_of(value: Any) -> str:
    """What a value in a request is, as its caller would say: `a list`."""
    return _KINDS.get(type(value), type(value).__name__)


def _of_length(error: Any) -> str:
    """`found 0 items; allowed: at least 1`."""
    key, word, parts = _LENGTHS[error["type"]]
    found = error.get("length", error["ctx"].get("actual_length"))
    return (
        f"{'' if found is None else f'found {found} {parts}; '}allowed: {word} {error['ctx'][key]}"
    )


def _of_unknown(error: Any) -> str:
    """`unknown field; did you mean model? allowed: model, texts`."""
    allowed = error.get("allowed", ())
    near = difflib.get_close_matches(str(error["loc"][-1])[:_LONGEST_KEY], allowed, 1)
    meant = f"; did you mean {near[0]}?" if near else ";"
    return f"unknown field{meant} allowed: {', '.join(allowed)}"


def _found(error: Any) -> str:
    return f"found {str(error['input'])[:40]}; " if "input" in error else ""


def _whole(bound: float) -> float:
    """The bound, as an integer if it is one: `3600000`, not `3.6e+06`."""
    return int(bound) if bound == int(bound) else bound


def branch(name: str) -> str:
    """The tag of one of a field's several forms, which `field_of` leaves out."""
    return f"({name})"


def reason_of(error: Any) -> str:
    """The contract's reason for one of pydantic's errors."""
    if error["type"] == _KIND:
        return str(error["ctx"]["reason"])
    return _REASONS.get(error["type"], "FIELD_OUT_OF_RANGE")


def field_of(error: Any) -> str:
    """Where it is, as the caller wrote the request: `frames[2].image`."""
    below = str(error["ctx"]["field"]) if error["type"] == _KIND else ""
    _, *parts = error["loc"]
    named = [part for part in parts if isinstance(part, int) or not part.startswith("(")]
    written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named)
    return f"{written}.{below}".replace(".[", "[").strip(".") or "body"
