"""What all measures share: the bundle's predictor, its random twin, the data, the world.

Vectors of many frames are computed in batches, once, through the predictor that serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tectum_core.bundle import Bundle
from tectum_core.model import PerceptionModel
from tectum_core.predictor import Predictor
from tectum_core.preprocess import normalise
from tectum_train.data.samples import Samples
from tectum_train.engine.states import StateFeatures
from tectum_train.world import World

__all__ = [
    "Columns",
    "Context",
    "NothingToMeasure",
    "in_batches",
    "model_input",
    "of_others",
    "random_twin",
    "random_twins",
    "second_half",
    "starts",
    "steps_between",
]

_INTERVAL_SHARE = 0.01
"""How far, as a share of it, two frames may be from a clip's interval."""

Frames = NDArray[np.uint8]
_BATCH = 128
_TWINS = 3


class NothingToMeasure(ValueError):
    """Data set or training had too little for a measure and its controls; says what is missing."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What the data set's features are called."""

    state: str = "observation.state"
    """The robot's state; its first three numbers are the hand's position, metres."""
    action: str = "action"
    """Actions."""
    family: str = "task_family"
    """The task family's index."""
    extrinsics: str = "camera.extrinsics"
    """The 4×4 world-to-camera matrix, row by row."""
    intrinsics: str = "camera.intrinsics"
    """The camera's fx, fy, cx, cy in pixels of its recorded pictures; for models that read them."""


@dataclass(frozen=True)
class Context:
    """One evaluation."""

    predictor: Predictor
    """The bundle under test."""
    twins: tuple[Predictor, ...]
    """The same architecture with random weights, drawn anew for each: one draw is luck."""
    train: Samples
    """Where probes are fitted."""
    test: Samples
    """Where everything is measured: episodes of layouts never trained on."""
    world: World
    """Families, pairs, held-out sentences; none of them if the data set names none."""
    columns: Columns
    """Where what is measured stands."""
    pair_steps: int
    """Steps between the frames of a pair."""
    shown: StateFeatures
    """What of the data the model reads as its state."""
    seed: int = 0
    """Of choices such as masks and shuffles."""

    def generator(self, stream: str) -> np.random.Generator:
        """The choices of one purpose: by another stream's name they are other ones.

        Each place that draws has a name of its own; what two draws have in common, one gives
        away of the other.
        """
        return _generator(self.seed, stream)

    def seed_of(self, stream: str) -> int:
        """A named stream's number, for what is seeded by one, such as torch's generators."""
        return int(self.generator(stream).integers(2**63))

    def families(self, samples: Samples) -> NDArray[np.int64]:
        """[N], each frame's task family; its sentence, if the data set names no families."""
        family = self.columns.family
        return samples.tasks(family if samples.has(family) else None)

    def states(self, samples: Samples) -> NDArray[np.float64]:
        """[N, P], where the robot is in each frame, whatever the model reads of it."""
        return samples.column(self.columns.state).astype(np.float64).reshape(len(samples), -1)

    def actions(self, samples: Samples) -> NDArray[np.float32]:
        """[N, A], the action taken after each frame."""
        return samples.column(self.columns.action).astype(np.float32).reshape(len(samples), -1)

    @property
    def twin(self) -> Predictor:
        """The first of them, where one is enough."""
        return self.twins[0]

    @property
    def interval(self) -> float:
        """Seconds between the frames of a pair."""
        return self.pair_steps / self.test.dataset.info.fps

    def counted(self, index: NDArray[np.int64], what: str) -> str:
        """How many frames of the held-out data, of how many episodes, are or begin `what`."""
        return f"{len(index)} {what} of {len(np.unique(self.test.episode[index]))} episodes"


def starts(samples: Samples, steps: int) -> NDArray[np.int64]:
    """Frames after which the same episode has at least so many more.

    Raises:
        NothingToMeasure: there are none.
    """
    found = np.flatnonzero(np.arange(len(samples)) + steps <= samples.last)
    if not len(found):
        raise NothingToMeasure(f"no episode goes on for {steps} steps")
    return found


def steps_between(interval: float, fps: float) -> int:
    """Steps between two frames of a clip.

    Args:
        interval: seconds.
        fps: of the data set.

    Raises:
        NothingToMeasure: no number of steps is as long.
    """
    steps = max(1, round(interval * fps))
    if abs(steps / fps - interval) > _INTERVAL_SHARE * interval:
        raise NothingToMeasure(
            f"at {fps:g} frames a second none are {interval:g} s apart, as the model's clips are"
        )
    return steps


def second_half(samples: Samples) -> NDArray[np.int64]:
    """Frames of the second half of each episode, where its task has begun to show."""
    lengths = samples.step + (samples.last - np.arange(len(samples))) + 1
    return np.flatnonzero(samples.step * 2 >= lengths)


def model_input(predictor: Predictor, frames: Frames) -> torch.Tensor:
    """Frames uint8[n, S, S, 3] as the model sees them: float32[n, 3, S, S] on its device."""
    pixels = torch.from_numpy(frames).to(predictor.device).permute(0, 3, 1, 2)
    return normalise(pixels, predictor.config.images)


def in_batches(
    compute: Callable[[Sequence[Frames]], NDArray[np.float32]],
    frames: Frames,
    index: NDArray[np.int64],
) -> NDArray[np.float32]:
    """`compute` over frames uint8[N, S, S, 3] at int64[n], in batches; only those are read."""
    parts = [index[start : start + _BATCH] for start in range(0, len(index), _BATCH)]
    return np.concatenate([compute(list(frames[part])) for part in parts])


def of_others(groups: NDArray[np.int64], draw: np.random.Generator) -> NDArray[np.int64]:
    """For each sample, another one of a different group.

    Raises:
        NothingToMeasure: there is one group alone, and shuffled would be partly true.
    """
    names, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise NothingToMeasure("all is of one episode or task, with no other to shuffle with")
    rest = len(groups) - sizes
    which = np.array([draw.integers(rest[own]) for own in group])
    chosen = np.empty(len(groups), np.int64)
    for own in range(len(names)):
        rows = group == own
        chosen[rows] = np.flatnonzero(~rows)[which[rows]]
    return chosen


def random_twins(bundle: Bundle, seed: int, device: str = "cpu") -> tuple[Predictor, ...]:
    """The bundle with weights drawn anew, several times, the same on every device."""
    return tuple(random_twin(bundle, seed, device, number) for number in range(_TWINS))


def random_twin(bundle: Bundle, seed: int, device: str = "cpu", number: int = 0) -> Predictor:
    """One of them; the first without a number."""
    stream = f"random twin {number}" if number else "random twin"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(_generator(seed, stream).integers(2**63)))
        model = PerceptionModel(bundle.config.model).eval().requires_grad_(False)
    return Predictor(replace(bundle, model=model), device)


def _generator(seed: int, stream: str) -> np.random.Generator:
    return np.random.default_rng([seed, *stream.encode()])
