"""A data set as training draws from it: frames, actions, states and words by index, in memory.

Which samples a step takes is a pure function of (seed, step), so that a resumed run
sees what the uninterrupted one would have seen.

Letters: N frames of the data set, B batch, S the model's side, P numbers in a state.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tectum_core.preprocess import ImagePreprocessing, resize, resized_intrinsics
from tectum_train.data.cache import FrameCache
from tectum_train.data.errors import DataError
from tectum_train.data.lerobot import LeRobotDataset

__all__ = ["Order", "Samples"]

_INTRINSICS = 4


class Samples:
    """One data set, ready to be drawn from.

    Args:
        dataset: the recorded one.
        frames: uint8[N, S, S, 3].
        camera: feature of the pictures that became `frames`.
        images: how they did; None: they are `frames`.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        frames: NDArray[np.uint8],
        camera: str = "",
        images: ImagePreprocessing | None = None,
    ) -> None:
        self.dataset = dataset
        self._camera, self._images = camera, images
        self.frames = frames
        self.instructions: list[str] = list(dataset.tasks)
        episodes = dataset.episodes
        self.episode = np.concatenate(
            [np.full(episode.length, number) for number, episode in enumerate(episodes)]
        )
        """int64[N], the episode's place in `dataset.episodes`."""
        self.last = np.concatenate(
            [np.full(e.length, e.dataset_to_index - 1, np.int64) for e in episodes]
        )
        """int64[N], the last frame of the same episode."""
        self.step = np.concatenate([np.arange(episode.length) for episode in episodes])
        """int64[N], steps since the episode began."""
        self.progress = np.concatenate(
            [np.linspace(0, 1, episode.length, dtype=np.float32) for episode in episodes]
        )
        """float32[N], how much of the episode has gone by: 0 at its first frame, 1 at its last."""
        self._columns: dict[str, NDArray[np.generic]] = {}

    @classmethod
    def open(
        cls,
        root: Path,
        camera: str,
        images: ImagePreprocessing,
        cache: Path,
        progress: Callable[[int, int], None] | None = None,
        check: Callable[[LeRobotDataset], None] = lambda _: None,
    ) -> Samples:
        """Open a LeRobot folder; its frames are decoded and resized once, and cached.

        Args:
            root: the folder.
            camera: feature that holds the pictures.
            images: how they become the model's.
            cache: where decoded frames lie.
            progress: told how many frames of how many are decoded.
            check: looks at what is recorded before hours may go into decoding it.

        Raises:
            DataError: the folder is not as it should be.
        """
        dataset = LeRobotDataset(root)
        if not dataset.episodes:
            raise DataError(f"{root} holds no episodes")
        check(dataset)

        def to_size(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
            resized = resize(torch.from_numpy(pictures), images).permute(0, 2, 3, 1)
            return np.ascontiguousarray(resized.numpy())

        shape = images.model_dump_json(exclude={"mean", "standard_deviation"})
        frames = FrameCache.open(
            dataset, camera, to_size, resize_identity=shape, folder=cache, progress=progress
        ).frames
        return cls(dataset, frames, camera, images)

    def __len__(self) -> int:
        return len(self.frames)

    def has(self, name: str) -> bool:
        """Whether there is a feature of that name, other than pictures."""
        if not self._columns:
            parts = [
                self.dataset.read_columns(e.index, pictures=False) for e in self.dataset.episodes
            ]
            self._columns = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
        return name in self._columns

    def column(self, name: str) -> NDArray[np.generic]:
        """A feature of every frame, [N, …].

        Raises:
            DataError: no such feature; names those there are.
        """
        if not self.has(name):
            known = ", ".join(sorted(self._columns))
            raise DataError(f"the data set has no feature {name!r}; it has: {known}")
        return self._columns[name]

    def tasks(self, feature: str | None) -> NDArray[np.int64]:
        """int64[N], each frame's task: a feature's value, or else its sentence."""
        return self.column(feature or "task_index").astype(np.int64)

    def paraphrases(self, feature: str | None) -> dict[int, NDArray[np.int64]]:
        """Which instructions each task has in this data set."""
        tasks, sentences = self.tasks(feature), self.column("task_index").astype(np.int64)
        return {int(task): np.unique(sentences[tasks == task]) for task in np.unique(tasks)}

    def later(self, index: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Frames so many steps on, shaped as `steps`; the episode's last at most.

        Args:
            index: [B], frames.
            steps: [B, …].
        """
        return np.minimum(_beside(index, steps) + steps, _beside(self.last[index], steps))

    def inside(self, index: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the episode went on for so many steps, shaped as `steps`."""
        return _beside(index, steps) + steps <= _beside(self.last[index], steps)

    def clip(self, index: NDArray[np.int64], frames: int, steps: int) -> NDArray[np.int64]:
        """Where a clip about each frame begins: there, or earlier, so that it fits the episode.

        The frame is as far along the clip as it is along the episode, so that the episode's frames
        give each of its clips as often, and not its last one whenever they are near its end.

        Args:
            index: [B], frames.
            frames: of the clip.
            steps: between two of them.

        Returns:
            [B]; an episode shorter than the clip gives its own first frame.
        """
        step = self.step[index]
        first = index - step
        length = self.last[index] + 1 - first
        starts = np.maximum(length - (frames - 1) * steps, 1)
        return first + step * starts // length

    def moments(self, index: NDArray[np.int64], drawn: NDArray[np.float64]) -> NDArray[np.int64]:
        """Five frames of each frame's episode, as R3M takes them.

        Args:
            index: [B], frames.
            drawn: [B, 5], in [0, 1).

        Returns:
            [B, 5]: one of the first fifth, three in order (apart from each other where the episode
            has that many), one of the last fifth.

        Source: R3M (arXiv:2203.12601).
        """
        first = (index - self.step[index])[:, None]
        length = self.last[index][:, None] + 1 - first
        fifth = np.maximum(length // 5, 1)
        start = (drawn[:, :1] * fifth).astype(np.int64)
        goal = length - 1 - (drawn[:, 1:2] * fifth).astype(np.int64)
        room = np.maximum(length - 2, 1)
        middle = np.sort((drawn[:, 2:] * room).astype(np.int64), axis=1) + np.arange(3)
        middle = np.minimum(middle, length - 1)
        return first + np.concatenate([start, middle, goal], axis=1)

    def numbers(self, name: str | None, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """A feature at frames of any shape, [*index.shape, n]; n is 0 without a name."""
        if name is None:
            return np.zeros((*index.shape, 0), np.float32)
        # A feature of one number has no dimension of its own in the data set.
        return self.column(name)[index].astype(np.float32).reshape(*index.shape, -1)

    def intrinsics(self, name: str, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """The camera's (fx, fy, cx, cy) at frames of any shape, in pixels of `frames`.

        Args:
            name: the feature that has them in pixels of the recorded pictures.
            index: frames.

        Returns:
            [*index.shape, 4].

        Raises:
            DataError: no such feature, or one of other numbers.
        """
        recorded = self.numbers(name, index)
        if recorded.shape[-1] != _INTRINSICS:
            raise DataError(
                f"{self.dataset.root}: {name} has {recorded.shape[-1]} numbers; wanted are "
                "the camera's four: fx, fy, cx, cy"
            )
        if self._images is None:
            return recorded
        height, width = self._recorded_size
        resized = resized_intrinsics(torch.from_numpy(recorded), height, width, self._images)
        return resized.numpy()

    def plane(self, width: float, height: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How `frames` lie on a plane that a recorded picture fills, edge to edge.

        Args:
            width, height: of the plane, in its own units; its (0, 0) is the upper left corner.

        Returns:
            Where the middle of `frames` is in these units, and how large one of their pixels is:
            [2] each, along x and y.
        """
        rows, columns = self._recorded_size
        # A pinhole sees a plane at distance 1 so: pixel = focal length · place + centre.
        seen = torch.tensor([columns / width, rows / height, -0.5, -0.5], dtype=torch.float64)
        if self._images is not None:
            seen = resized_intrinsics(seen, rows, columns, self._images)
        focal, centre = seen.numpy()[:2], seen.numpy()[2:]
        return ((self.frames.shape[1] - 1) / 2 - centre) / focal, 1 / focal

    @property
    def _recorded_size(self) -> tuple[int, int]:
        """Height and width of the pictures that became `frames`."""
        if self._images is None:
            return self.frames.shape[1], self.frames.shape[2]
        return self.dataset.info.features[self._camera].picture_size


class Order:
    """Which samples each step takes: a pure function of the step, whose last epochs are remembered.

    Every epoch is its own shuffle of all samples; a batch may reach into the next one.

    Args:
        seed: of the run.
        batch_size: of all ranks.
        total: N, how many samples there are.
        episode: int64[N], which one each is of, from 0 on.
        at_once: of how many episodes samples come until all of theirs have; 0: of all.
        frames: of each of these, how many before those of other episodes come; 0: all.
    """

    def __init__(
        self,
        seed: int,
        batch_size: int,
        total: int,
        episode: NDArray[np.int64] | None = None,
        at_once: int = 0,
        frames: int = 0,
    ) -> None:
        self._seed, self._batch_size, self._total = seed, batch_size, total
        self._episode, self._at_once, self._frames = episode, at_once, frames
        self._shuffles: dict[int, NDArray[np.int64]] = {}

    def of(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples of a step, from 0, and in which epoch: int64[batch_size] each."""
        size = self._batch_size
        positions = np.arange(step * size, (step + 1) * size)
        epochs = positions // self._total
        taken = np.empty(size, np.int64)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            taken[inside] = self._shuffled(int(epoch))[positions[inside] % self._total]
        return taken, epochs

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        """int64[N], all samples in the order of an epoch."""
        known = self._shuffles.get(epoch)
        if known is not None:
            return known
        generator = np.random.default_rng([self._seed, epoch])
        shuffled = generator.permutation(self._total)
        if self._at_once and self._episode is not None:
            group = generator.permutation(int(self._episode.max()) + 1) // self._at_once
            episode = self._episode[shuffled]
            turn = _place_among_alike(episode) // (self._frames or self._total)
            shuffled = shuffled[np.lexsort((group[episode], turn))]
        # This one and the one before: a batch may lie in both.
        self._shuffles = {**dict(list(self._shuffles.items())[-1:]), epoch: shuffled}
        return shuffled


def _place_among_alike(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the same value come before each: [N]."""
    alike = values.argsort(kind="stable")
    count = np.unique(values, return_counts=True)[1]
    place = np.empty_like(values)
    place[alike] = np.arange(len(values)) - np.repeat(count.cumsum() - count, count)
    return place


def _beside(values: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """[B] so that it broadcasts against [B, …]."""
    return values.reshape(len(values), *(1,) * (steps.ndim - 1))
