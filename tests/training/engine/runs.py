"""Tiny runs and what they leave behind, for the tests of the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from tectum_train.engine.building import Run
from tectum_train.engine.run import train
from tectum_train.recipe import Recipe

__all__ = ["checkpoint", "died_and_resumed", "folder", "metrics", "same", "trained"]


def trained(recipe: Recipe, resume: bool = False, device: str = "cpu") -> Run:
    with Path("/dev/null").open("w") as nowhere:
        return train(recipe, device, resume=resume, console=Console(file=nowhere))


def folder(recipe: Recipe) -> Path:
    return Path(recipe.output) / f"{recipe.name}-seed{recipe.seed}"


def metrics(recipe: Recipe) -> list[dict[str, float]]:
    lines = (folder(recipe) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def checkpoint(recipe: Recipe) -> dict[str, torch.Tensor]:
    return load_file(folder(recipe) / "checkpoint.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def died_and_resumed(recipe: Recipe, after_step: Any) -> None:
    """Train until step 4 kills it, and then go on from its last checkpoint."""

    def die() -> None:
        raise MemoryError

    after_step(4, die)
    with pytest.raises(MemoryError):
        trained(recipe)
    torch.rand(7)  # the generator is elsewhere when the run is taken up again
    trained(recipe, resume=True)
