"""A frozen trunk's policy: what its vector adds to the state, on windows within an episode."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.training.evaluation.scene import FPS, context, recorded

from tectum_train.data.samples import Samples
from tectum_train.evaluation.measuring.context import NothingToMeasure
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.trunk.policy import measure_policy

STEPS = FPS // 2
LENGTH = STEPS + 20


def scene(episodes: int, seed: int) -> Samples:
    """All of an episode goes one way, half of which the state says and half the first pixel."""
    draw = np.random.default_rng(seed)
    total = episodes * LENGTH
    told, shown = np.repeat(draw.integers(256, size=(2, episodes)), LENGTH, axis=1) / 255
    frames = draw.integers(0, 256, (total, 4, 4, 3), dtype=np.uint8)
    frames[:, 0, 0, 0] = (255 * shown).astype(np.uint8)
    columns = {
        "state": told[:, None],
        "action": np.column_stack([told + shown, 100 * (told - shown)]),
    }
    return recorded([LENGTH] * episodes, columns, frames)


def seeing(weight: float) -> Any:
    """A trunk whose vector shows the first pixel so much, beside what says nothing."""

    def embed(frames: Sequence[NDArray[np.uint8]], vector: str) -> NDArray[np.float32]:
        assert vector == "pooled"
        rows = [[weight * frame[0, 0, 0], *frame[1, :, 0]] for frame in frames]
        return np.asarray(np.array(rows) / 255, np.float32)

    return SimpleNamespace(embed_images=embed)


def measured(weight: float, asked: int = 12) -> Measure:
    train, test = scene(48, 0), scene(asked, 1)
    (found,) = measure_policy(context(train, test, predictor=seeing(weight), twin=seeing(0.0)))
    return found


def test_what_the_state_does_not_say_is_gained_from_a_trunk_that_sees_it() -> None:
    found = measured(1.0)

    assert found.value < 0.01
    assert found.passed is True
    assert found.controls["state alone"] == pytest.approx(0.5, abs=0.2)
    assert found.controls["mean action"] == pytest.approx(1.0, abs=0.4)
    assert found.controls["random init"] > 0.3
    assert found.controls.keys() == {"random init", "PCA-256", "state alone", "mean action"}
    assert found.gate == "below random init and the state alone, each by ≥ two standard errors"
    assert found.name == (
        "frozen trunk and state → next actions, 40 steps, squared error in standard deviations"
    )


def test_a_trunk_that_sees_no_more_than_its_random_twin_fails() -> None:
    found = measured(0.0)

    assert found.passed is False
    assert found.value == found.controls["random init"]


def test_random_weights_cost_what_their_draws_cost_in_the_mean() -> None:
    train, test = scene(12, 0), scene(3, 1)

    def cost(*weights: float) -> float:
        twins = tuple(seeing(weight) for weight in weights)
        (found,) = measure_policy(context(train, test, predictor=seeing(0.0), twins=twins))
        return found.controls["random init"]

    assert cost(0.0) > 2 * cost(1.0)
    assert cost(0.0, 1.0) == pytest.approx((cost(0.0) + cost(1.0)) / 2)


def test_windows_lie_within_their_episode_and_are_counted() -> None:
    found = measured(1.0, asked=3)

    # Of 60 steps 21 have 39 behind them.
    assert found.on == "63 windows of 3 episodes"


def test_episodes_shorter_than_a_window_are_nothing_to_measure() -> None:
    short = recorded(
        [STEPS - 1] * 2,
        {"state": np.zeros((2 * (STEPS - 1), 1)), "action": np.zeros((2 * (STEPS - 1), 1))},
    )

    with pytest.raises(NothingToMeasure, match="no episode goes on for 39 steps"):
        measure_policy(context(scene(2, 0), short))


def test_a_number_that_never_changes_costs_nothing() -> None:
    train, test = scene(24, 0), scene(4, 1)
    for samples in (train, test):
        samples.column("action")[:, 1] = 7.0

    (found,) = measure_policy(context(train, test, predictor=seeing(1.0), twin=seeing(0.0)))

    assert found.value < 0.01
    assert found.controls["mean action"] < 2
