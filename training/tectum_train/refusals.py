"""What to say of a recipe that does not hold: who said it, what was found, what is allowed.

Knows pydantic's errors, the tree that they are about and what was changed in it; no recipe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tectum_train.differences import kinds

__all__ = ["Change", "Place", "RecipeError", "explained"]

Place = tuple[str | int, ...]
"""Keys and numbers that lead to a value in a tree of YAML."""
_LONGEST = 60
"""Characters of what was found, at most."""
_MAPPING = "a mapping"
_ALLOWED = {
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "union_tag_invalid": "{expected_tags}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), _MAPPING),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    "string_type": "text",
}
"""By pydantic's type of error, with the names of its context."""
_MISSING = frozenset({"missing", "union_tag_not_found"})
_FIELD = re.compile(r"[a-z_]+(\.[a-z_]+)*: found ")
"""How a section's own message begins if it names a field of its own."""


class RecipeError(ValueError):
    """A recipe that cannot be read; names the key and what it allows."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value that `--set` gave."""

    text: str
    """As it was written, path.to.key=value."""
    place: Place
    """Where it went."""


def explained(
    error: ValidationError,
    model: type[BaseModel],
    tree: Mapping[str, Any],
    name: str,
    changes: Sequence[Change],
) -> str:
    """A line for each mistake.

    Args:
        error: what was raised.
        model: the class that the tree was to be.
        tree: what was read, with the changes in it.
        name: of the file.
        changes: made to what the file holds, in their order.
    """
    errors = error.errors()
    return "\n".join(
        _line(found, model, tree, name, changes) for found in errors if not _follows(found, errors)
    )


def _follows(found: Mapping[str, Any], errors: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a list is told too short only since one of its entries is wrong, which is told."""
    place = found["loc"]
    return found["type"] == "too_short" and any(
        one["loc"][: len(place)] == place and len(one["loc"]) > len(place) for one in errors
    )


def _line(
    found: Mapping[str, Any],
    model: type[BaseModel],
    tree: Mapping[str, Any],
    name: str,
    changes: Sequence[Change],
) -> str:
    place, kind = _place(tree, found), found["type"]
    key = _named(tree, place)
    # Without a kind, whatever else is said of a section is of none.
    about = place[:-1] if kind == "union_tag_not_found" else place
    touching = [one for one in changes if _overlap(one.place, about)]
    set_here = f"--set {touching[-1].text}" if touching else name
    if kind == "extra_forbidden":
        return f"{set_here}: unknown key {key}{_instead(model, found['loc'], key)}"
    if kind in _MISSING:
        return f"{set_here}: {key} is missing, and has no default{_of_these(model, found, key)}"
    if kind in _ALLOWED:
        bounds = found.get("ctx", {})
        short = {key: f"{one:g}" if isinstance(one, float) else one for key, one in bounds.items()}
        allowed = _ALLOWED[kind].format_map(short)
        if allowed == _MAPPING:
            allowed += _such_as(model, found["loc"], found["input"])
        what = f"found {_value(found)}; allowed: {allowed}"
        said = bool(touching) and touching[-1].place == place
        return f"{set_here}: {what}" if said else f"{set_here}: {key}: {what}"
    # Several values contradict each other, and the message names them: who is wrong is open.
    told = found["msg"].removeprefix("Value error, ")
    if key and _FIELD.match(told):
        section = key.rpartition(".")[2]
        key, told = "", f"{key}.{told.removeprefix(f'{section}.')}"
    given = ", ".join(f"--set {one.text}" for one in touching)
    return ": ".join(filter(None, (f"{name} with {given}" if given else name, key, told)))


def _value(found: Mapping[str, Any]) -> str:
    value = found["ctx"]["tag"] if found["type"] == "union_tag_invalid" else found["input"]
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _place(tree: Mapping[str, Any], found: Mapping[str, Any]) -> Place:
    """Where in the tree an error is: pydantic also names the kind of an entry, which is no key."""
    place, here = list[str | int](), cast("Any", tree)
    for step in found["loc"]:
        listed = isinstance(here, list) and isinstance(step, int) and step < len(here)
        if listed or (isinstance(here, dict) and step in here):
            place.append(step)
            here = here[step]
    if found["type"] == "missing":
        place.append(found["loc"][-1])
    elif "discriminator" in found.get("ctx", {}):
        place.append(found["ctx"]["discriminator"].strip("'"))
    return tuple(place)


def _named(tree: Mapping[str, Any], place: Place) -> str:
    """A place as `--set` takes it; entries of a list by their kind, which is no name of itself."""
    names, here = list[str](), cast("Any", tree)
    for number, step in enumerate(place):
        own = kinds(here) if isinstance(here, list) and place[number + 1 :] != ("kind",) else None
        names.append(own[int(step)] if own else str(step))
        listed = isinstance(here, list) and isinstance(step, int) and step < len(here)
        here = here[step] if listed or (isinstance(here, dict) and step in here) else None
    return ".".join(names)


def _overlap(one: Place, other: Place) -> bool:
    """Whether one of them is the other, or lies below it."""
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _instead(model: type[BaseModel], location: Place, name: str) -> str:
    """What the section has, in place of a key that it has not."""
    section: Any = model
    for step in location[:-1]:
        section = _below(section, step)
    keys = list(_bare(section).model_fields)
    meant = _meant(name, keys)
    return f"{meant}{'' if meant else ';'} allowed: {', '.join(keys)}"


def _meant(name: str, keys: Sequence[str]) -> str:
    """Which of the keys a place's last one may be a misspelling of."""
    above, _, key = name.rpartition(".")
    close = get_close_matches(key, keys, n=1)
    return "".join(f"; did you mean {above + '.' if above else ''}{one}?" for one in close)


def _of_these(model: type[BaseModel], found: Mapping[str, Any], name: str) -> str:
    """The kinds of which none is said; and keys beside it that none of them has."""
    if found["type"] != "union_tag_not_found":
        return ""
    section: Any = model
    for step in found["loc"]:
        section = _below(section, step)
    members = get_args(_bare(section))
    known = dict.fromkeys(key for one in members for key in one.model_fields)
    above = name.rpartition(".")[0]
    unknown = [f"{above}.{key}" for key in found["input"] if key not in known]
    wrong = "".join(f"; unknown key {one}{_meant(one, list(known))}" for one in unknown)
    return f"; allowed: {', '.join(repr(_kind(one)) for one in members)}{wrong}"


def _such_as(model: type[BaseModel], location: Place, value: Any) -> str:
    """An example of a mapping that may stand at a place: of the kind that was meant, if one was."""
    section: Any = model
    for step in location:
        section = _below(section, step)
    bare = _bare(section)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        fields = bare.model_fields
        key = next((name for name, one in fields.items() if one.is_required()), next(iter(fields)))
        return f" such as {{{key}: …}}"
    kinds = [kind for one in get_args(bare) if (kind := _kind(one)) is not None]
    meant = value if value in kinds else next(iter(kinds), None)
    return "" if meant is None else f" such as {{kind: {meant}}}"


def _kind(member: Any) -> Any:
    """What a section's `kind` says, if it has one."""
    field = getattr(member, "model_fields", {}).get("kind")
    return None if field is None else get_args(field.annotation)[0]


def _below(annotation: Any, step: str | int) -> Any:
    """The type of what pydantic calls `step` in a value of a type."""
    bare = _bare(annotation)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return bare.model_fields[str(step)].annotation
    members = get_args(bare)
    if get_origin(bare) in (tuple, dict):
        return members[-1] if get_origin(bare) is dict else members[0]
    return next(one for one in members if step in get_args(one.model_fields["kind"].annotation))


def _bare(annotation: Any) -> Any:
    """A type without its metadata, and without the None that it may be in place of a value."""
    while True:
        origin, members = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            annotation = members[0]
            continue
        values = [one for one in members if one is not NoneType]
        if origin not in (Union, UnionType) or len(values) > 1:
            return annotation
        (annotation,) = values
