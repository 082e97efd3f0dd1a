"""A data set as training draws from it: frames, actions, states and words by index, in memory.

Which samples a step takes is a pure function of (seed, step), so that a resumed run
sees what the uninterrupted one would have seen.

Letters: N frames of the data set, B batch, S the model's side, T action steps, A numbers
in an action, P numbers in a state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tectum_core.preprocess import ImagePreprocessing, resize
from tectum_train.data.cache import FrameCache
from tectum_train.data.errors import DataError
from tectum_train.data.lerobot import LeRobotDataset

__all__ = ["RawBatch", "Samples", "order_of"]


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Samples as they were recorded."""

    index: NDArray[np.int64]
    """[B], frame in the data set."""
    earlier: NDArray[np.uint8]
    """[B, S, S, 3]."""
    later: NDArray[np.uint8]
    """[B, S, S, 3], some steps on; the episode's last frame where it ends before."""
    gap: NDArray[np.int64]
    """[B], steps between them that there really were; 0: the episode had ended."""
    instruction: NDArray[np.int64]
    """[B], index into `Samples.instructions`; one of the task's, drawn anew."""
    task: NDArray[np.int64]
    """[B], equal where the task is."""
    actions: NDArray[np.float32]
    """[B, T, A], from this frame on; the last one repeated where the episode ends; A is 0 without
    actions."""
    padded: NDArray[np.bool_]
    """[B, T], True where the episode had ended."""
    state: NDArray[np.float32]
    """[B, P]; P is 0 without states."""


class Samples:
    """One data set, ready to be drawn from."""

    def __init__(self, dataset: LeRobotDataset, frames: NDArray[np.uint8]) -> None:
        self.dataset = dataset
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
    ) -> Samples:
        """Open a LeRobot folder; its frames are decoded and resized once, and cached.

        Raises:
            DataError: the folder is not as it should be.
        """
        dataset = LeRobotDataset(root)
        if not dataset.episodes:
            raise DataError(f"{root} holds no episodes")

        def to_size(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
            resized = resize(torch.from_numpy(pictures), images).permute(0, 2, 3, 1)
            return np.ascontiguousarray(resized.numpy())

        shape = images.model_dump_json(exclude={"mean", "standard_deviation"})
        frames = FrameCache.open(
            dataset, camera, to_size, resize_identity=shape, folder=cache, progress=progress
        ).frames
        return cls(dataset, frames)

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

    def take(
        self,
        index: NDArray[np.int64],
        gap: NDArray[np.int64],
        instruction: NDArray[np.int64],
        task: NDArray[np.int64],
        action: str | None,
        action_steps: int,
        state: str | None,
    ) -> RawBatch:
        """Samples at frames `index`, each paired with the frame `gap` steps on."""
        last = self.last[index]
        later = np.minimum(index + gap, last)
        steps = index[:, None] + np.arange(action_steps)
        return RawBatch(
            index=index,
            earlier=self.frames[index],
            later=self.frames[later],
            gap=np.where(index + gap <= last, gap, 0),
            instruction=instruction,
            task=task,
            actions=self._numbers(action, np.minimum(steps, last[:, None])),
            padded=steps > last[:, None],
            state=self._numbers(state, index),
        )

    def _numbers(self, name: str | None, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """A feature at frames of any shape, [*index.shape, n]; n is 0 without a name."""
        if name is None:
            return np.zeros((*index.shape, 0), np.float32)
        # A feature of one number has no dimension of its own in the data set.
        return self.column(name)[index].astype(np.float32).reshape(*index.shape, -1)


def order_of(seed: int, step: int, batch_size: int, total: int) -> NDArray[np.int64]:
    """Which samples step `step` takes: int64[batch_size].

    Every epoch is its own shuffle of all samples; a batch may reach into the next one.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    taken = np.empty(batch_size, np.int64)
    for epoch in np.unique(positions // total):
        inside = positions // total == epoch
        shuffled = np.random.default_rng([seed, int(epoch)]).permutation(total)
        taken[inside] = shuffled[positions[inside] % total]
    return taken
