"""What the benchmarks' tests share: a tiny data set, made once, and a row that learns from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from tests.benchmarks.told import says
from tests.training.tiny import job, vision_alone

from gates_rows import Row
from gates_rules import Own
from gates_run import MADE, Places
from tectum_train.evaluation.gates import IMAGE_RULE


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with `train` and `test`, and room for decoded frames; never write into it."""
    from tests.training.tiny import write_data

    return write_data(tmp_path_factory.mktemp("tabletop"))


@pytest.fixture
def row(tiny_data: Path, tmp_path: Path) -> Row:
    """Six steps of masked images."""
    recipe = job(
        tiny_data, tmp_path, model=vision_alone(), objectives=[{"kind": "masked_image"}],
        data__action=None, data__state=None, data__clip=None,
    )  # fmt: skip
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    rules = (Own("masked image", IMAGE_RULE),)
    return Row("tiny", str(path), rules, ("schedule.checkpoint_every=2",))


@pytest.fixture
def places(tiny_data: Path, tmp_path: Path) -> Places:
    """With episodes to be judged by, made as `make` makes them if one believes them."""
    for name in ("judged", "judged-wandering"):
        shutil.copytree(tiny_data / "test", tmp_path / "data" / name / "test")
        says(tmp_path / "data" / name / "test", MADE[name])
    return Places(tmp_path / "results", tmp_path / "runs", data=tmp_path / "data")


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)
