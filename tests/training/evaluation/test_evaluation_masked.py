"""Masked images, words and actions: each against what needs no understanding."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.evaluation.scene import context, recorded
from torch import Tensor

from tectum_core.preprocess import ActionScaling
from tectum_core.tokenizer import Tokenizer
from tectum_train.data.samples import Samples
from tectum_train.evaluation.masked import (
    _interpolated,
    measure_masked_actions,
    measure_masked_words,
)

SCALING = ActionScaling(
    names=("x", "y"), mean=(1.0, 2.0), standard_deviation=(2.0, 4.0), step_interval=0.1
)
SENTENCES = ("push the red block", "push the blue block")


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


# ---------------------------------------------------------------- actions


class Filler:
    """Fills actions in with the truth and a constant error; keeps what it was shown."""

    def __init__(self, truth: NDArray[np.float32], error: float) -> None:
        self.truth, self.error = truth, error
        self.bundle = SimpleNamespace(tokenizer=None)
        self.config = SimpleNamespace(
            actions=SCALING,
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


# ---------------------------------------------------------------- words


class Speller:
    """Guesses hidden words; with a picture it knows the colour, without it guesses blue."""

    def __init__(self) -> None:
        self.tokenizer = Tokenizer.train(SENTENCES, 60)
        self.model = SimpleNamespace(fusion=object())
        self.bundle = SimpleNamespace(tokenizer=self.tokenizer)
        self.pictures: list[NDArray[np.uint8]] = []
        self.asked: list[list[int]] = []

    def encode(self, text: str) -> Any:
        return self.tokenizer.encode(text, 12)

    def fill_texts(self, ids: Sequence[list[int]], images: Sequence[Any] | None) -> Any:
        words = {word: self.tokenizer.encode(word, 12).ids[1] for word in ("red", "blue")}
        length, size = max(map(len, ids)), self.tokenizer.vocabulary_size
        spread = np.full((len(ids), length, size), 1e-3, np.float32)
        for row, tokens in enumerate(ids):
            self.asked.append(tokens)
            blue = True
            if images is not None:
                blue = bool(images[row][0, 0, 0])
                self.pictures.append(images[row])
            spread[row, :, words["blue" if blue else "red"]] = 0.9
        return SimpleNamespace(probabilities=spread)


def coloured() -> Samples:
    """Red and blue scenes, one family each; a picture says which, and its own number."""
    family = np.repeat([0, 1], 20)
    frames = np.zeros((40, 2, 2, 3), np.uint8)
    frames[:, 0, 0, 0] = family
    frames[:, 1, 1, 1] = np.arange(40)
    columns = {"task_family": family, "task_index": family}
    return recorded([20, 20], columns, frames, SENTENCES)


def test_a_shuffled_picture_is_always_of_another_family() -> None:
    speller, samples = Speller(), coloured()

    measure_masked_words(context(samples, samples, predictor=speller))

    true, strangers = speller.pictures[:40], speller.pictures[40:]
    assert len(true) == len(strangers) == 40
    for one, other in zip(true, strangers, strict=True):
        assert one[0, 0, 0] != other[0, 0, 0]


def test_each_hidden_word_is_the_sentences_own_and_alone() -> None:
    speller, samples = Speller(), coloured()
    sentences = [speller.encode(sentence).ids for sentence in SENTENCES]
    mask = speller.tokenizer.mask_id or 0

    measure_masked_words(context(samples, samples, predictor=speller))

    assert len(speller.asked) == 3 * 40
    for tokens in speller.asked:
        assert tokens.count(mask) == 1
        place = tokens.index(mask)
        assert 0 < place < len(tokens) - 1
        assert any(tokens == [*ids[:place], mask, *ids[place + 1 :]] for ids in sentences)


def test_a_model_that_looks_at_the_picture_passes_and_loses_without_it() -> None:
    accuracy, nats = measure_masked_words(context(coloured(), coloured(), predictor=Speller()))

    # A quarter of the words are colours, and nothing else is known.
    assert accuracy.passed is True
    assert accuracy.value > 0.1
    assert accuracy.controls["shuffled picture"] == 0
    assert 0 < accuracy.controls["no picture"] < accuracy.value
    assert nats.passed is True
    assert nats.value < nats.controls["no picture"] < nats.controls["shuffled picture"]
