"""Recipes of the tiny tabletop, and what is said of those that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.training.tiny import job

from tectum_train.recipe import Recipe

__all__ = ["recipe", "why"]

_HERE = Path("nowhere")


def recipe(*objectives: dict[str, Any], **changes: Any) -> Recipe:
    return job(_HERE, _HERE, objectives=list(objectives), **changes)


def why(*objectives: dict[str, Any], **changes: Any) -> str:
    """What is said of a recipe that is refused."""
    with pytest.raises(ValueError) as refused:
        recipe(*objectives, **changes)
    return str(refused.value)
