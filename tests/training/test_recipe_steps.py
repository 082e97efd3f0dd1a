"""What takes so many steps, or comes every so many, does so within the run."""

from __future__ import annotations

from typing import Any

import pytest
from tests.training.refused import recipe, why

from tectum_train.recipe import Recipe


@pytest.mark.parametrize(
    ("kind", "settings", "most"),
    [
        ("dino", {"teacher_steps": 900, "teacher_temperature": (0.04, 0.07)}, 5),
        ("dino", {"frozen_steps": 6}, 5),
    ],
)
def test_what_takes_longer_than_the_run_is_refused(
    kind: str, settings: dict[str, Any], most: int
) -> None:
    field, found = next(iter(settings.items()))

    told = why({"kind": kind, **settings})

    assert f"objectives.{kind}.{field}: found {found}; allowed: at most {most}, or " in told
    assert recipe({"kind": kind, **settings, field: most})


@pytest.mark.parametrize(
    ("tasks", "field"),
    [
        ({"conflict_every": 6}, "tasks.conflict_every"),
        ({"weighting": {"kind": "grad_norm", "every": 6}}, "tasks.weighting.every"),
    ],
)
def test_what_would_come_in_the_first_step_alone_is_refused(tasks: Any, field: str) -> None:
    told = why({"kind": "image_text"}, {"kind": "masked_image"}, tasks=tasks)

    assert f"{field}: found 6; allowed: at most 5, or gradients are looked at in the first" in told


@pytest.mark.parametrize("steps", [5, 7])
@pytest.mark.parametrize("kind", ["dino", "mo_co"])
def test_momentum_rises_over_all_of_the_run_or_never(kind: str, steps: int) -> None:
    told = why({"kind": kind, "momentum_steps": steps})

    assert f"objectives.{kind}.momentum_steps: found {steps}; allowed: 0 or 6, all steps" in told
    assert recipe({"kind": kind, "momentum_steps": 6})


def test_an_objective_that_has_turns_counts_these() -> None:
    """Of six steps every third is MoCo's."""
    pattern = {"alternate": {"pattern": ["masked_image", "masked_image", "mo_co"]}}

    def made(steps: int) -> Recipe:
        contrast = {"kind": "mo_co", "momentum_steps": steps}
        return recipe({"kind": "masked_image"}, contrast, tasks=pattern)

    assert made(2)
    with pytest.raises(ValueError, match=r"momentum_steps: found 6; allowed: 0 or 2, all steps"):
        made(6)


@pytest.mark.parametrize(
    ("tasks", "field"),
    [
        ({"conflict_every": 2}, "tasks.conflict_every: found 2"),
        ({"weighting": {"kind": "grad_norm"}}, "tasks.weighting: found grad_norm"),
    ],
)
def test_gradients_are_compared_where_several_meet(tasks: Any, field: str) -> None:
    blind, masked = {"kind": "masked_language", "image_share": 0}, {"kind": "masked_image"}

    told = why(blind, masked, tasks=tasks)

    assert f"{field}; allowed: where two objectives or more train the trunk" in told
    assert "(here: masked_image)" in told
    assert recipe({"kind": "image_text"}, masked, tasks=tasks)
