"""Samples: which ones a step takes, and what of their episode comes with them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tectum_core.preprocess import ImagePreprocessing
from tectum_train.data import DataError, LeRobotDataset
from tectum_train.data.samples import RawBatch, Samples, order_of

CAMERA = "observation.images.front"
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def recorded(lengths: list[int]) -> Samples:
    """Episodes in which every number says which frame of the data set it belongs to."""
    ends = np.cumsum(lengths)

    def columns(episode: int, *, pictures: bool) -> dict[str, NDArray[Any]]:
        assert not pictures  # they would not fit into memory
        index = np.arange(ends[episode] - lengths[episode], ends[episode])
        return {
            "action": np.stack([index, -index], axis=1).astype(np.float32),
            "observation.state": index[:, None].astype(np.float32) + 0.5,
            "gripper": index.astype(np.float32),
            "task_index": np.full(len(index), episode % 2),
        }

    dataset = SimpleNamespace(
        tasks=["open the door", "close the door"],
        episodes=[
            SimpleNamespace(index=number, length=length, dataset_to_index=int(end))
            for number, (length, end) in enumerate(zip(lengths, ends, strict=True))
        ],
        read_columns=columns,
    )
    frames = np.broadcast_to(
        np.arange(ends[-1], dtype=np.uint8)[:, None, None, None], (int(ends[-1]), 2, 2, 3)
    )
    return Samples(cast("LeRobotDataset", dataset), frames)


def take(samples: Samples, index: int, gap: int = 2, **changes: Any) -> RawBatch:
    given = {"action": "action", "action_steps": 4, "state": "observation.state", **changes}
    task = samples.tasks(None)[[index]]
    return samples.take(np.array([index]), np.array([gap]), task, task, **given)


# ---------------------------------------------------------------- order


@given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 2**32))
def test_every_epoch_visits_every_sample_once(total: int, size: int, seed: int) -> None:
    epochs = 3
    steps = -(-epochs * total // size)

    taken = np.concatenate([order_of(seed, step, size, total) for step in range(steps)])

    for epoch in range(epochs):
        visited = taken[epoch * total : (epoch + 1) * total]
        assert sorted(visited) == list(range(total))


@given(st.integers(0, 1000), st.integers(1, 17), st.integers(1, 40), st.integers(0, 2**32))
def test_a_steps_samples_depend_on_nothing_but_seed_and_step(
    step: int, size: int, total: int, seed: int
) -> None:
    first = order_of(seed, step, size, total)
    np.random.default_rng().permutation(total)

    assert first.dtype == np.int64
    assert np.array_equal(first, order_of(seed, step, size, total))


@given(st.integers(1, 17), st.integers(1, 4), st.integers(0, 99))
def test_the_batch_size_cuts_one_stream_of_samples(size: int, factor: int, seed: int) -> None:
    whole = order_of(seed, 0, size * factor, 23)

    parts = [order_of(seed, step, size, 23) for step in range(factor)]

    assert np.array_equal(np.concatenate(parts), whole)


def test_a_batch_across_the_end_of_an_epoch_begins_the_next_one() -> None:
    ended, begun = order_of(0, 1, 6, 10)[:4], order_of(0, 1, 6, 10)[4:]

    assert set(order_of(0, 0, 6, 10)) | set(ended) == set(range(10))
    assert np.array_equal(begun, order_of(0, 1, 10, 10)[:2])


def test_a_batch_larger_than_the_data_set_goes_round() -> None:
    taken = order_of(0, 0, 7, 3)

    assert np.bincount(taken).tolist() in ([2, 2, 3], [2, 3, 2], [3, 2, 2])


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    first = order_of(0, 0, 50, 50)

    assert not np.array_equal(first, order_of(0, 1, 50, 50))
    assert not np.array_equal(first, order_of(1, 0, 50, 50))


# ---------------------------------------------------------------- pairs


@given(LENGTHS, st.data())
def test_a_pair_lies_within_one_episode_its_gap_apart(lengths: list[int], data: Any) -> None:
    samples = recorded(lengths)
    index = np.array(data.draw(st.lists(st.integers(0, sum(lengths) - 1), min_size=1)))
    asked = np.array(data.draw(st.lists(st.integers(1, 12), min_size=1)))
    asked = np.resize(asked, len(index))

    raw = samples.take(index, asked, index, index, "action", 4, None)

    later = raw.later[:, 0, 0, 0].astype(int)
    assert np.array_equal(samples.episode[later], samples.episode[index])
    whole = raw.gap > 0
    assert np.array_equal(later[whole] - index[whole], asked[whole])
    assert np.array_equal(later[~whole], samples.last[index[~whole]])
    assert np.array_equal(whole, index + asked <= samples.last[index])


def test_a_pair_that_the_episode_is_too_short_for_has_gap_zero_and_its_last_frame() -> None:
    samples = recorded([5, 5])

    raw = take(samples, index=3, gap=2)

    assert raw.gap.tolist() == [0]
    assert raw.later[0, 0, 0, 0] == 4


def test_a_pair_that_ends_on_the_last_frame_is_whole() -> None:
    raw = take(recorded([5, 5]), index=2, gap=2)

    assert raw.gap.tolist() == [2]
    assert raw.later[0, 0, 0, 0] == 4


# ---------------------------------------------------------------- actions and states


def test_actions_go_on_from_this_frame() -> None:
    raw = take(recorded([9]), index=2)

    assert raw.actions[0, :, 0].tolist() == [2, 3, 4, 5]
    assert raw.actions[0, :, 1].tolist() == [-2, -3, -4, -5]
    assert not raw.padded.any()


def test_beyond_the_episodes_end_the_last_action_is_repeated_and_flagged() -> None:
    raw = take(recorded([5, 5]), index=3)

    assert raw.actions[0, :, 0].tolist() == [3, 4, 4, 4]
    assert raw.padded.tolist() == [[False, False, True, True]]


@given(LENGTHS, st.integers(1, 12))
def test_a_step_is_padded_exactly_where_the_episode_had_ended(
    lengths: list[int], steps: int
) -> None:
    samples = recorded(lengths)
    index = np.arange(sum(lengths))

    raw = samples.take(index, np.ones_like(index), index, index, "action", steps, None)

    found = raw.actions[:, :, 0].astype(int)
    assert np.array_equal(samples.episode[found], samples.episode[index][:, None].repeat(steps, 1))
    assert np.array_equal(~raw.padded, found == index[:, None] + np.arange(steps))
    assert not raw.padded[:, 0].any()


def test_without_a_state_there_are_no_numbers_of_it() -> None:
    raw = take(recorded([5]), index=1, state=None)

    assert raw.state.shape == (1, 0)


def test_the_state_is_this_frames() -> None:
    raw = take(recorded([5]), index=1)

    assert raw.state.tolist() == [[1.5]]


def test_an_action_and_a_state_of_one_number_keep_their_dimension() -> None:
    raw = take(recorded([5]), index=1, action="gripper", state="gripper")

    assert raw.actions.tolist() == [[[1], [2], [3], [4]]]
    assert raw.state.tolist() == [[1]]


def test_instruction_and_task_are_taken_along() -> None:
    index, gap = np.array([0, 3, 4]), np.array([1, 1, 1])

    raw = recorded([2, 2, 2]).take(index, gap, np.array([5, 6, 7]), gap, "action", 1, None)

    assert raw.instruction.tolist() == [5, 6, 7]
    assert raw.task.tolist() == [1, 1, 1]


# ---------------------------------------------------------------- tasks


def test_without_a_feature_a_task_is_its_sentence() -> None:
    samples = recorded([2, 1, 1])

    assert samples.tasks(None).tolist() == [0, 0, 1, 0]
    assert {k: v.tolist() for k, v in samples.paraphrases(None).items()} == {0: [0], 1: [1]}


def test_a_feature_makes_sentences_of_equal_value_paraphrases(
    tiny_data: Path, tmp_path: Path
) -> None:
    samples = Samples.open(tiny_data / "train", CAMERA, ImagePreprocessing(size=8), tmp_path)

    tasks, paraphrases = samples.tasks("task_family"), samples.paraphrases("task_family")

    assert np.array_equal(tasks, samples.column("task_family"))
    assert [samples.instructions[i] for i in sorted(paraphrases[1])] == [
        "push the red block right",
        "shove red to the right",
    ]
    everything = np.concatenate(list(paraphrases.values()))
    assert sorted(everything) == list(range(len(samples.instructions)))  # nothing held out


# ---------------------------------------------------------------- the data set


@given(LENGTHS)
def test_every_frame_knows_its_episode_its_step_and_the_last_frame(lengths: list[int]) -> None:
    samples = recorded(lengths)

    assert len(samples) == sum(lengths)
    assert samples.episode.tolist() == np.repeat(np.arange(len(lengths)), lengths).tolist()
    assert samples.step.tolist() == [step for length in lengths for step in range(length)]
    assert np.array_equal(samples.last, np.repeat(np.cumsum(lengths) - 1, lengths))
    gone = [step / max(length - 1, 1) for length in lengths for step in range(length)]
    assert samples.progress == pytest.approx(gone)


def test_a_feature_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(
        DataError, match=r"no feature 'torque'.*action, gripper, observation\.state"
    ):
        recorded([3]).column("torque")


def test_frames_are_resized_once_and_stand_beside_their_rows(
    tiny_data: Path, tmp_path: Path
) -> None:
    images = ImagePreprocessing(size=16)
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    first = Samples.open(tiny_data / "test", CAMERA, images, tmp_path, tell)
    again = Samples.open(tiny_data / "test", CAMERA, images, tmp_path, tell)

    assert first.frames.shape == (len(first), 16, 16, 3)
    assert told[-1] == (len(first), len(first))
    assert [done for done, _ in told].count(len(first)) == 1
    assert np.array_equal(first.frames, again.frames)
    # The red and the blue scenes are told apart by their rows and by their pictures alike.
    blue = first.tasks("task_family") >= 2
    saturation = first.frames[..., 2].astype(int).max((1, 2)) - first.frames[..., 0].max((1, 2))
    assert saturation[blue].mean() > saturation[~blue].mean()


def test_another_normalisation_reads_the_same_cached_frames(
    tiny_data: Path, tmp_path: Path
) -> None:
    for mean in (0.5, 0.1):
        images = ImagePreprocessing(size=16, mean=(mean, mean, mean))
        Samples.open(tiny_data / "test", CAMERA, images, tmp_path)

    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
