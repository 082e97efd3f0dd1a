"""A server's settings: what its flags say, and the environment for what has no flag.

Whoever got one wrong is told which, as they gave it, with what was found and what is allowed.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tectum_cli.extras import errors, fail

if TYPE_CHECKING:
    import typer
    from pydantic import BaseModel

__all__ = ["given_as", "read_settings"]

Settings = TypeVar("Settings", bound="BaseModel")

_PREFIXES = ("TECTUM_GATEWAY_", "TECTUM_")
"""Of the servers' variables; each variable is the first one's that it begins with."""
_OTHERS = frozenset({"TECTUM_MAKE"})
"""Variables that are no setting of any command: the Makefile's."""
_LINKS = re.compile(
    r"_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)$"
)
"""How Kubernetes' variables for a service of any name end."""
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
"""Pydantic's errors for numbers that are too small or too large: where each says its bound."""
_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false"}
"""What is allowed where pydantic could not parse: `int_parsing` and so on."""


def read_settings(
    context: typer.Context, model: type[Settings], flags: Mapping[str, object], prefix: str
) -> Settings:
    """Checked settings; ends the command where they do not hold.

    Args:
        context: the command's.
        model: the settings' fields.
        flags: values of those that have a flag, which knows variables of its own.
        prefix: of the other fields' variables: with `TECTUM_GATEWAY_`, `max_files` is
            `TECTUM_GATEWAY_MAX_FILES`. An empty variable is one that is not set.
    """
    from pydantic import ValidationError

    _warn_of_unknown(context, model, prefix)
    variables = {name: prefix + name.upper() for name in model.model_fields.keys() - flags.keys()}
    read = {name: os.environ[v] for name, v in variables.items() if os.environ.get(v)}
    try:
        settings = model.model_validate({**read, **flags})
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        field = str(found["loc"][0] if found["loc"] else found.get("ctx", {}).get("field", ""))
        where = f"{given_as(context, field, prefix)}: " if field else ""
        raise fail(f"{where}{_described(found)}") from error
    _check_files(context, settings, prefix)
    return settings


def given_as(context: typer.Context, field: str, prefix: str) -> str:
    """How a setting was said: by its flag, `--port`, or by a variable, `TECTUM_PORT`.

    Args:
        context: the command's.
        field: the setting's name.
        prefix: of its variable.
    """
    variable = prefix + field.upper()
    for option in context.command.params:
        names = _variables(option)
        if variable in names:
            source = context.get_parameter_source(option.name or "")
            if source is not None and source.name == "ENVIRONMENT":
                return next((name for name in names if os.environ.get(name)), variable)
            return str(option.opts[0])
    return variable


def _variables(option: Any) -> tuple[str, ...]:
    """The environment's variables of a flag, the strongest first."""
    found = option.envvar or ()
    return (found,) if isinstance(found, str) else tuple(found)


def _described(error: Any) -> str:
    """What was found and what is allowed, of one of pydantic's errors."""
    kind, found = error["type"], f"found {str(error['input']) or 'nothing'}; allowed: "
    if kind in _BOUNDS:
        key, word = _BOUNDS[kind]
        return f"{found}{word} {error['ctx'][key]}"
    if kind == "literal_error":
        return found + str(error["ctx"]["expected"]).replace("'", "")
    if kind == "string_too_short":
        return f"{found}at least {error['ctx']['min_length']} character"
    if allowed := _TYPES.get(kind.partition("_")[0]):
        return found + allowed
    return str(error["msg"]).removeprefix("Value error, ")


def _check_files(context: typer.Context, settings: BaseModel, prefix: str) -> None:
    """End the command where a setting names a file that cannot be read."""
    for field in type(settings).model_fields:
        file = getattr(settings, field)
        try:
            if isinstance(file, Path):
                file.open("rb").close()
        except OSError as error:
            found = f"found {file}, which cannot be read ({error.strerror})"
            raise fail(
                f"{given_as(context, field, prefix)}: {found}; allowed: a file that can"
            ) from error


def _warn_of_unknown(context: typer.Context, model: type[BaseModel], prefix: str) -> None:
    """Name the variables that look like settings and are none; they are most likely misspelt."""
    settings = {prefix + name.upper() for name in model.model_fields}
    known = settings | set(_variables_of_commands(context)) | _OTHERS
    for variable in sorted(os.environ.keys() - known):
        nearest_prefix = next((p for p in _PREFIXES if variable.startswith(p)), None)
        if nearest_prefix != prefix or _LINKS.search(variable):
            continue
        near = difflib.get_close_matches(variable, settings, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        errors.print(
            f"tectum: warning: {variable} is no setting, and is ignored{meant}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip


def _variables_of_commands(context: typer.Context) -> Iterator[str]:
    """Every variable that a flag of any command has."""
    group = context.find_root().command
    for command in getattr(group, "commands", {}).values():
        for option in command.params:
            yield from _variables(option)
