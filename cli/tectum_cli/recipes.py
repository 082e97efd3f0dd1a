"""What `tectum train` tells of recipes: which there are, all that one says, what one may say."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.text import Text

from tectum_cli.extras import console, fail, needs
from tectum_cli.publish import show_line

if TYPE_CHECKING:
    from tectum_train.recipe import Recipe
    from tectum_train.recipe.fields import Section

__all__ = ["list_recipes", "show_fields", "show_recipe"]


def show_recipe(recipe: Recipe) -> None:
    """All that it says, as a YAML file has it."""
    from tectum_train.recipe.writing import as_yaml

    typer.echo(as_yaml(recipe), nl=False)


def show_fields(path: str) -> None:
    """What stands at a path of a recipe; the top level, if it is empty."""
    with needs("train"):
        from tectum_train.recipe.fields import sections_at
    try:
        found = sections_at(path)
    except ValueError as error:
        raise fail(f"{error}; `tectum train --fields` begins at the top") from error
    for number, section in enumerate(found):
        if number and (section.meaning or not found[number - 1].fields):
            console.print()
        _print_section(section)
    if not path:
        show_line("\ntectum train --fields PATH says what stands there; docs/recipes.md has all.")


def _print_section(section: Section) -> None:
    from tectum_train.recipe.fields import joined

    if section.meaning:
        _print_filled(section.title or "a recipe", f": {section.meaning}")
    for field in section.fields:
        if section.meaning:
            console.print()
        path = joined(section.places[0], field.name)
        kind = "" if section.meaning else section.title.removeprefix(section.places[0])
        default = "must be given" if field.default is None else f"default {field.default}"
        takes = field.allowed(lambda _, called: "a section" if called == "section" else called)
        _print_filled(path, f"{kind}: {takes}; {default}")
        _print_filled("", field.meaning, indent=4)


def _print_filled(name: str, text: str, indent: int = 0) -> None:
    """A name and what is said of it, at the terminal's width; whole where it is piped."""
    margin = " " * indent
    lines = textwrap.wrap(
        f"{name}{text}",
        console.width if console.is_terminal else len(name) + len(text) + indent + 1,
        initial_indent=margin,
        subsequent_indent=margin or "  ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    told = Text("\n".join(lines))
    told.stylize("bold", 0, len(name))
    console.print(told, soft_wrap=True)


def list_recipes(name: str) -> None:
    """All of them, a line each; or all that one says of itself."""
    with needs("train"):
        from tectum_train import recipes
        from tectum_train.recipe import read_recipe
    said = recipes.descriptions()
    if name:
        try:
            # One that the package lacks is refused as it would be if it were to be trained.
            text = said[name] if name in said else read_recipe(name).description
        except ValueError as error:
            raise fail(str(error)) from error
        _print_whole(text)
        return
    width = max(map(len, said))
    for one, text in said.items():
        first = re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]
        line = f"[bold]{one:<{width}}[/bold]  {escape(first)}"
        if console.is_terminal:
            console.print(line, highlight=False, no_wrap=True, overflow="ellipsis")
        else:
            console.print(line, highlight=False, soft_wrap=True)
    console.print("\ntectum train --list NAME says all of one: command, time, expected numbers.")


def _print_whole(text: str) -> None:
    """A description at the terminal's width; what is indented is a command, which stays whole."""
    # The file's own line breaks are another width's; those before a blank or an indent mean it.
    for line in re.sub(r"(?<=\S)\n(?=\S)", " ", text).splitlines():
        whole = line.startswith(" ")
        console.print(line, highlight=False, markup=False, soft_wrap=whole)
