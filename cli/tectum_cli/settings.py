"""A server's settings: what its flags say, and the environment for what has no flag."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from tectum_cli.extras import fail

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["read_settings"]

Settings = TypeVar("Settings", bound="BaseModel")


def read_settings(model: type[Settings], flags: Mapping[str, object], prefix: str) -> Settings:
    """Checked settings; ends the command where they do not hold.

    Args:
        model: the settings' fields.
        flags: values of those that have a flag, which knows variables of its own.
        prefix: of the other fields' variables: with `TECTUM_GATEWAY_`, `max_files` is
            `TECTUM_GATEWAY_MAX_FILES`. An empty variable is one that is not set.
    """
    from pydantic import ValidationError

    variables = {name: prefix + name.upper() for name in model.model_fields.keys() - flags.keys()}
    read = {name: os.environ[v] for name, v in variables.items() if os.environ.get(v)}
    try:
        return model.model_validate({**read, **flags})
    except ValidationError as error:
        found = error.errors()[0]
        where = str(found["loc"][0]) if found["loc"] else ""
        flag = f"--{where.replace('_', '-')}" if where else ""
        raise fail(f"{variables.get(where, flag)} {found['msg']}".strip()) from error
