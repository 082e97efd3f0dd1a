"""What calls hold, as a model takes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_cli.load.contents import Contents, Takes
from tectum_cli.load.target import OPS

PICTURES = [np.full((2, 2, 3), shade, np.uint8) for shade in range(3)]
LATENT = [{"kind": "joint", "space_id": "j"}, {"kind": "latent_action", "space_id": "l"}]
WORLD: dict[str, Any] = {
    "max_steps": 3,
    "actions": "latent",
    "action_steps": 2,
    "action_dimensions": 5,
}


def takes(**parts: Any) -> Takes:
    return Takes.of("m@1", ["rollout"], 64, parts, LATENT)


def test_lengths_are_the_models() -> None:
    clip, actions = {"frames": 4}, {"names": ["x", "y"], "max_steps": 7}

    has = Contents(PICTURES, 6, takes(clip=clip, actions=actions, world_model=WORLD))

    assert [len(one) for one in has.clips()] == [4] * 6
    assert has.actions().shape == (7, 2)
    candidates = has.candidates()
    assert candidates is not None
    assert candidates.shape == (6, 3 * 2, 5)
    assert has.steps is None


def test_pictures_and_texts_come_in_turn() -> None:
    has = Contents(PICTURES, 2, takes())

    shown = [one for _ in range(3) for one in has.pictures()]

    assert [int(np.max(np.asarray(one))) for one in shown] == [0, 1, 2, 0, 1, 2]
    assert len(has.pictures(1)) == 3
    assert len({*has.texts(), *has.texts()}) == 4


@pytest.mark.parametrize(("actions", "space"), [("latent", "l"), ("real", ""), ("none", "")])
def test_a_space_is_named_for_latent_actions_alone(actions: str, space: str) -> None:
    assert takes(world_model={**WORLD, "actions": actions}).action_space_id == space


def test_a_model_that_reads_no_actions_is_asked_for_steps() -> None:
    silent = takes(world_model={"max_steps": 3, "actions": "none", "action_dimensions": 0})

    has = Contents(PICTURES, 1, silent)

    assert (has.candidates(), has.steps) == (None, 3)
    assert silent.places("rollout", 1) == 1
    assert silent.places("rollout", 2) > silent.most_items


@given(st.sampled_from(sorted(OPS)), st.integers(1, 64))
def test_one_item_more_never_takes_fewer_places(op: str, items: int) -> None:
    spec = takes(clip={"frames": 4}, world_model=WORLD)

    assert items <= spec.places(op, items) <= spec.places(op, items + 1)
