"""Actions filled in, predicted and decoded: each against what needs no understanding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.evaluation.scene import context, recorded, taught
from torch import Tensor

from tectum_core.bundle import Part
from tectum_core.preprocess import ActionScaling
from tectum_train.data.samples import Samples
from tectum_train.evaluation.masked.actions import (
    _interpolated,
    measure_action_prediction,
    measure_decoded_actions,
    measure_masked_actions,
)
from tectum_train.evaluation.measuring.context import Context
from tectum_train.evaluation.measuring.measure import Measure

SCALING = ActionScaling(
    names=("x", "y"), mean=(1.0, 2.0), standard_deviation=(2.0, 4.0), step_interval=0.1
)


# ---------------------------------------------------------------- interpolation


def test_hidden_steps_lie_on_the_line_between_their_neighbours() -> None:
    actions = np.array([[0, 0], [9, 9], [9, 9], [3, -6]], np.float32)
    hidden = np.array([False, True, True, False])

    assert _interpolated(actions, hidden)[:, 0].tolist() == [0, 1, 2, 3]
    assert _interpolated(actions, hidden)[:, 1].tolist() == [0, -2, -4, -6]


def test_beyond_what_is_seen_the_nearest_step_is_repeated() -> None:
    actions = np.array([[9], [5], [7], [9]], np.float32)

    found = _interpolated(actions, np.array([True, False, False, True]))

    assert found[:, 0].tolist() == [5, 5, 7, 7]


@given(st.lists(st.booleans(), min_size=2, max_size=12).filter(lambda h: not all(h)))
def test_visible_steps_stay_and_a_straight_line_is_found(hidden: list[bool]) -> None:
    mask = np.array(hidden)
    line = np.outer(np.arange(len(hidden)), [1.0, -2.0]).astype(np.float32)

    found = _interpolated(line, mask)

    seen = np.flatnonzero(~mask)
    inside = slice(seen[0], seen[-1] + 1)
    assert np.allclose(found[inside], line[inside], atol=1e-5)
    assert np.array_equal(found[~mask], line[~mask])


# ---------------------------------------------------------------- hidden runs


class Filler:
    """Fills actions in with the truth and a constant error; keeps what it was shown."""

    def __init__(self, truth: NDArray[np.float32], error: float) -> None:
        self.truth, self.error = truth, error
        self.bundle = SimpleNamespace(tokenizer=None)
        self.config = SimpleNamespace(
            actions=SCALING,
            training=taught(),
            model=SimpleNamespace(actions=SimpleNamespace(max_steps=8, state_dimensions=0)),
        )
        self.hidden: list[NDArray[np.bool_]] = []
        self.states: object = "not asked"

    def fill_actions(
        self, actions: NDArray[np.float32], hidden: Tensor, images: Sequence[Any],
        texts: Sequence[str], states: object,
    ) -> NDArray[np.float32]:  # fmt: skip
        self.hidden.append(hidden.numpy())
        self.states = states
        return np.where(hidden.numpy()[:, :, None], actions + self.error, actions)


def moving(straight: bool) -> Samples:
    """Actions along a line, or jumping about."""
    steps = np.arange(40, dtype=np.float32)
    jumps = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32) * [2, 4] + [1, 2]
    actions = np.stack([steps, -steps], axis=1) if straight else jumps.astype(np.float32)
    state = np.zeros((40, 4), np.float32)
    return recorded([22, 18], {"action": actions, "state": state, "task_family": np.zeros(40)})


def actions_measured(straight: bool, error: float) -> Any:
    samples = moving(straight)
    filler = Filler(samples.column("action").astype(np.float32), error)
    (measure,) = measure_masked_actions(context(samples, samples, predictor=filler))
    return measure, filler


def test_the_error_is_in_standard_deviations_of_hidden_steps_alone() -> None:
    measure, filler = actions_measured(straight=False, error=2.0)

    assert measure.value == pytest.approx((1 + 0.25) / 2)  # (2/2)² and (2/4)²
    assert all(hidden.sum(axis=1).tolist() == [4] * len(hidden) for hidden in filler.hidden)
    assert filler.states is None


def test_jumping_actions_are_beaten_only_by_who_knows_them() -> None:
    knows, _ = actions_measured(straight=False, error=0.1)
    guesses, _ = actions_measured(straight=False, error=20.0)

    assert knows.passed is True
    assert guesses.passed is False
    assert knows.controls["mean action"] == pytest.approx(1.0, abs=0.3)
    assert knows.controls.keys() == {"linear interpolation", "mean action"}


def test_straight_actions_are_interpolations_own() -> None:
    measure, _ = actions_measured(straight=True, error=0.0)
    worse, _ = actions_measured(straight=True, error=9.0)

    # Runs at a window's end are repeated, not continued; the rest of a line is found exactly.
    assert measure.controls["linear interpolation"] < worse.value
    assert worse.passed is False


def test_the_mean_action_is_the_training_datas_own_whatever_the_model_is_scaled_by() -> None:
    samples = moving(straight=False)
    actions = samples.column("action").astype(np.float32)
    elsewhere = recorded([22, 18], {"action": actions + 50, "state": np.zeros((40, 4))})
    filler = Filler(actions, error=0.1)

    (measure,) = measure_masked_actions(context(elsewhere, samples, predictor=filler))

    # By 50 beside what is measured, in deviations of 2 and 4.
    assert measure.controls["mean action"] == pytest.approx((25**2 + 12.5**2) / 2, rel=0.1)


def test_windows_lie_within_one_episode() -> None:
    samples = moving(straight=True)
    seen: list[NDArray[np.float32]] = []

    class Keeps(Filler):
        def fill_actions(self, actions: NDArray[np.float32], *rest: Any) -> NDArray[np.float32]:
            seen.append(actions)
            return super().fill_actions(actions, *rest)

    measure_masked_actions(context(samples, samples, predictor=Keeps(np.zeros(0, np.float32), 0.0)))

    steps = np.concatenate(seen)[:, :, 0]
    assert np.array_equal(np.diff(steps, axis=1), np.ones((len(steps), 7)))
    assert len(steps) == (22 - 7) + (18 - 7)
    assert not ((steps[:, 0] < 22) & (steps[:, -1] >= 22)).any()


# ---------------------------------------------------------------- whole chunks


class Foreteller:
    """Knows the actions by the number that a frame carries; without a picture, all are frame 0's.

    Keeps what it was given.
    """

    def __init__(self, truth: NDArray[np.float32], error: float, states: int = 0) -> None:
        self.truth, self.error = truth, error
        action = SimpleNamespace(max_steps=4, state_dimensions=states)
        self.config = SimpleNamespace(
            actions=SCALING, model=SimpleNamespace(actions=action), training=taught()
        )
        self.given: list[NDArray[np.float32]] = []
        self.frames: list[int] = []
        self.sentences: list[str] = []
        self.states: list[NDArray[np.float32]] = []

    def fill_actions(
        self, actions: NDArray[np.float32], hidden: Tensor, images: Sequence[Any] | None,
        texts: Sequence[str], states: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:  # fmt: skip
        assert bool(hidden.all())
        begin = np.zeros(len(texts), np.int64)
        if images is not None:
            begin = np.array([int(image[0, 0, 0]) for image in images])
        self.given.append(actions)
        self.sentences += texts
        if images is not None:
            self.frames += begin.tolist()
        if states is not None:
            self.states.append(states)
        found: NDArray[np.float32] = self.truth[begin[:, None] + np.arange(4)] + self.error
        return found


def numbered(actions: NDArray[np.float32]) -> Samples:
    """Two episodes, each with its sentence; a frame is its own number and so is the state."""
    frames = np.zeros((40, 2, 2, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(40)
    columns = {
        "action": actions,
        "state": np.arange(40, dtype=np.float32)[:, None],
        "task_index": np.repeat([0, 1], [22, 18]),
    }
    return recorded([22, 18], columns, frames, ("go there", "come back"))


def jumping() -> NDArray[np.float32]:
    """Actions of the scaling's own mean and spread, each drawn anew."""
    drawn = np.random.default_rng(0).normal(size=(40, 2))
    return np.asarray((drawn - drawn.mean(0)) / drawn.std(0) * [2, 4] + [1, 2], np.float32)


def foretold(actions: NDArray[np.float32], error: float) -> tuple[Measure, Foreteller]:
    samples, model = numbered(actions), Foreteller(actions, error)
    (measure,) = measure_action_prediction(context(samples, samples, predictor=model))
    return measure, model


def test_a_chunks_error_is_in_standard_deviations_and_the_controls_are_told() -> None:
    measure, _ = foretold(jumping(), error=1.0)

    assert measure.value == pytest.approx((0.25 + 0.0625) / 2)  # (1/2)² and (1/4)²
    assert measure.controls["mean action"] == pytest.approx(1, abs=0.15)
    # Two independent draws are twice as far apart as one from the mean.
    assert measure.controls["repeating the last action"] == pytest.approx(2, abs=0.4)
    assert measure.controls["no picture"] > 1
    assert measure.passed is True
    assert measure.on == "32 windows of 2 episodes"


def test_who_is_worse_than_repeating_the_last_action_does_not_pass() -> None:
    slow = np.repeat(np.linspace(0, 4, 40, dtype=np.float32)[:, None], 2, axis=1)

    measure, _ = foretold(slow, error=0.5)

    assert measure.controls["repeating the last action"] < measure.value
    assert measure.value < measure.controls["mean action"]
    assert measure.passed is False


def test_the_action_before_a_chunk_is_what_is_repeated() -> None:
    line = np.repeat(np.arange(40, dtype=np.float32)[:, None], 2, axis=1)

    measure, _ = foretold(line, error=0.0)

    # One to four steps on from the last: in units of 2 and of 4.
    squares = np.array([1, 4, 9, 16])
    assert measure.controls["repeating the last action"] == pytest.approx(
        np.mean([squares / 4, squares / 16])
    )


def test_chunks_begin_after_an_episodes_first_step_and_end_within_it() -> None:
    _, model = foretold(jumping(), error=0.0)

    assert sorted(model.frames) == [*range(1, 22 - 3), *range(23, 40 - 3)]


def test_nothing_of_the_truth_is_given_and_every_sentence_is_its_own() -> None:
    _, model = foretold(jumping(), error=0.0)

    assert all(not actions.any() for actions in model.given)
    own = ["go there" if frame < 22 else "come back" for frame in model.frames]
    assert model.sentences == own * 2  # with pictures, and again without


def test_the_state_is_given_to_a_model_that_takes_one() -> None:
    samples, model = numbered(jumping()), Foreteller(jumping(), 0.0, states=1)

    measure_action_prediction(context(samples, samples, predictor=model))

    assert np.concatenate(model.states)[: len(model.frames), 0].tolist() == model.frames


@pytest.mark.parametrize(
    ("untrained", "without"),
    [
        ("fusion.from_image", "images"),
        ("fusion.from_text", "texts"),
        ("fusion.actions.embed_state", "states"),
    ],
)
@pytest.mark.parametrize("measure", [measure_masked_actions, measure_action_prediction])
def test_a_condition_that_was_not_trained_is_not_given(
    measure: Callable[[Context], list[Measure]], untrained: Part, without: str
) -> None:
    given: list[dict[str, object]] = []

    def fill(actions: Any, hidden: Tensor, *conditions: object) -> NDArray[np.float32]:
        given.append(dict(zip(("images", "texts", "states"), conditions, strict=True)))
        return np.zeros_like(actions)

    samples, model = numbered(jumping()), Foreteller(jumping(), 0.0, states=1)
    model.config.training = taught(untrained)
    model.fill_actions = fill  # type: ignore[assignment]
    measure(context(samples, samples, predictor=model))

    assert {name for name, value in given[0].items() if value is None} == {without}
    assert all(call[without] is None for call in given)


# ---------------------------------------------------------------- read off z


class Reader:
    """Z is the action at the earlier frame, or nothing; it is decoded as it is."""

    def __init__(self, truth: NDArray[np.float32], knows: float) -> None:
        self.truth, self.knows = truth, knows
        self.device = torch.device("cpu")
        self.pairs: list[tuple[int, int]] = []
        self.config = SimpleNamespace(actions=SCALING)
        self.model = SimpleNamespace(
            latent_action=SimpleNamespace(
                config=SimpleNamespace(decoded_steps=2),
                action_decoder=object(),
                decode_actions=lambda z, pooled: SCALING.standardise(z.view(-1, 2, 2)),
            )
        )

    def latent_actions(
        self, earlier: Sequence[Any], later: Sequence[Any], decode_actions: bool
    ) -> Any:
        assert decode_actions
        begin, end = ([int(image[0, 0, 0]) for image in images] for images in (earlier, later))
        self.pairs += zip(begin, end, strict=True)
        actions = self.truth[np.array(begin)[:, None] + np.arange(2)]
        mean = np.array(SCALING.mean, np.float32)
        decoded = mean + self.knows * (actions - mean)
        return SimpleNamespace(vectors=decoded.reshape(len(begin), 4), actions=decoded)

    def embed_images(self, images: Sequence[Any], vector: str) -> NDArray[np.float32]:
        assert vector == "pooled"
        return np.zeros((len(images), 3), np.float32)


def decoded(knows: float, pair_steps: int = 2) -> tuple[Measure, Reader]:
    samples, reader = numbered(jumping()), Reader(jumping(), knows)
    given_ = context(samples, samples, predictor=reader, pair_steps=pair_steps)
    (measure,) = measure_decoded_actions(given_)
    return measure, reader


def test_who_reads_the_action_off_z_has_no_error_and_anothers_z_is_wrong() -> None:
    measure, _ = decoded(knows=1.0)

    assert measure.value == pytest.approx(0, abs=1e-6)
    assert measure.controls["mean action"] == pytest.approx(1, abs=0.15)
    assert measure.controls["shuffled z"] == pytest.approx(2, abs=0.5)
    assert measure.passed is True


@pytest.mark.parametrize(("knows", "passed"), [(0.5, True), (0.0, False), (-0.5, False)])
def test_who_knows_half_has_a_quarter_of_the_error(knows: float, passed: bool) -> None:
    measure, _ = decoded(knows)

    assert measure.value == pytest.approx((1 - knows) ** 2 * measure.controls["mean action"])
    assert measure.passed is passed


@pytest.mark.parametrize("gap", [1, 5])
def test_frames_are_one_interval_apart_and_decoded_steps_within_the_episode(gap: int) -> None:
    measure, reader = decoded(1.0, pair_steps=gap)

    assert sorted(reader.pairs) == [
        (begin, begin + gap)
        for first, last in ((0, 21), (22, 39))
        for begin in range(first, last - gap + 1)
    ]
    assert measure.on == f"{40 - 2 * gap} pairs of 2 episodes"


def test_a_bundle_that_decodes_no_actions_is_not_measured() -> None:
    samples, reader = numbered(jumping()), Reader(jumping(), 1.0)
    reader.model.latent_action.action_decoder = None

    assert measure_decoded_actions(context(samples, samples, predictor=reader)) == []
