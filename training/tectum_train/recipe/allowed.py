"""What a setting takes, in plain words: a JSON schema, read for people.

Knows the part of it that pydantic writes for numbers, texts, lists and sections; no recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["Link", "Schema", "allowed", "referred", "shown"]

Schema = Mapping[str, Any]
Link = Callable[[str, str], str]
"""Given the name of a section in the schema and what it is to be called here: the words for it."""
_LONG = 2**32
"""Bounds from here on are written as powers of two."""


def allowed(schema: Schema, link: Link, kinds: Mapping[str, str]) -> str:
    """What is allowed: `a whole number, at least 1`.

    Args:
        schema: of one field.
        link: makes the words for a section.
        kinds: what `kind` says in those sections that are of several kinds, by name.

    Raises:
        ValueError: the schema says something that has no words here.
    """
    if (name := referred(schema)) is not None:
        return link(name, kinds.get(name, "section"))
    if "anyOf" in schema:
        return ", or ".join(allowed(one, link, kinds) for one in schema["anyOf"])
    if "oneOf" in schema:
        named = ", ".join(allowed(one, link, kinds) for one in schema["oneOf"])
        return f"one of the kinds {named}"
    if "const" in schema:
        return f"`{shown(schema['const'])}`"
    if "enum" in schema:
        return f"one of {', '.join(f'`{shown(one)}`' for one in schema['enum'])}"
    match schema.get("type"):
        case "null":
            return "`null`"
        case "boolean":
            return "`true` or `false`"
        case "string":
            return "text"
        case "integer":
            return f"a whole number{_bounds(schema)}"
        case "number":
            return f"a number{_bounds(schema)}"
        case "array":
            return f"a list{_listed(schema, link, kinds)}"
        case "object" if "additionalProperties" in schema:
            several = f" of at least {least}" if (least := schema.get("minProperties")) else ""
            value = allowed(schema["additionalProperties"], link, kinds)
            return f"a mapping{several}, each value {value}"
    raise ValueError(f"found a schema {dict(schema)}; allowed: those that recipes have")


def referred(schema: Schema) -> str | None:
    """Name of the section that a schema refers to, if it is a reference."""
    return schema["$ref"].rpartition("/")[2] if "$ref" in schema else None


def shown(value: object) -> str:
    """A value as YAML would have it on one line; numbers to six digits."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {shown(one)}' for key, one in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(shown, value))}]"
    return str(value) or '""'


def _bounds(schema: Schema) -> str:
    """`, at least 1`, ` from 0 to 1`: nothing where there are none."""
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if above is not None and schema["type"] == "integer":
        low, above = above + 1, None
    if low is not None and high is not None:
        return f" from {_bound(low)} to {_bound(high)}"
    said = [
        f"{word} {_bound(bound)}"
        for word, bound in (
            ("at least", low), ("above", above), ("at most", high), ("below", below),
        )
        if bound is not None
    ]  # fmt: skip
    return f", {' and '.join(said)}" if said else ""


def _bound(value: float) -> str:
    if isinstance(value, int) and value >= _LONG and not value & (value - 1):
        return f"2^{value.bit_length() - 1}"
    return shown(value)


def _listed(schema: Schema, link: Link, kinds: Mapping[str, str]) -> str:
    """How many a list has, and what each is."""
    least, most = schema.get("minItems"), schema.get("maxItems")
    many = {
        (False, False): "",
        (True, False): f" of at least {least}",
        (False, True): f" of at most {most}",
        (True, True): f" of {least}" if least == most else f" of {least} to {most}",
    }[least is not None, most is not None]
    # What recipes list by place are numbers of one sort.
    each = schema["items"] if "items" in schema else schema["prefixItems"][0]
    return f"{many}, each {allowed(each, link, kinds)}"
