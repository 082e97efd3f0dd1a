"""The tables of docs/recipes.md: a section of the document for each section of a recipe.

Knows Markdown, and of recipes what `fields` says. What stands above the mark in the document is
written by hand.
"""

from __future__ import annotations

import re

from tectum_train.recipe.fields import Field, Section, sections

__all__ = ["MARK", "anchor", "renewed"]

MARK = "<!-- From here on written by scripts/generate_recipe_fields.sh, never edited. -->"
"""Between what is written by hand and what is not."""
_HEAD = "| field | allowed | default | meaning |\n| --- | --- | --- | --- |\n"
_WHOLE = "The whole recipe"


def renewed(text: str) -> str:
    """The document as it should be.

    Args:
        text: as it is.

    Raises:
        ValueError: it has no mark.
    """
    above, mark, _ = text.partition(MARK)
    if not mark:
        raise ValueError(f"found no line {MARK!r}, below which the tables go")
    return above + mark + "\n" + "".join(map(_section, sections()))


def anchor(title: str) -> str:
    """What GitHub calls a heading in links."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _section(section: Section) -> str:
    first, *others = section.places
    also = f" The same at {', '.join(f'`{one}`' for one in others)}." if others else ""
    meaning = section.meaning if section.meaning.endswith((".", ":")) else f"{section.meaning}."
    rows = "".join(map(_row, section.fields))
    title = _title(section) if first else _WHOLE
    return f"\n## {title}\n\n{meaning}{also}\n\n{_HEAD}{rows}"


def _title(section: Section) -> str:
    return ", kind ".join(f"`{one}`" for one in section.title.split(", kind "))


def _row(field: Field) -> str:
    default = "must be given" if field.default is None else f"`{field.default}`"
    cells = (f"`{field.name}`", field.allowed(_link), default, field.meaning)
    return f"| {' | '.join(one.replace('|', chr(92) + '|') for one in cells)} |\n"


def _link(name: str, called: str) -> str:
    (section,) = [one for one in sections() if one.name == name]
    text = "section" if called == "section" else f"`{called}`"
    return f"[{text}](#{anchor(section.title)})"
