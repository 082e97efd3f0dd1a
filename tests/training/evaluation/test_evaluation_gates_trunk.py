"""The gates of a frozen trunk and its teacher: each condition just inside and just outside."""

from __future__ import annotations

import math

import pytest

from tectum_train.evaluation import gates_trunk

A_BIT = 1e-6
TASKS = dict.fromkeys(("random init", "PCA-256"), 0.5)
PATCHES = dict.fromkeys(("random init", "PCA-128 of 3×3 patches", "its commonest place"), 0.5)
POLICY = {"random init": 0.5, "state alone": 0.5, "PCA-256": 0.1, "mean action": 1.0}


@pytest.mark.parametrize("name", TASKS)
def test_features_tell_more_than_either_control(name: str) -> None:
    assert gates_trunk.features_tell(0.505 + A_BIT, TASKS)
    assert not gates_trunk.features_tell(0.505 + A_BIT, TASKS | {name: 0.5 + A_BIT})


@pytest.mark.parametrize("name", PATCHES)
def test_patches_tell_more_than_any_control(name: str) -> None:
    assert gates_trunk.patches_tell(0.505 + A_BIT, PATCHES)
    assert not gates_trunk.patches_tell(0.505 + A_BIT, PATCHES | {name: 0.5 + A_BIT})


@pytest.mark.parametrize("name", ["random init", "state alone"])
def test_a_policy_gains_over_random_features_and_over_none(name: str) -> None:
    assert gates_trunk.policy_gains(0.495 - A_BIT, POLICY)
    assert not gates_trunk.policy_gains(0.495 - A_BIT, POLICY | {name: 0.5 - 10 * A_BIT})


@pytest.mark.parametrize(
    ("entropy", "of_their_mean", "passed"),
    [
        (2.0, 2.0 + 0.05 * math.log(64) + A_BIT, True),
        (2.0, 2.0 + 0.05 * math.log(64) - A_BIT, False),
        (math.log(64), math.log(64), False),  # everything alike of each
        (0.0, 0.0, False),  # one prototype of all
        (2.0, 2.0, False),  # one mixture of all
        (0.0, math.log(64), False),  # a choice without doubt teaches no neighbourhood
        (0.95 * math.log(64) - A_BIT, math.log(64), True),
    ],
)
def test_a_teacher_says_much_of_each_and_not_the_same_of_all(
    entropy: float, of_their_mean: float, passed: bool
) -> None:
    controls = {"of their mean": of_their_mean, "ln K": math.log(64)}

    assert gates_trunk.teacher_tells_apart(entropy, controls) is passed
