"""World models measured: against repeating, extrapolating, and others' actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.training.evaluation.scene import context, recorded, taught
from torch import Tensor

from tectum_core.architecture import WorldModelConfig
from tectum_core.outputs import Rollouts
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.rollouts import RolloutRequest
from tectum_train.data.samples import Samples
from tectum_train.evaluation.measuring.context import NothingToMeasure
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.world_model import measure_world_model

STACK = {"width": 8, "depth": 1, "heads": 1, "hidden": 8}
GAP = 2
Floats = NDArray[np.float32]
Predict = Callable[[RolloutRequest], Floats]


class Foreseer:
    """A world model whose latents are a frame's first numbers, and which predicts as it is told."""

    def __init__(self, predict: Predict, **changes: Any) -> None:
        given = {
            "transformer": STACK, "history": 2, "action_steps": GAP, "interval": GAP / 80,
            "max_steps": 4, **changes,
        }  # fmt: skip
        self.predict, self.device, self.asked = predict, "cpu", list[RolloutRequest]()
        world = WorldModelConfig.model_validate(given)
        self.config = SimpleNamespace(
            model=SimpleNamespace(world_model=world),
            training=taught(),
            images=ImagePreprocessing(size=2),
        )
        self.model = SimpleNamespace(
            world_model=SimpleNamespace(
                config=world,
                latents=lambda vectors: vectors,
                normalised=lambda latents: latents,
                decode=self.decode,
            )
        )

    def embed_images(self, images: Sequence[Any], vector: str) -> Floats:
        seen = np.stack([image.reshape(-1)[:3] for image in images]).astype(np.float32)
        return seen[:, None] if vector == "tokens" else seen

    def latent_actions(self, earlier: Sequence[Any], later: Sequence[Any]) -> Any:
        moved = self.embed_images(later, "pooled") - self.embed_images(earlier, "pooled")
        return SimpleNamespace(vectors=moved[:, :1])

    def decode(self, latents: Tensor) -> Tensor:
        """The frame that the latents are of, in the model's input units."""
        levels = latents[:, 0, :1].reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 255
        return (levels - 0.5) / 0.25

    def rollout(self, asked: RolloutRequest) -> Rollouts:
        self.asked.append(asked)
        latents = self.predict(asked)
        frames = None
        if asked.decode_frames:
            painted = self.decode(torch.from_numpy(latents[:, 0]))
            frames = np.rint((painted.numpy() * 0.25 + 0.5) * 255).astype(np.uint8)
            frames = np.moveaxis(frames, 1, -1)[:, None]
        return Rollouts(latents, None, frames, None)


def moving(episodes: int = 2) -> Samples:
    """Frames as bright as what was done until then; each step's first number is what it adds."""
    length = 24
    steps = np.random.default_rng(0).integers(-3, 4, (episodes, length, 1))
    light = 100 + np.cumsum(steps, axis=1) - steps
    frames = np.broadcast_to(light.reshape(-1, 1, 1, 1), (episodes * length, 2, 2, 3))
    actions = np.concatenate([steps, np.zeros_like(steps)], axis=2).reshape(-1, 2)
    columns = {"action": actions.astype(np.float32)}
    return recorded([length] * episodes, columns, frames.astype(np.uint8))


def truth(asked: RolloutRequest) -> Floats:
    """What comes next where actions are true."""
    assert asked.actions is not None
    moved = asked.actions[:, :, 0].reshape(len(asked.actions), asked.frames, -1).sum(axis=2)
    return asked.history[:, -1:] + np.cumsum(moved, axis=1)[:, :, None, None].astype(np.float32)


def repeated(asked: RolloutRequest) -> Floats:
    return np.repeat(asked.history[:, -1:], asked.frames, axis=1)


def measured(predict: Predict, samples: Samples | None = None, **changes: Any) -> list[Measure]:
    """What is measured of such a world model."""
    foreseer, data = Foreseer(predict, **changes), samples or moving()
    return measure_world_model(context(data, data, predictor=foreseer, twin=foreseer))


def test_who_knows_what_comes_makes_no_error_and_has_to_have_the_actions() -> None:
    found = measured(truth)

    assert [m.name for m in found[:4]] == [
        f"world model, {seconds:g} s ahead, error ÷ repeating"
        for seconds in (0.025, 0.05, 0.075, 0.1)
    ]
    for measure in found[:4]:
        assert measure.value == pytest.approx(0, abs=1e-9)
        assert measure.controls["shuffled actions"] > 1
        assert measure.passed


def test_repeating_costs_one_and_passes_nowhere() -> None:
    for measure in measured(repeated)[:4]:
        assert measure.value == pytest.approx(1)
        assert measure.controls["repeating"] == pytest.approx(1)
        assert measure.controls["shuffled actions"] == pytest.approx(1)
        assert not measure.passed


def test_extrapolation_goes_on_as_it_went() -> None:
    steady = recorded(
        [24, 24],
        {"action": np.ones((48, 2), np.float32)},
        np.broadcast_to(np.tile(np.arange(24), 2)[:, None, None, None], (48, 2, 2, 3)).astype(
            np.uint8
        ),
    )

    for measure in measured(repeated, steady)[:4]:
        assert measure.controls["linear extrapolation"] == pytest.approx(0, abs=1e-9)


def test_what_goes_on_in_a_straight_line_is_brought_back_among_the_latents() -> None:
    foreseer, data = Foreseer(repeated), moving()
    foreseer.model.world_model.normalised = lambda latents: latents.clamp(max=100)
    found = measure_world_model(context(data, data, predictor=foreseer, twin=foreseer))

    plain = measured(repeated)

    for ours, theirs in zip(found[:4], plain[:4], strict=True):
        name = "linear extrapolation"
        assert ours.controls[name] < theirs.controls[name]  # light that rose from 100 falls back


def test_errors_are_of_differences_paired_by_window_and_clustered_by_episode() -> None:
    found = measured(truth)[0]

    # An error of nothing: its difference to repeating varies as repeating's own does.
    assert found.errors.keys() == {"repeating", "linear extrapolation", "shuffled actions"}
    assert 0 < found.errors["repeating"] < 1


def test_windows_lie_in_their_episode_and_tell_what_was_done_in_order() -> None:
    foreseer, data = Foreseer(truth), moving()
    measure_world_model(context(data, data, predictor=foreseer, twin=foreseer))

    asked = foreseer.asked[0]

    assert asked.history.shape[1:] == (2, 1, 3)
    assert asked.past is not None
    assert asked.actions is not None
    assert (asked.past.shape[1:], asked.actions.shape[1:]) == ((GAP, 2), (4 * GAP, 2))
    moved = asked.history[:, 1, 0, 0] - asked.history[:, 0, 0, 0]
    np.testing.assert_array_equal(moved, asked.past[:, :, 0].sum(axis=1))


def test_latent_actions_are_read_off_the_frames() -> None:
    def known(asked: RolloutRequest) -> Floats:
        assert asked.actions is not None
        return asked.history[:, -1:] + np.cumsum(asked.actions, axis=1)[:, :, None, :1]

    found = measured(known, actions="latent", action_steps=None)

    assert found[0].value == pytest.approx(0, abs=1e-9)
    assert found[0].controls["shuffled actions"] > 1


def test_without_actions_there_is_nothing_to_shuffle() -> None:
    found = measured(repeated, actions="none", action_steps=None)

    assert found[0].controls.keys() == {"repeating", "linear extrapolation"}


def test_pooled_latents_are_measured_alike() -> None:
    def pooled(asked: RolloutRequest) -> Floats:
        apart = RolloutRequest(asked.history[:, :, None], asked.frames, asked.past, asked.actions)
        return truth(apart)[:, :, 0]

    assert measured(pooled, latents="pooled")[0].value == pytest.approx(0, abs=1e-9)


def test_no_further_ahead_than_the_model_is_served() -> None:
    names = [measure.name for measure in measured(repeated, max_steps=2)]

    assert [name for name in names if "ahead" in name] == [
        "world model, 0.025 s ahead, error ÷ repeating",
        "world model, 0.05 s ahead, error ÷ repeating",
    ]


def test_the_spread_is_that_of_the_latents() -> None:
    (spread,) = [one for one in measured(truth) if "spread" in one.name]

    assert spread.value > 1
    assert spread.controls.keys() == {"random init", "collapse"}
    assert spread.passed is None


def test_a_painted_frame_is_measured_against_the_last_one() -> None:
    (painted,) = [one for one in measured(truth, decoder=STACK) if "painted" in one.name]

    assert painted.value == pytest.approx(0, abs=1e-6)
    assert painted.controls["painted from the true latents"] == pytest.approx(0, abs=1e-6)


def test_episodes_that_are_too_short_are_told() -> None:
    short = recorded([6], {"action": np.zeros((6, 2), np.float32)})

    with pytest.raises(NothingToMeasure, match="goes on for 10 steps"):
        measured(truth, short)
