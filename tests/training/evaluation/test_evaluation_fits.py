"""Whether a model and two splits belong together, told before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.training.evaluation.scene import FPS, recorded
from tests.training.tiny import latent_action, parts

from tectum_core.architecture import ModelConfig
from tectum_train.data import DataError
from tectum_train.data.samples import Samples
from tectum_train.evaluation.context import Columns
from tectum_train.evaluation.fits import check_fits, pair_steps

COLUMNS = Columns(state="state", action="action", family="family")
FAMILIES = [
    {"index": 2, "name": "up", "partner": None},
    {"index": 5, "name": "off", "partner": None},
]


def split(
    root: Path,
    *,
    fps: float = FPS,
    families: list[dict[str, Any]] | None = FAMILIES,
    **changes: Any,
) -> Samples:
    """Two episodes; a change of None leaves a feature out."""
    columns = {
        "state": np.zeros((9, 4), np.float32),
        "action": np.zeros((9, 4), np.float32),
        "camera.extrinsics": np.zeros((9, 16), np.float32),
        "family": np.repeat([2, 5], [5, 4]),
        **changes,
    }
    (root / "meta").mkdir(parents=True)
    if families is not None:
        world = {"families": families, "instructions": []}
        (root / "meta" / "world.json").write_text(json.dumps(world))
    present = {name: values for name, values in columns.items() if values is not None}
    return recorded([5, 4], present, root=root, fps=fps)


def model(interval: float = 2 / FPS, tolerance: float = 0.001, **changes: Any) -> ModelConfig:
    latent = latent_action(interval=interval, tolerance=tolerance)
    return ModelConfig.model_validate(parts(latent_action=latent, **changes))


@pytest.fixture
def train(tmp_path: Path) -> Samples:
    return split(tmp_path / "train")


def test_splits_that_fit_are_not_refused(train: Samples, tmp_path: Path) -> None:
    check_fits(model(), COLUMNS, train, split(tmp_path / "test"), step_interval=1 / FPS)

    assert pair_steps(model(), FPS) == 2


def test_splits_of_two_rates_are_refused(train: Samples, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test has 40 frames a second and .*train 80"):
        check_fits(model(), COLUMNS, train, split(tmp_path / "test", fps=40))


@pytest.mark.parametrize(("interval", "fits"), [(0.026, True), (0.0261, False), (0.03, False)])
def test_a_pair_must_come_within_the_models_tolerance(
    interval: float, fits: bool, train: Samples, tmp_path: Path
) -> None:
    test = split(tmp_path / "test")
    if fits:
        check_fits(model(interval), COLUMNS, train, test)
        return

    with pytest.raises(DataError, match=r"a pair is 0\.025 s apart at best.*interval is 0\.0"):
        check_fits(model(interval), COLUMNS, train, test)


def test_actions_of_another_rate_than_the_models_are_refused(
    train: Samples, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"80 actions a second; the model knows actions 0\.1 s"):
        check_fits(model(), COLUMNS, train, split(tmp_path / "test"), step_interval=0.1)


@pytest.mark.parametrize(
    ("feature", "found", "wanted"),
    [("action", 3, 4), ("state", 7, 4), ("camera.extrinsics", 12, 16)],
)
@pytest.mark.parametrize("odd", ["train", "test"])
def test_features_of_another_width_are_refused_in_either_split(
    feature: str, found: int, wanted: int, odd: str, tmp_path: Path
) -> None:
    strange: dict[str, Any] = {feature: np.zeros((9, found))}
    train, test = (
        split(tmp_path / name, **(strange if name == odd else {})) for name in ("train", "test")
    )

    with pytest.raises(DataError, match=f"{odd}: {feature} has {found} numbers; {wanted} are"):
        check_fits(model(), COLUMNS, train, test)


def test_what_is_missing_or_never_read_is_no_contradiction(train: Samples, tmp_path: Path) -> None:
    odd = split(tmp_path / "test", families=None, action=None, state=np.zeros((9, 7)))
    deaf = model(actions={"dimensions": 4, "max_steps": 8})

    check_fits(deaf, COLUMNS, train, odd)

    assert not odd.has("action")


def test_other_families_are_refused(train: Samples, tmp_path: Path) -> None:
    test = split(tmp_path / "test", families=FAMILIES[::-1])

    with pytest.raises(DataError, match="test names other task families than"):
        check_fits(model(), COLUMNS, train, test)


def test_frames_of_a_family_without_a_name_are_refused(train: Samples, tmp_path: Path) -> None:
    test = split(tmp_path / "test", family=np.repeat([2, 3], [5, 4]))

    with pytest.raises(DataError, match=r"test: family has \[3\], which meta/world.json does not"):
        check_fits(model(), COLUMNS, train, test)
