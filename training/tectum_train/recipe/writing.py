"""Write a recipe as YAML that reads back as the same recipe: every default is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tectum_train.recipe.whole import Recipe

__all__ = ["as_yaml"]

_BREAKS = frozenset("\x85\u2028\u2029")
_WIDTH = 100
"""Characters of a line, where it can be broken."""


class _Written(yaml.SafeDumper):
    """Sections in blocks, lists of plain values on a line, several lines of text as they stand."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Lists stand two columns in, as in the recipes that come with the package."""
        del indentless
        return super().increase_indent(flow, False)

    def text(self, value: str) -> yaml.Node:
        """A text."""
        # Line breaks of other alphabets are spaces to who reads them unquoted.
        quoted = not _BREAKS.isdisjoint(value)
        style = '"' if quoted else "|" if "\n" in value else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    def several(self, values: Sequence[Any]) -> yaml.Node:
        """A list."""
        plain = not any(isinstance(one, list | tuple | dict) for one in values)
        return self.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=plain)


_Written.add_representer(str, _Written.text)
_Written.add_representer(list, _Written.several)
_Written.add_representer(tuple, _Written.several)


def as_yaml(recipe: Recipe) -> str:
    """All that a recipe says, defaults too; its description, the longest text, comes last."""
    tree = recipe.model_dump()
    tree["description"] = tree.pop("description")
    return yaml.dump(
        _kinds_first(tree), Dumper=_Written, sort_keys=False, allow_unicode=True, width=_WIDTH
    )


def _kinds_first(value: Any) -> Any:
    """A tree whose sections begin with what they are."""
    if isinstance(value, Mapping):
        named = {key: value[key] for key in ("kind",) if key in value}
        return {**named, **{key: _kinds_first(one) for key, one in value.items()}}
    return [_kinds_first(one) for one in value] if isinstance(value, list | tuple) else value
