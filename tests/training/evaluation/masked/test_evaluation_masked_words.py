"""Masked words: hidden as in training, and held against what needs no picture."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.evaluation.scene import context, recorded, taught

from tectum_core.tokenizer import Tokenizer
from tectum_train.data.samples import Samples
from tectum_train.evaluation.masked.words import measure_masked_words
from tectum_train.evaluation.measuring.context import NothingToMeasure
from tectum_train.evaluation.measuring.measure import Measure

SENTENCES = ("push the red block", "push the blue block")
FRAMES, DRAWS = 40, 4


class Speller:
    """Guesses hidden words; with a picture it knows the colour, without it guesses blue."""

    def __init__(self) -> None:
        self.tokenizer = Tokenizer.train(SENTENCES, 60)
        self.model = SimpleNamespace(fusion=object())
        self.config = SimpleNamespace(training=taught())
        self.bundle = SimpleNamespace(tokenizer=self.tokenizer)
        self.pictures: list[NDArray[np.uint8]] = []
        self.asked: list[list[int]] = []

    def encode(self, text: str) -> Any:
        return self.tokenizer.encode(text, 12)

    def fill_texts(
        self, ids: Sequence[list[int]], images: Sequence[Any] | None, places: Sequence[list[int]]
    ) -> Any:
        words = {word: self.tokenizer.encode(word, 12).ids[1] for word in ("red", "blue")}
        length, size = max(map(len, ids)), self.tokenizer.vocabulary_size
        spread = np.full((len(ids), length, size), 1e-3, np.float32)
        for row, tokens in enumerate(ids):
            self.asked.append(tokens)
            blue = True
            if images is not None:
                blue = self.sees(images[row])
                self.pictures.append(images[row])
            spread[row, :, words["blue" if blue else "red"]] = 0.9
        asked = [spread[row, place] for row, some in enumerate(places) for place in some]
        return SimpleNamespace(probabilities=np.array(asked))

    def sees(self, picture: NDArray[np.uint8]) -> bool:
        """Whether it is of a blue scene."""
        return bool(picture[0, 0, 0])


class Blind(Speller):
    """Guesses without looking."""

    def sees(self, picture: NDArray[np.uint8]) -> bool:
        return True


class Misled(Speller):
    """Has learnt what a true picture never says, and is misled by others: as good with none."""

    def sees(self, picture: NDArray[np.uint8]) -> bool:
        return True

    def fill_texts(
        self, ids: Sequence[list[int]], images: Sequence[Any] | None, places: Sequence[list[int]]
    ) -> Any:
        found = super().fill_texts(ids, images, places)
        if images is not None and len(self.pictures) > DRAWS * FRAMES:  # the shuffled ones
            found.probabilities[:] = 1e-3
        return found


class Lucky(Speller):
    """Is right about the pictures of the first episode of each colour, and wrong about others."""

    def sees(self, picture: NDArray[np.uint8]) -> bool:
        return bool(picture[0, 0, 0]) == bool(picture[1, 1, 1] < 2)


def coloured(episodes: int = 2) -> Samples:
    """Red and blue scenes in turn; a picture says which, its own number and its episode's.

    Each episode has a sentence of its own, if of the same words.
    """
    each = FRAMES // episodes
    family = np.repeat(np.arange(episodes) % 2, each)
    frames = np.zeros((FRAMES, 2, 2, 3), np.uint8)
    frames[:, 0, 0, 0] = family
    frames[:, 1, 1, 0] = np.arange(FRAMES)
    frames[:, 1, 1, 1] = np.repeat(np.arange(episodes), each)
    columns = {"task_family": family, "task_index": np.repeat(np.arange(episodes), each)}
    return recorded([each] * episodes, columns, frames, SENTENCES * (episodes // 2))


def measured(
    speller: Speller, samples: Samples, ratio: float | None = None
) -> tuple[Measure, Measure]:
    """By a bundle whose training hid so much."""
    if ratio is not None:
        summary = speller.config.training.model_copy(update={"words_hidden": ratio})
        speller.config.training = summary
    accuracy, nats = measure_masked_words(context(samples, samples, predictor=speller))
    return accuracy, nats


def test_a_shuffled_picture_is_always_of_another_family() -> None:
    speller, number = Speller(), DRAWS * FRAMES

    measured(speller, coloured())

    true, strangers = speller.pictures[:number], speller.pictures[number:]
    assert len(true) == len(strangers) == number
    for one, other in zip(true, strangers, strict=True):
        assert one[0, 0, 0] != other[0, 0, 0]


@given(ratio=st.floats(0.01, 0.99))
def test_as_many_words_are_hidden_as_training_hides_and_nothing_else(ratio: float) -> None:
    speller = Speller()
    sentences = [speller.encode(sentence) for sentence in SENTENCES]
    mask = speller.tokenizer.mask_id or 0

    accuracy, _ = measured(speller, coloured(), ratio=ratio)

    assert len(speller.asked) == 3 * DRAWS * FRAMES
    wanted = {max(1, round(len(one.content) * ratio)) for one in sentences}
    assert {tokens.count(mask) for tokens in speller.asked} == wanted
    for tokens in speller.asked:
        hidden = [place for place, token in enumerate(tokens) if token == mask]
        assert any(
            set(hidden) <= set(one.content)
            and [t for p, t in enumerate(tokens) if p not in hidden]
            == [t for p, t in enumerate(one.ids) if p not in hidden]
            for one in sentences
        )
    assert f"words, {ratio:.0%} of a sentence at once; 40 frames of 2 episodes" in accuracy.on


def test_a_bundle_that_does_not_say_how_many_words_it_hid_is_asked_as_bert_hides_them() -> None:
    accuracy, _ = measured(Speller(), coloured())

    assert "words, 15% of a sentence at once" in accuracy.on


def test_the_same_words_are_hidden_whatever_is_shown() -> None:
    speller, number = Speller(), DRAWS * FRAMES

    measured(speller, coloured(), ratio=0.5)

    true, other, none = (speller.asked[i * number : (i + 1) * number] for i in range(3))
    assert true == other == none
    assert len({tuple(tokens) for tokens in true}) > len(SENTENCES)  # and not always the same


def test_a_model_that_looks_at_the_picture_passes_and_loses_without_it() -> None:
    accuracy, nats = measured(Speller(), coloured(20))

    # A quarter of the words are colours, and nothing else is known.
    assert accuracy.passed is True
    assert accuracy.value > 0.1
    assert accuracy.controls["shuffled picture"] == 0
    assert 0 < accuracy.controls["no picture"] < accuracy.value
    assert nats.passed is True
    assert nats.value < nats.controls["no picture"] < nats.controls["shuffled picture"]


@pytest.mark.parametrize("speller", [Blind, Misled])
def test_whom_the_true_picture_tells_no_more_than_none_fails(speller: type[Speller]) -> None:
    accuracy, nats = measured(speller(), coloured(20))

    assert accuracy.value == accuracy.controls["no picture"] > 0
    assert accuracy.passed is False
    assert nats.value == nats.controls["no picture"]
    assert nats.passed is False


def test_what_differs_from_sentence_to_sentence_is_counted_by_sentences() -> None:
    accuracy, _ = measured(Lucky(), coloured(4))

    # Right in some of few sentences, which many words do not make more.
    assert accuracy.value > 0
    assert accuracy.errors["no picture"] > 0.1
    assert accuracy.passed is False


def test_words_that_were_learnt_without_pictures_are_not_measured_beside_any() -> None:
    speller = Speller()
    speller.config.training = taught("fusion.from_image")

    with pytest.raises(NothingToMeasure, match="the training showed no picture beside words"):
        measured(speller, coloured())


def test_a_task_alone_has_no_shuffled_picture() -> None:
    samples = recorded([20, 20], {}, coloured().frames, SENTENCES)

    with pytest.raises(NothingToMeasure, match="no other to shuffle with"):
        measured(Speller(), samples)
