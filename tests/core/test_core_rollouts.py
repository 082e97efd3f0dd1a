"""Rollouts as they are asked for: in the robot's units, towards a goal, with shapes that fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.bundles import SCALING, actions, picture, world_model, write_full

from tectum_core.bundle import read_bundle
from tectum_core.predictor import CapabilityMissing, Predictor
from tectum_core.rollouts import RolloutRequest, between_frames

STEPS = 4
"""Robot actions between two frames."""


def moving(folder: Path, **changes: Any) -> Predictor:
    """A bundle whose world model says that something moves."""
    write_full(folder / "b", world_model=world_model(**changes))
    predictor = Predictor(read_bundle(folder / "b", "b"))
    world = predictor.model.world_model
    assert world is not None
    with torch.no_grad():
        world.change.weight.normal_(std=0.3)
    return predictor


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return moving(tmp_path)


def vectors(predictor: Predictor, frames: int = 2) -> NDArray[np.float32]:
    """[1, T, N, D]."""
    return predictor.embed_images([picture(seed) for seed in range(frames)], "tokens")[None]


def asked(predictor: Predictor, frames: int = 3, **changes: Any) -> RolloutRequest:
    """Three frames after two."""
    both = np.concatenate([actions(seed) for seed in range(3)])
    request = RolloutRequest(
        vectors(predictor), frames, both[None, :STEPS], both[None, STEPS : (frames + 1) * STEPS]
    )
    return replace(request, **changes)


def test_shapes_are_those_of_what_was_asked(predictor: Predictor) -> None:
    goals = vectors(predictor, 1)[:, 0]

    found = predictor.rollout(asked(predictor, goals=goals, decode_frames=True))

    assert found.latents.shape == (1, 3, 16, 32)
    assert found.distances is not None
    assert found.distances.shape == (1, 3)
    assert found.frames is not None
    assert found.frames.shape == (1, 3, 32, 32, 3)
    assert found.frames.dtype == np.uint8


def test_what_was_not_asked_for_is_not_there(predictor: Predictor) -> None:
    found = predictor.rollout(asked(predictor))

    assert (found.distances, found.frames, found.painted) == (None, None, None)


def test_pooled_latents_have_no_axis_of_patches(tmp_path: Path) -> None:
    predictor = moving(tmp_path, latents="pooled")
    seen = predictor.embed_images([picture(0), picture(1)], "pooled")[None]

    found = predictor.rollout(asked(predictor, history=seen, goals=seen[:, 0]))

    assert found.latents.shape == (1, 3, 32)
    assert found.distances is not None
    assert found.distances.shape == (1, 3)


def test_a_distance_is_the_mean_squared_difference_of_normalised_latents(
    predictor: Predictor,
) -> None:
    goals = vectors(predictor, 1)[:, 0]

    found = predictor.rollout(asked(predictor, goals=goals))

    wide = goals.astype(np.float64)
    goal = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    wanted = ((found.latents - goal[:, None]) ** 2).mean(axis=(2, 3))
    assert found.distances is not None
    np.testing.assert_allclose(found.distances, wanted, rtol=1e-4)


def test_a_predicted_frame_lies_nowhere_but_at_itself(predictor: Predictor) -> None:
    latents = predictor.rollout(asked(predictor)).latents

    for step in range(3):
        distances = predictor.rollout(asked(predictor, goals=latents[:, step])).distances
        assert distances is not None
        assert distances[0].argmin() == step
        assert distances[0, step] < 1e-4


def test_actions_are_read_in_the_robots_own_units(predictor: Predictor) -> None:
    world = predictor.model.world_model
    assert world is not None
    given = actions(1)[None]

    found = between_frames(world, predictor.config, torch.from_numpy(given), 2)

    standard = (given - np.array(SCALING.mean)) / np.array(SCALING.standard_deviation)
    assert found is not None
    np.testing.assert_allclose(found.numpy(), standard.reshape(1, 2, 16), rtol=1e-4, atol=1e-5)


def test_latent_actions_are_read_as_they_are(tmp_path: Path) -> None:
    predictor = moving(tmp_path, actions="latent", action_steps=None)
    world = predictor.model.world_model
    assert world is not None
    given = torch.randn(1, 3, 8)

    read = between_frames(world, predictor.config, given, 3)

    assert read is not None
    assert torch.equal(read, given)
    found = predictor.rollout(
        RolloutRequest(vectors(predictor), 3, given[:, :1].numpy(), given.numpy())
    )
    assert found.latents.shape == (1, 3, 16, 32)


def test_what_is_done_changes_what_is_seen(predictor: Predictor) -> None:
    request = asked(predictor)
    assert request.actions is not None
    assert request.past is not None

    found, otherwise, before = (
        predictor.rollout(one).latents
        for one in (
            request,
            replace(request, actions=request.actions + 1),
            replace(request, past=request.past + 1),
        )
    )

    assert not np.allclose(found, otherwise, atol=1e-3)
    assert not np.allclose(found, before, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"actions": None}, "needs actions"),
        ({"past": None}, "needs actions"),
        ({"actions": np.zeros((1, 11, 4), np.float32)}, r"\[11, 4\]; 3 intervals take \[12, 4\]"),
        ({"actions": np.zeros((1, 12, 3), np.float32)}, r"\[12, 3\]; 3 intervals take \[12, 4\]"),
        ({"past": np.zeros((1, 8, 4), np.float32)}, r"\[8, 4\]; 1 intervals take \[4, 4\]"),
        ({"history": np.zeros((1, 2, 32), np.float32)}, r"\[1, 2, 32\]; a frame has \[16, 32\]"),
        ({"history": np.zeros((1, 0, 16, 32), np.float32)}, r"a frame has"),
        ({"goals": np.zeros((1, 15, 32), np.float32)}, r"a frame has \[16, 32\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    predictor: Predictor, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        predictor.rollout(asked(predictor, **changes))


def test_a_single_frame_needs_no_past(predictor: Predictor) -> None:
    request = asked(predictor, history=vectors(predictor, 1), past=None)

    assert predictor.rollout(request).latents.shape == (1, 3, 16, 32)


def test_frames_need_a_decoder(tmp_path: Path) -> None:
    predictor = moving(tmp_path, decoder=None)

    with pytest.raises(CapabilityMissing, match="decodes no predicted frames"):
        predictor.rollout(asked(predictor, decode_frames=True))
