"""The gates of a frozen trunk and its teacher: each condition just inside and just outside."""

from __future__ import annotations

import math

import pytest

from tectum_train.evaluation import gates_trunk

A_BIT = 1e-6
TASKS = dict.fromkeys(("random init", "PCA-256"), 0.5)
PATCHES = dict.fromkeys(("random init", "PCA-128 of 3×3 patches", "its commonest place"), 0.5)
POLICY = {"random init": 0.5, "state alone": 0.5, "PCA-256": 0.1, "mean action": 1.0}


def chance(controls: dict[str, float]) -> dict[str, float]:
    """Two standard errors of the difference to each."""
    return dict.fromkeys(controls, 0.01)


@pytest.mark.parametrize("name", TASKS)
def test_features_tell_more_than_either_control_beyond_chance(name: str) -> None:
    value, errors = 0.51 + A_BIT, chance(TASKS)

    assert gates_trunk.features_tell(value, TASKS, errors)
    assert not gates_trunk.features_tell(value, TASKS | {name: 0.5 + 2 * A_BIT}, errors)
    assert not gates_trunk.features_tell(value, TASKS, errors | {name: 0.01 + 2 * A_BIT})


@pytest.mark.parametrize("name", PATCHES)
def test_patches_tell_more_than_any_control_beyond_chance(name: str) -> None:
    value, errors = 0.51 + A_BIT, chance(PATCHES)

    assert gates_trunk.patches_tell(value, PATCHES, errors)
    assert not gates_trunk.patches_tell(value, PATCHES | {name: 0.5 + 2 * A_BIT}, errors)
    assert not gates_trunk.patches_tell(value, PATCHES, errors | {name: 0.01 + 2 * A_BIT})


@pytest.mark.parametrize("name", ["random init", "state alone"])
def test_a_policy_gains_over_random_features_and_over_none_beyond_chance(name: str) -> None:
    value, errors = 0.49 - A_BIT, chance(POLICY)

    assert gates_trunk.policy_gains(value, POLICY, errors)
    assert not gates_trunk.policy_gains(value, POLICY | {name: 0.5 - 2 * A_BIT}, errors)
    assert not gates_trunk.policy_gains(value, POLICY, errors | {name: 0.01 + 2 * A_BIT})


def test_vectors_that_are_nearly_one_do_not_differ() -> None:
    assert gates_trunk.vectors_differ(0.05)
    assert not gates_trunk.vectors_differ(0.05 - A_BIT)


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
