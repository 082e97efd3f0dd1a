"""Runs that begin with a trained trunk: it is taken over as it is, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.engine.runs import trained
from tests.training.tiny import job, write_untrained_bundle

from tectum_core.bundle import read_bundle
from tectum_train.engine.building import check_parts
from tectum_train.recipe import Recipe, RecipeError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """One of random weights, none of them those that a recipe's seed gives."""
    write_untrained_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def beginning(data: Path, folder: Path, trunk: Path, **changes: Any) -> Recipe:
    """A run of one step on that trunk."""
    return job(data, folder, trunk=str(trunk), schedule__steps=1, **changes)


def test_the_first_step_is_taken_from_the_bundles_trunk(
    bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    still = {"lr": 1e-12}

    run = trained(beginning(tiny_data, tmp_path, bundle, optimiser=still))

    theirs = read_bundle(bundle, "bundle").model.vision.state_dict()
    for name, value in run.model.vision.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-9)
    assert run.begun == ("vision", "vision.pool")


def test_a_teacher_may_stay_the_bundles_trunk_while_the_runs_own_learns(
    bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    mask = {"kind": "importance", "source": "attention", "momentum": 1}

    run = trained(
        beginning(tiny_data, tmp_path, bundle, objectives=[{"kind": "masked_image", "mask": mask}])
    )

    theirs = read_bundle(bundle, "bundle").model.vision.state_dict()
    teacher = run.objective.get_submodule("parts.0.hiding.teacher.copy").state_dict()
    own = run.model.vision.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in teacher.items())
    assert any(not torch.equal(value, theirs[name]) for name, value in own.items())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": {"size": 32, "interpolation": "bicubic"}}, "images of .* in interpolation"),
        ({"images": {"size": 32, "mean": (0, 0, 0)}}, "images of .* differs .* in mean"),
    ],
    ids=["interpolation", "mean"],
)
def test_pictures_made_otherwise_are_refused_by_name(
    changes: Any, told: str, bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=told):
        check_parts(beginning(tmp_path / "absent", tmp_path, bundle, **changes))


def test_a_trunk_that_is_not_there_is_named_before_any_data_is_read(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"

    with pytest.raises(RecipeError, match=f"trunk: {nowhere} is not there"):
        check_parts(beginning(tmp_path / "absent", tmp_path, nowhere))
