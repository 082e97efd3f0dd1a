"""Retrieval: which frames are asked, by which sentences, and how an answer is scored."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.evaluation.scene import context, recorded, world

from tectum_train.data.samples import Samples
from tectum_train.evaluation.measuring.context import NothingToMeasure, second_half
from tectum_train.evaluation.trunk.retrieval import _told, _told_of_two, measure_retrieval

PARTNERS = {"left": "right", "right": "left", "up": "down", "down": "up", "rest": None}


# ---------------------------------------------------------------- which frames


def test_frames_are_of_the_second_half_of_each_episode() -> None:
    samples = recorded([6, 3, 1], {})

    assert second_half(samples).tolist() == [3, 4, 5, 8]


@given(st.lists(st.integers(1, 15), min_size=1, max_size=6))
def test_no_frame_of_a_first_half_is_asked(lengths: list[int]) -> None:
    samples = recorded(lengths, {})

    chosen = second_half(samples)

    length = np.repeat(lengths, lengths)
    assert set(chosen) == set(np.flatnonzero(samples.step >= length / 2))


def test_episodes_of_one_frame_have_no_second_half_and_are_not_measured() -> None:
    single = recorded([1, 1], {"task_family": np.zeros(2, np.int64)})

    with pytest.raises(NothingToMeasure, match="no episode has a second half"):
        measure_retrieval(context(single, single))


# ---------------------------------------------------------------- how it is scored


def test_recall_is_how_often_the_true_task_is_first() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.1, 0.7], [0.1, 0.6, 0.3], [0.4, 0.5, 0.1]])

    assert _told(scores, np.array([0, 2, 1, 2])).mean() == 0.75


def test_within_pairs_only_the_partner_is_an_opponent() -> None:
    # The third family wins everywhere, but it is nobody's partner.
    scores = np.array([[0.5, 0.4, 0.9], [0.5, 0.4, 0.9], [0.1, 0.2, 0.9]])

    assert _told_of_two(scores, np.array([0, 1, 1]), {0: 1, 1: 0}).mean() == pytest.approx(2 / 3)


def test_frames_of_tasks_without_a_partner_are_left_out() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0]])

    assert _told_of_two(scores, np.array([0, 2]), {0: 1, 1: 0}).mean() == 1.0


# ---------------------------------------------------------------- the measure


class Reader:
    """A predictor that reads a frame's task out of its pixels, with so many mistakes."""

    def __init__(self, *, right: bool, truncations: tuple[int, ...] = ()) -> None:
        joint = SimpleNamespace(truncations=truncations)
        self.config = SimpleNamespace(model=SimpleNamespace(joint=joint))
        self.right = right
        self.asked: list[str] = []

    def embed_images(self, images: Sequence[NDArray[np.uint8]], vector: str) -> NDArray[np.float32]:
        task = np.array([image[0, 0, 0] for image in images])
        if not self.right:
            task = np.zeros_like(task)
        return np.asarray(np.eye(len(PARTNERS))[task], np.float32)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        places = [list(PARTNERS).index(text.split()[1]) for text in texts]
        return np.asarray(np.eye(len(PARTNERS))[places], np.float32)


def scene(
    seed: int, *, families: int = 5, told: bool = False, episodes: int = 3, gaps: int = 1
) -> Samples:
    """Episodes of every family; pixels tell it. So does the state if it is `told`, at length.

    The data set's own numbers of the families are `gaps` apart.
    """
    length = 800 if told else 40
    family = np.repeat(np.arange(families), episodes * length)
    frames = np.random.default_rng(seed).integers(0, 20, (len(family), 2, 2, 3)).astype(np.uint8)
    frames[:, 0, 0, 0] = family
    frames.reshape(len(family), 12)[np.arange(len(family)), 3 + family] = 200
    draw = np.random.default_rng(seed + 1)
    state = draw.normal(size=(len(family), 3)).astype(np.float32)
    if told:
        # Ten stripes from -1 to 1, two for each family.
        stripe = family + 5 * draw.integers(2, size=len(family))
        state[:, 0] = (stripe + draw.uniform(0.1, 0.9, len(family))) / 5 - 1
    columns: dict[str, NDArray[Any]] = {"task_family": family * gaps, "state": state}
    return recorded([length] * episodes * families, columns, frames)


def measured(reader: Reader, episodes: int = 3, gaps: int = 1) -> Any:
    twin, named = Reader(right=False), world(PARTNERS)
    tree = named.model_dump()
    for family in tree["families"]:
        family["index"] *= gaps
    given_ = context(
        scene(1, episodes=episodes, gaps=gaps), scene(2, gaps=gaps),
        predictor=reader, twin=twin, world=type(named).model_validate(tree),
    )  # fmt: skip
    return measure_retrieval(given_)


def test_a_model_that_knows_the_task_passes_and_its_controls_are_told() -> None:
    whole, pairs = measured(Reader(right=True), episodes=40)

    assert (whole.value, whole.passed) == (1.0, True)
    assert (pairs.value, pairs.passed) == (1.0, True)
    names = {
        "PCA-256 + logistic", "random init + logistic", "proprioception + logistic",
        "proprioception + MLP", "chance",
    }  # fmt: skip
    assert whole.controls.keys() == pairs.controls.keys() == names
    assert whole.errors.keys() == pairs.errors.keys() == names - {"chance"}
    assert 0 < whole.errors["random init + logistic"] < 0.8
    assert whole.controls["chance"] == pytest.approx(1 / 5)
    assert pairs.controls["chance"] == 0.5
    assert whole.controls["PCA-256 + logistic"] > 0.9  # these pixels do tell the task
    assert whole.controls["random init + logistic"] == pytest.approx(1 / 5)
    assert whole.controls["proprioception + logistic"] < 0.6
    assert whole.controls["proprioception + MLP"] < 0.6


def test_the_first_so_many_dimensions_are_asked_too_where_they_were_trained() -> None:
    """Here each dimension is one task: by the first two, two of five tasks are told."""
    whole, _, *shorter = measured(Reader(right=True, truncations=(2, 4)))

    assert [one.name for one in shorter] == [
        "frame → task by 2 of 5 dimensions, R@1",
        "frame → task by 4 of 5 dimensions, R@1",
    ]
    assert whole.value == 1
    # Frames of the other tasks have no direction left, and are said to be of the first.
    assert [one.value for one in shorter] == pytest.approx([2 / 5, 4 / 5])
    assert all(one.controls == {"all of them": 1.0} and one.passed is None for one in shorter)


def test_it_is_told_how_much_was_asked_and_taught() -> None:
    whole, pairs = measured(Reader(right=True))

    # Every third of the last twenty frames; the last task has no partner.
    assert whole.on == "100 frames of 15 episodes; only 3 training episodes a task"
    assert pairs.on == "80 frames of 12 episodes; only 3 training episodes a task"


@pytest.mark.parametrize(("episodes", "passed"), [(39, False), (40, True)])
def test_who_was_taught_too_little_does_not_pass_and_the_row_says_so(
    episodes: int, passed: bool
) -> None:
    for measure in measured(Reader(right=True), episodes=episodes):
        assert measure.value == 1
        assert measure.passed is passed
        assert measure.gate.endswith("; ≥ 40 training episodes a task")
        few = "≥" if passed else "only"
        assert measure.on.endswith(f"; {few} {episodes} training episodes a task")


def test_gaps_between_the_families_numbers_change_nothing() -> None:
    without, gaps = (measured(Reader(right=True), gaps=gaps) for gaps in (1, 3))

    assert [m.value for m in gaps] == [m.value for m in without] == [1.0, 1.0]
    assert [dict(m.controls) for m in gaps] == [dict(m.controls) for m in without]


def test_a_task_without_a_held_out_sentence_leaves_the_measure_out() -> None:
    named = world(PARTNERS)
    kept = tuple(i for i in named.instructions if i.text != "new up")
    given_ = context(
        scene(1), scene(2), predictor=Reader(right=True), twin=Reader(right=False),
        world=named.model_copy(update={"instructions": kept}),
    )  # fmt: skip

    with pytest.raises(NothingToMeasure, match="no sentence of 'up' out"):
        measure_retrieval(given_)


def test_a_task_that_was_never_taught_is_told() -> None:
    few, whole_test = scene(1, families=3), scene(2)
    given_ = context(
        few, whole_test, predictor=Reader(right=True), twin=Reader(right=False),
        world=world(PARTNERS),
    )  # fmt: skip

    whole, pairs = measure_retrieval(given_)

    assert whole.on.endswith("only 0 training episodes a task")
    # No classifier has met the last two tasks.
    assert whole.controls["PCA-256 + logistic"] <= 3 / 5
    assert pairs.controls["proprioception + MLP"] < 1


def test_states_that_tell_the_task_by_thresholds_are_read_by_the_mlp_alone() -> None:
    train, test = (scene(seed, told=True) for seed in (1, 2))
    given_ = context(
        train, test, predictor=Reader(right=True), twin=Reader(right=False), world=world(PARTNERS)
    )

    whole, _ = measure_retrieval(given_)

    assert whole.controls["proprioception + MLP"] > 0.85
    assert whole.controls["proprioception + logistic"] < 0.7


def test_without_pairs_there_is_nothing_to_tell_within_them() -> None:
    alone = dict.fromkeys(PARTNERS)
    given_ = context(
        scene(1), scene(2), predictor=Reader(right=True), twin=Reader(right=False),
        world=world(alone),
    )  # fmt: skip

    assert [measure.name for measure in measure_retrieval(given_)] == ["frame → task, R@1"]


def test_a_model_that_always_says_the_same_fails() -> None:
    whole, pairs = measured(Reader(right=False))

    assert whole.value == pytest.approx(1 / 5)
    assert whole.passed is False
    assert pairs.passed is False


def test_only_held_out_sentences_are_asked() -> None:
    reader = Reader(right=True)

    measured(reader)

    assert reader.asked == [f"new {name}" for name in PARTNERS]
