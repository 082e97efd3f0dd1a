"""A model that reads its camera's intrinsics: trained, measured and measured again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from tests.training.tiny import CAMERA, job, parts

from tectum_core.bundle import read_bundle
from tectum_core.predictor import Predictor
from tectum_train.engine.states import CAMERA_NAMES
from tectum_train.evaluation.measuring.context import Columns
from tectum_train.job import evaluate_bundles, run_job
from tectum_train.recipe import Recipe

ACTING = "squared error in standard deviations"


def seeing(data: Path, folder: Path, robot: bool, **changes: Any) -> Recipe:
    """A recipe of a moment that reads its camera, and its robot too or not."""
    actions = {"dimensions": 4, "state_dimensions": 8 if robot else 4, "max_steps": 8}
    given: dict[str, Any] = {
        "data__intrinsics": "camera.intrinsics",
        "model": parts(actions=actions, latent_action=None, pixel_decoder=None, joint=None),
        "objectives": [{"kind": "action_prediction"}, {"kind": "masked_action"}],
        "augmentation": {"shift": 1, "zoom": 0.2},
        "schedule__steps": 8,
        **changes,
    }
    if not robot:
        given["data__state"] = None
    return job(data, folder, **given)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.float32]]:
    """States that evaluation shows the model, batch by batch."""
    given: list[NDArray[np.float32]] = []
    whole = Predictor.fill_actions

    def kept(self: Predictor, *arguments: Any, **named: Any) -> NDArray[np.float32]:
        if len(arguments) > 4 and arguments[4] is not None:  # golden outputs are asked by name
            given.append(arguments[4])
        return whole(self, *arguments, **named)

    monkeypatch.setattr(Predictor, "fill_actions", kept)
    return given


@pytest.mark.parametrize("robot", [True, False], ids=["robot and camera", "camera alone"])
def test_a_model_that_reads_its_camera_is_trained_and_measured(
    robot: bool, tiny_data: Path, tmp_path: Path, shown: list[NDArray[np.float32]]
) -> None:
    told = io.StringIO()
    recipe = seeing(tiny_data, tmp_path, robot)

    made = run_job(recipe, "cpu", False, True, None, Console(file=told, width=400))
    assert made is not None
    folder, _ = made

    bundle = read_bundle(folder, "tiny")
    assert bundle.config.actions is not None
    assert bundle.config.actions.state_names[-4:] == CAMERA_NAMES
    assert f"masked actions, {ACTING}" in bundle.config.training.metrics
    assert f"action prediction, 8 steps, {ACTING}" in bundle.config.training.metrics
    assert "masked actions: " not in told.getvalue()
    assert shown
    for states in shown:
        assert states.shape[1] == (8 if robot else 4)
        assert (states[:, -4:] == (40, 40, 16, 16)).all()  # as recorded: nothing moves it here


def test_its_bundle_is_measured_by_what_its_features_are_called(
    tiny_data: Path, tmp_path: Path, shown: list[NDArray[np.float32]]
) -> None:
    quiet = Console(quiet=True)
    made = run_job(seeing(tiny_data, tmp_path, True), "cpu", False, False, None, quiet)
    assert made is not None
    folder, _ = made
    asked = [folder], tiny_data, CAMERA
    told = io.StringIO()

    named = evaluate_bundles(*asked, Columns(), tmp_path / "frames", False, quiet)
    unnamed = evaluate_bundles(
        *asked, Columns(intrinsics="camera.matrix"), tmp_path / "frames", False,
        Console(file=told, width=400),
    )  # fmt: skip

    assert any(ACTING in measure.name for measure in named[str(folder)])
    assert shown
    assert not any("action prediction" in measure.name for measure in unnamed[str(folder)])
    assert "action prediction: the data set lacks camera.matrix" in told.getvalue()
