"""A frozen clip trunk's probes: which clips are asked, and what tells their task."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.training.evaluation.scene import FPS, context, recorded

from tectum_train.data.samples import Samples
from tectum_train.evaluation.measuring.context import NothingToMeasure
from tectum_train.evaluation.trunk.clip_features import measure_clip_features

FRAMES, APART, LENGTH = 4, 2, 20
FAMILIES, EPISODES = 3, 4


class Watcher:
    """Reads off a clip which way its dot goes; in its tokens' mean alone, as they stray from it."""

    def __init__(self, sees: bool = True) -> None:
        self.sees = sees
        self.clips: list[NDArray[np.uint8]] = []
        video = SimpleNamespace(frames=FRAMES, frame_interval=APART / FPS)
        self.config = SimpleNamespace(model=SimpleNamespace(video=video))

    def embed_clips(self, clips: Sequence[NDArray[np.uint8]], vector: str) -> NDArray[np.float32]:
        assert vector == "tokens"
        self.clips += clips
        change = [float(one[-1, 0, 0, 0]) - float(one[0, 0, 0, 0]) for one in clips]
        tokens = np.zeros((len(clips), 2, 2), np.float32)
        said = np.array([[np.sign(one), 1.0] if self.sees else [0.0, 1.0] for one in change])
        stray = np.array([[one[0, 0, 0, 0] % 7 - 3.0, 0.0] for one in clips])
        tokens[:, 0], tokens[:, 1] = said + stray, said - stray
        return tokens


def scene(seed: int) -> Samples:
    """Dots that darken, stay, or brighten over an episode, from any level on; the family tells."""
    draw = np.random.default_rng(seed)
    family = draw.permutation(np.repeat(np.arange(FAMILIES), EPISODES)).repeat(LENGTH)
    first = draw.integers(80, 170, FAMILIES * EPISODES).repeat(LENGTH)
    step = np.tile(np.arange(LENGTH), FAMILIES * EPISODES)
    frames = np.zeros((len(family), 2, 2, 3), np.uint8)
    frames[:, 0, 0, 0] = first + (family - 1) * step
    frames[:, 1, 1, 0] = step
    return recorded([LENGTH] * FAMILIES * EPISODES, {"task_family": family}, frames)


def measured(watcher: Watcher, train: Samples, test: Samples) -> dict[str, Any]:
    given = context(train, test, predictor=watcher, twin=Watcher(sees=False))
    return {
        one.name.removeprefix("frozen clip trunk → "): one for one in measure_clip_features(given)
    }


def test_what_clips_alone_show_is_told_by_a_trunk_that_watches_them() -> None:
    found = measured(Watcher(), scene(1), scene(2))

    assert list(found) == ["task, neighbours", "task, linear probe", "task from 10% of the labels"]
    for one in found.values():
        assert one.value == 1
        assert one.controls["random init"] == pytest.approx(1 / 3)
        assert one.controls["majority class"] == pytest.approx(1 / 3)
        assert one.passed is None
        assert one.gate == ""
    # Which way it goes is the difference of both ends.
    assert found["task, linear probe"].controls["PCA-256 of its ends"] > 0.9


def test_random_weights_tell_what_their_draws_tell_in_the_mean() -> None:
    twins = Watcher(sees=False), Watcher()

    found = measure_clip_features(context(scene(1), scene(2), predictor=Watcher(), twins=twins))

    for one in found:
        assert one.controls["random init"] == pytest.approx((1 / 3 + 1) / 2)


def test_clips_have_the_trunks_interval_and_end_in_the_second_half_of_their_episode() -> None:
    watcher = Watcher()

    found = measured(watcher, scene(1), scene(2))

    assert found["task, neighbours"].on == "120 clips of 12 episodes"
    for clip in watcher.clips:
        steps = clip[:, 1, 1, 0].tolist()
        assert np.diff(steps).tolist() == [APART] * (FRAMES - 1)
        assert steps[-1] >= LENGTH / 2


def test_too_short_episodes_are_not_measured() -> None:
    short = recorded([6, 6], {"task_family": np.repeat([0, 1], 6)})

    with pytest.raises(NothingToMeasure, match="goes on for 6 steps"):
        measured(Watcher(), short, short)


def test_one_task_alone_is_not_told_from_any() -> None:
    alone = recorded([LENGTH] * 2, {"task_family": np.zeros(2 * LENGTH, np.int64)})

    with pytest.raises(NothingToMeasure, match="all is of one task"):
        measured(Watcher(), alone, alone)
