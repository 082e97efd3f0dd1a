"""Frames by sentences and sentences by frames: which count as right, and what chance gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.training.evaluation.scene import context, world
from tests.training.evaluation.trunk.test_evaluation_retrieval import PARTNERS, Reader, scene

from tectum_train.evaluation.trunk.sentences import chances, measure_sentences, ranks

FRAME, SENTENCE = "frame → sentence", "sentence → frame"


class Collapsed(Reader):
    """Says the same of everything."""

    def embed_images(self, images: Any, vector: str) -> Any:
        return np.ones_like(super().embed_images(images, vector))

    def embed_texts(self, texts: Any) -> Any:
        return np.ones_like(super().embed_texts(texts))


def measured(
    held_out: int, reader: Reader | None = None, *, same_text: bool = False
) -> dict[str, Any]:
    """Of five families with so many sentences each, of which one is that of all if asked."""
    named = world(PARTNERS)
    more = tuple(
        one.model_copy(update={"text": f"{one.text} {number}"})
        for one in named.instructions
        if one.held_out
        for number in range(held_out - 1)
    )
    if same_text:
        more += tuple(
            one.model_copy(update={"text": "new left 0"}) for one in named.instructions[3:4]
        )
    whole = named.model_copy(update={"instructions": (*named.instructions, *more)})
    given_ = context(
        scene(1), scene(2), predictor=reader or Reader(right=True), twin=Reader(right=False),
        world=whole,
    )  # fmt: skip
    return {measure.name: measure for measure in measure_sentences(given_)}


# ---------------------------------------------------------------- ranks and chance


def test_the_first_right_one_counts_and_a_tie_is_no_hit() -> None:
    scores = np.array([[0.9, 0.8, 0.1], [0.5, 0.5, 0.5], [0.1, 0.2, 0.3]])
    right = np.array([[False, True, True], [True, False, False], [True, False, True]])

    assert ranks(scores, right).tolist() == [2, 3, 1]


def test_a_score_that_is_not_a_number_puts_nothing_first() -> None:
    nan = np.nan
    scores = np.array([[nan, nan, nan], [nan, 0.8, 0.1], [nan, 0.8, 0.1]])
    right = np.array([[True, False, False], [True, False, False], [False, True, False]])

    assert ranks(scores, right).tolist() == [3, 3, 2]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(6, 12))
def test_chance_is_that_of_a_shuffled_list(right: list[int], total: int) -> None:
    found = chances(np.array(right), total)

    drawn = np.random.default_rng(0).random((4000, total))
    for place in range(total + 1):
        hit = [(drawn[:, :number].min(axis=1, keepdims=True) >= drawn).sum(axis=1) <= place
               for number in right]  # fmt: skip
        assert found[place] == pytest.approx(np.mean(hit), abs=0.04)
    assert found[0] == 0
    assert found[-1] == pytest.approx(1)


def test_chance_of_the_first_place_is_the_share_that_is_right() -> None:
    assert chances(np.array([143, 100]), 2006)[1] == pytest.approx((143 + 100) / 2 / 2006)


# ---------------------------------------------------------------- the measures


def test_who_knows_the_task_finds_it_first_both_ways() -> None:
    found = measured(4)

    for way in (FRAME, SENTENCE):
        assert [found[f"{way}, R@{first}"].value for first in (1, 5, 10)] == [1, 1, 1]
        assert found[f"{way}, median rank"].value == 1
        assert found[f"{way}, R@1"].on == "100 frames of 15 episodes; 20 sentences"
        assert found[f"{way}, R@1"].controls["chance"] == pytest.approx(1 / 5)
        assert found[f"{way}, R@1"].controls["random-init twin"] <= 1 / 5


def test_who_always_says_the_same_finds_one_tasks_alone() -> None:
    found = measured(6, Reader(right=False))

    assert found[f"{FRAME}, R@1"].value == pytest.approx(1 / 5)
    assert found[f"{FRAME}, R@10"].value == pytest.approx(1 / 5)
    assert found[f"{FRAME}, median rank"].value == 25  # behind all that are as good


def test_vectors_that_have_become_one_find_nothing() -> None:
    found = measured(4, Collapsed(right=True))

    for way in (FRAME, SENTENCE):
        assert [found[f"{way}, R@{first}"].value for first in (1, 5, 10)] == [0, 0, 0]


def test_a_text_that_two_tasks_say_is_asked_once_and_right_for_both() -> None:
    found = measured(2, same_text=True)

    assert found[f"{FRAME}, R@1"].on.endswith("10 sentences")
    assert found[f"{SENTENCE}, R@1"].value == 1
    # Four tasks have two of the ten, and one has three.
    assert found[f"{FRAME}, R@1"].controls["chance"] == pytest.approx((4 * 0.2 + 0.3) / 5)


def test_as_many_as_there_are_is_not_asked_for() -> None:
    of_sentences = [name for name in measured(1) if name.startswith(FRAME)]

    assert of_sentences == [f"{FRAME}, R@1", f"{FRAME}, median rank"]
    assert f"{FRAME}, R@5" in measured(2)
    assert f"{FRAME}, R@10" not in measured(2)
