"""Every field of a recipe: where it stands, what it takes, its default and what it means.

Read from the classes that check recipes, so nothing is said twice: what is allowed from their JSON
schema, meanings from the docstrings under the fields, which are in the sources alone. Knows
neither Markdown nor terminals.

A place is what leads to a section, `model.vision.stem`; objectives stand in a list and are called
by their kind there, as by `--set`: `objectives.image_text.negatives`.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel

from tectum_train.recipe.allowed import Link, Schema, allowed, referred, shown
from tectum_train.recipe.whole import Recipe
from tectum_train.refusals import RecipeError

__all__ = ["Field", "Section", "joined", "sections", "sections_at"]

_WORDS = {"None": "null", "True": "true", "False": "false"}
"""Python's words in docstrings, and YAML's."""
_KIND = "Makes it a section of this kind."
_MOST = 4
"""Paths that are offered in place of one that there is not."""


@dataclass(frozen=True, slots=True)
class Field:
    """One setting."""

    name: str
    """Its key."""
    schema: Schema
    """What it takes, as JSON schema."""
    default: str | None
    """As YAML; None: it has none, and must be given."""
    meaning: str
    """One line."""

    def allowed(self, link: Link) -> str:
        """What it takes, in plain words, with sections as `link` says them."""
        return allowed(self.schema, link, _kinds())


@dataclass(frozen=True, slots=True)
class Section:
    """One mapping of a recipe, or the whole."""

    name: str
    """Of its class, by which schemas refer to it."""
    places: tuple[str, ...]
    """All that have such a section; the whole recipe's is empty."""
    kind: str | None
    """What its `kind` says; None: its place takes no other sections."""
    meaning: str
    """One line; empty where only some of its fields are meant."""
    fields: tuple[Field, ...]
    """In the order of the sources; `kind` leads."""

    @property
    def title(self) -> str:
        """Its first place, and its kind where the place does not say it."""
        place = self.places[0]
        named = self.kind is None or place.rpartition(".")[2] == self.kind
        return place if named else f"{place}, kind {self.kind}"


@cache
def sections() -> tuple[Section, ...]:
    """The whole recipe, and then each section behind the first one that has it."""
    places = dict[str, list[str]]()
    for place, name in _placed({"$ref": Recipe.__name__}, ""):
        places.setdefault(name, []).append(place)
    classes = dict(_classes(Recipe))
    return tuple(
        Section(
            name=name,
            places=tuple(found),
            kind=_kinds().get(name),
            meaning=_plain((inspect.getdoc(classes[name]) or "").split("\n\n")[0]),
            fields=_fields(classes[name]),
        )
        for name, found in places.items()
    )


def sections_at(path: str) -> tuple[Section, ...]:
    """What there is at a path.

    Of a field: its section with that field alone, and without a meaning; then, where the field is
    a section, that one, in all of its kinds. A list's kinds come without fields: each is at
    `path.kind`.

    Args:
        path: a section's or a field's, `schedule` or `schedule.steps`; empty: the whole recipe.

    Raises:
        RecipeError: there is no such path; names near ones.
    """
    if path not in _index():
        raise RecipeError(_instead(path))
    return _index()[path]


def joined(place: str, name: str) -> str:
    """A path, of a section's place and a field's name."""
    return f"{place}.{name}" if place else name


@cache
def _schemas() -> Mapping[str, Schema]:
    """The schema of each section, by its class's name."""
    whole = Recipe.model_json_schema()
    return {Recipe.__name__: whole, **whole["$defs"]}


@cache
def _kinds() -> Mapping[str, str]:
    """What `kind` says in each section that has one, by the section's name."""
    return {
        name: schema["properties"]["kind"]["const"]
        for name, schema in _schemas().items()
        if "const" in schema["properties"].get("kind", {})
    }


def _placed(schema: Schema, place: str) -> Iterator[tuple[str, str]]:
    """Place and name of each section in what a schema describes, the outer ones first."""
    if (name := referred(schema)) is not None:
        yield place, name
        for key, below in _schemas()[name]["properties"].items():
            yield from _placed(below, joined(place, key))
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _placed(one, place)
    for one in schema.get("items", {}).get("oneOf", ()):
        yield from _placed(one, joined(place, _kinds()[referred(one) or ""]))


def _classes(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Name and class of each section in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation.__name__, annotation
        for field in annotation.model_fields.values():
            yield from _classes(field.annotation)
    for one in get_args(annotation):
        yield from _classes(one)


def _fields(section: type[BaseModel]) -> tuple[Field, ...]:
    meanings = _meanings(section)
    made = [
        Field(name, schema, _default(schema), meanings.get(name, ""))
        for name, schema in _schemas()[section.__name__]["properties"].items()
    ]
    # Its default builds sections in code; in a file, where others may stand, it is never left out.
    kinds = [replace(one, default=None, meaning=_KIND) for one in made if one.name == "kind"]
    return (*kinds, *(one for one in made if one.name != "kind"))


def _default(schema: Schema) -> str | None:
    """A default; of a section's, what is not at the default of that section."""
    if "default" not in schema:
        return None
    value = schema["default"]
    if isinstance(value, dict) and "additionalProperties" not in schema:
        kind = value.get("kind")
        refs = [referred(one) for one in schema.get("oneOf", (schema,))]
        (name,) = [one for one in refs if one is not None and _kinds().get(one) == kind]
        usual = _schemas()[name]["properties"]
        own = {key: one for key, one in value.items() if usual[key].get("default") != one}
        value = own if kind is None else {"kind": kind, **own}
    return shown(value)


def _meanings(section: type[BaseModel]) -> dict[str, str]:
    """The docstring under each field, of base classes too."""
    found = dict[str, str]()
    for base in reversed(section.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            (read,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            body = getattr(read, "body", [])
            for field, text in pairwise(body):
                match field, text:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(said))),
                    ):
                        found[name] = _plain(said)
    return found


def _plain(text: str) -> str:
    """One line, in YAML's words."""
    line = " ".join(text.split())
    return re.sub(rf"\b({'|'.join(_WORDS)})\b", lambda word: _WORDS[word[0]], line)


@cache
def _index() -> Mapping[str, tuple[Section, ...]]:
    """What `sections_at` says of each path, fields before sections."""
    found = defaultdict[str, list[Section]](list)
    placed = [(place, one) for one in sections() for place in one.places]
    for place, one in placed:
        for field in one.fields:
            part = replace(one, places=(place,), meaning="", fields=(field,))
            found[joined(place, field.name)].append(part)
    for place, one in placed:
        found[place].append(replace(one, places=(place,)))
        parent, _, last = place.rpartition(".")
        if one.kind == last:
            found[parent].append(replace(one, places=(place,), fields=()))
        elif one.kind is not None and joined(place, one.kind) not in found:
            found[joined(place, one.kind)].append(replace(one, places=(place,)))
    return {path: tuple(several) for path, several in found.items()}


def _instead(path: str) -> str:
    """What there is, in place of a path that there is not."""
    known = [one for one in _index() if one]
    ends = sorted((one for one in known if one.endswith(f".{path}")), key=len)
    near = ends[:_MOST] or get_close_matches(path, known, n=_MOST)
    meant = f" did you mean {' or '.join(near)}?" if near else ""
    place = path
    while place not in _index():
        place = place.rpartition(".")[0]
    inside = [one.rpartition(".") for one in known]
    keys = ", ".join(last for parent, _, last in inside if parent == place)
    has = f"{place or 'a recipe'} has {keys}" if keys else f"{place} has nothing below it"
    return f"no field {path!r};{meant} {has}"
