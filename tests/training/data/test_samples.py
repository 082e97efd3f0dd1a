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
from tectum_train.data.samples import Order, Samples

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


# ---------------------------------------------------------------- order


@given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 2**32))
def test_every_epoch_visits_every_sample_once(total: int, size: int, seed: int) -> None:
    epochs = 3
    steps = -(-epochs * total // size)

    parts = [Order(seed, size, total).of(step) for step in range(steps)]

    taken, seen = (np.concatenate(some) for some in zip(*parts, strict=True))
    for epoch in range(epochs):
        visited = slice(epoch * total, (epoch + 1) * total)
        assert sorted(taken[visited]) == list(range(total))
        assert (seen[visited] == epoch).all()


@given(st.integers(0, 1000), st.integers(1, 17), st.integers(1, 40), st.integers(0, 2**32))
def test_a_steps_samples_depend_on_nothing_but_seed_and_step(
    step: int, size: int, total: int, seed: int
) -> None:
    first, _ = Order(seed, size, total).of(step)
    np.random.default_rng().permutation(total)

    assert first.dtype == np.int64
    assert np.array_equal(first, Order(seed, size, total).of(step)[0])


@given(
    st.lists(st.integers(0, 30), max_size=12), st.integers(1, 17), st.integers(1, 20),
    st.integers(0, 3),
)  # fmt: skip
def test_what_was_asked_before_changes_no_steps_samples(
    steps: list[int], size: int, total: int, at_once: int
) -> None:
    episode = np.arange(total) // 3
    asked = Order(5, size, total, episode, at_once)

    for step in steps:
        alone = Order(5, size, total, episode, at_once).of(step)
        assert all(map(np.array_equal, asked.of(step), alone))


def test_an_epoch_is_shuffled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, begin = list[list[int]](), np.random.default_rng

    def counted(seed: list[int]) -> np.random.Generator:
        made.append(seed)
        return begin(seed)

    monkeypatch.setattr(np.random, "default_rng", counted)
    order = Order(7, 4, 10)

    for step in range(10):
        order.of(step)

    assert made == [[7, epoch] for epoch in range(4)]


@given(st.integers(1, 17), st.integers(1, 4), st.integers(0, 99))
def test_the_batch_size_cuts_one_stream_of_samples(size: int, factor: int, seed: int) -> None:
    whole, _ = Order(seed, size * factor, 23).of(0)

    parts = [Order(seed, size, 23).of(step)[0] for step in range(factor)]

    assert np.array_equal(np.concatenate(parts), whole)


def test_a_batch_across_the_end_of_an_epoch_begins_the_next_one() -> None:
    taken, epoch = Order(0, 6, 10).of(1)

    assert epoch.tolist() == [0, 0, 0, 0, 1, 1]
    assert set(Order(0, 6, 10).of(0)[0]) | set(taken[:4]) == set(range(10))
    assert np.array_equal(taken[4:], Order(0, 10, 10).of(1)[0][:2])


def test_a_batch_larger_than_the_data_set_goes_round() -> None:
    taken, _ = Order(0, 7, 3).of(0)

    assert np.bincount(taken).tolist() in ([2, 2, 3], [2, 3, 2], [3, 2, 2])


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    first, _ = Order(0, 50, 50).of(0)

    assert not np.array_equal(first, Order(0, 50, 50).of(1)[0])
    assert not np.array_equal(first, Order(1, 50, 50).of(0)[0])


@given(LENGTHS, st.integers(1, 6), st.integers(0, 99))
def test_a_few_episodes_at_once_are_taken_whole_before_the_next_few(
    lengths: list[int], at_once: int, seed: int
) -> None:
    episode, total = np.repeat(np.arange(len(lengths)), lengths), sum(lengths)

    taken, _ = Order(seed, total, total, episode, at_once).of(0)

    assert sorted(taken) == list(range(total))
    begun = list(dict.fromkeys(episode[taken]))
    left = list(episode[taken])
    for first in range(0, len(begun), at_once):
        pool = begun[first : first + at_once]
        count = sum(lengths[one] for one in pool)
        assert set(left[:count]) == set(pool)
        left = left[count:]


def test_all_episodes_at_once_are_the_order_without_any() -> None:
    episode = np.repeat(np.arange(4), 5)

    assert np.array_equal(Order(3, 7, 20, episode).of(1)[0], Order(3, 7, 20).of(1)[0])
    assert np.array_equal(Order(3, 7, 20, episode, 4).of(1)[0], Order(3, 7, 20).of(1)[0])


@given(LENGTHS, st.integers(1, 6), st.integers(1, 7), st.integers(0, 99))
def test_so_many_frames_of_each_of_a_few_episodes_are_taken_before_other_episodes(
    lengths: list[int], at_once: int, frames: int, seed: int
) -> None:
    episode, total = np.repeat(np.arange(len(lengths)), lengths), sum(lengths)

    taken, _ = Order(seed, total, total, episode, at_once, frames).of(0)

    assert sorted(taken) == list(range(total))
    left, rest = list(episode[taken]), dict(enumerate(lengths))
    begun = [
        list(dict.fromkeys(left[: sum(min(frames, n) for n in lengths)]))[k : k + at_once]
        for k in range(0, len(lengths), at_once)
    ]
    while left:
        for pool in begun:
            due = {one: min(frames, rest[one]) for one in pool}
            count = sum(due.values())
            assert {one: left[:count].count(one) for one in pool} == due
            left = left[count:]
            rest |= {one: rest[one] - due[one] for one in pool}


def test_with_as_many_frames_as_an_episode_has_nothing_is_turned() -> None:
    episode = np.repeat(np.arange(4), 5)

    whole, _ = Order(3, 20, 20, episode, 2).of(0)

    assert np.array_equal(whole, Order(3, 20, 20, episode, 2, 5).of(0)[0])
    assert not np.array_equal(whole, Order(3, 20, 20, episode, 2, 4).of(0)[0])


# ---------------------------------------------------------------- frames that go together


@given(LENGTHS, st.data())
def test_a_later_frame_lies_in_the_same_episode_as_far_on_as_that_goes(
    lengths: list[int], data: Any
) -> None:
    samples = recorded(lengths)
    index = np.array(data.draw(st.lists(st.integers(0, sum(lengths) - 1), min_size=1)))
    steps = np.array(data.draw(st.lists(st.integers(0, 12), min_size=1)))
    steps = np.resize(steps, len(index))

    later, inside = samples.later(index, steps), samples.inside(index, steps)

    assert np.array_equal(samples.episode[later], samples.episode[index])
    assert np.array_equal(later[inside] - index[inside], steps[inside])
    assert np.array_equal(later[~inside], samples.last[index[~inside]])
    assert np.array_equal(inside, index + steps <= samples.last[index])


def test_frames_in_a_row_are_asked_for_in_any_shape() -> None:
    samples, steps = recorded([5, 5]), np.arange(4).reshape(1, 2, 2)

    assert samples.later(np.array([3]), steps).tolist() == [[[3, 4], [4, 4]]]
    assert samples.inside(np.array([3]), steps).tolist() == [[[True, True], [False, False]]]


@given(LENGTHS, st.integers(2, 5), st.integers(1, 3))
def test_a_clip_lies_in_its_frames_episode_and_holds_the_frame_if_it_fits(
    lengths: list[int], frames: int, steps: int
) -> None:
    samples = recorded(lengths)
    index = np.arange(sum(lengths))

    start = samples.clip(index, frames, steps)

    assert np.array_equal(samples.episode[start], samples.episode[index])
    assert (start <= index).all()
    span = (frames - 1) * steps
    long = samples.last[index] - (index - samples.step[index]) >= span
    assert (start + span <= samples.last[index])[long].all()
    assert (samples.step[start] == 0)[~long].all()
    assert (index <= start + span)[long].all()


@given(LENGTHS, st.integers(2, 5), st.integers(1, 3))
def test_each_of_an_episodes_clips_is_begun_as_often(
    lengths: list[int], frames: int, steps: int
) -> None:
    samples = recorded(lengths)

    start = samples.clip(np.arange(sum(lengths)), frames, steps)

    for episode, length in enumerate(lengths):
        clips = max(length - (frames - 1) * steps, 1)
        often = np.bincount(samples.step[start[samples.episode == episode]], minlength=clips)
        assert len(often) == clips
        assert often.max() - often.min() <= 1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(0, 2**32))
def test_moments_are_a_start_three_in_order_and_a_goal(lengths: list[int], seed: int) -> None:
    samples = recorded(lengths)
    index = np.arange(sum(lengths))
    drawn = np.random.default_rng(seed).random((len(index), 5))

    moments = samples.moments(index, drawn)

    first = index - samples.step[index]
    length = samples.last[index] + 1 - first
    assert np.array_equal(
        samples.episode[moments], np.repeat(samples.episode[index][:, None], 5, axis=1)
    )
    fifth = np.maximum(length // 5, 1)
    assert (moments[:, 0] - first < fifth).all()
    assert (samples.last[index] - moments[:, 4] < fifth).all()
    order = np.diff(moments[:, 1:4], axis=1)
    assert (order >= 0).all()
    assert (order[length >= 3] > 0).all()


# ---------------------------------------------------------------- numbers


def test_numbers_are_those_of_the_frames_in_any_shape() -> None:
    samples, at = recorded([9]), np.array([[2, 3], [7, 8]])

    assert samples.numbers("action", at).tolist() == [[[2, -2], [3, -3]], [[7, -7], [8, -8]]]
    assert samples.numbers("observation.state", at[:, 0]).tolist() == [[2.5], [7.5]]


def test_a_feature_of_one_number_keeps_its_dimension() -> None:
    assert recorded([5]).numbers("gripper", np.array([1, 2])).tolist() == [[1], [2]]


def test_without_a_name_there_are_no_numbers() -> None:
    assert recorded([5]).numbers(None, np.zeros((2, 3), np.int64)).shape == (2, 3, 0)


# ---------------------------------------------------------------- planes


def test_frames_that_nothing_resized_lie_on_their_plane_as_they_are() -> None:
    middle, pixel = recorded([5]).plane(512, 8)

    assert middle.tolist() == [256, 4]
    assert pixel.tolist() == [256, 4]


def test_resized_frames_lie_on_the_plane_of_what_was_recorded(
    tiny_data: Path, tmp_path: Path
) -> None:
    cut = ImagePreprocessing(size=8, resize_mode="center_crop", resize_to=11)
    samples = Samples.open(tiny_data / "train", CAMERA, cut, tmp_path)

    middle, pixel = samples.plane(11, 22)

    # Of eleven pixels the first is cut off, and the last two.
    assert middle == pytest.approx([5, 10])
    assert pixel == pytest.approx([1, 2])


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
