"""Whole jobs that come back to a folder: which numbers of before are kept, and which are not."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from tests.training.tiny import job

from tectum_core.bundle import read_bundle
from tectum_train.job import run_job


def quiet() -> Console:
    return Console(quiet=True)


@pytest.mark.parametrize("content", ["{", '[{"nonsense": 1}]'])
def test_numbers_that_cannot_be_read_are_said_not_to_be_kept(
    content: str, tiny_data: Path, tmp_path: Path
) -> None:
    recipe, told = job(tiny_data, tmp_path, schedule__steps=1), io.StringIO()
    made = run_job(recipe, "cpu", False, False, None, quiet())
    assert made is not None
    folder, _ = made
    (folder.parent / "evaluation.json").write_text(content)

    run_job(recipe, "cpu", True, False, None, Console(file=told, width=400))

    assert "evaluation.json cannot be read, so the bundle is not evaluated: " in told.getvalue()
    assert "Not evaluated." in read_bundle(folder, "tiny").card


def test_a_run_that_begins_anew_has_none_of_the_former_ones_numbers(
    tiny_data: Path, tmp_path: Path
) -> None:
    recipe = job(tiny_data, tmp_path, schedule__steps=1)
    made = run_job(recipe, "cpu", False, False, None, quiet())
    assert made is not None
    folder, _ = made
    (folder.parent / "evaluation.json").write_text('[{"name": "R@1", "value": 0.9}]')
    recipe.checkpoint.unlink()

    run_job(recipe, "cpu", True, False, None, quiet())

    assert "Not evaluated." in read_bundle(folder, "tiny").card
