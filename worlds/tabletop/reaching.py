"""Reaching: the hand is somewhere, shall be somewhere else, and is seen on its way there.

The task that planners are measured on. Scene, camera and colours are an episode's of the test
split, so neither place nor look was ever trained on; start and goal are places where hands start.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tabletop.families import FAMILIES, index_of
from tabletop.layouts import draw_layout
from tabletop.nuisances import Nuisances, Point, draw_nuisances, draw_start
from tabletop.plan import EpisodeKey
from tabletop.simulator import laid_out
from tabletop.stage import Stage

LEAST_DISTANCE = 0.10
"""From start to goal, metres."""
_DRAWS = 100


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen, and what only the judge knows."""

    frame: NDArray[np.uint8]
    """uint8[S, S, 3], RGB."""
    offset: tuple[float, float, float]
    """From the hand to its goal, metres, world frame."""


class Reaching:
    """Reaching in one family's scene.

    Args:
        task: whose scene.
        size: S, pixels.
    """

    def __init__(self, task: str, size: int) -> None:
        self._index = index_of(task)
        self._family = FAMILIES[self._index]
        self._stage = Stage(self._family, size)

    def begin(self, seed: int, number: int) -> tuple[Seen, NDArray[np.uint8]]:
        """Set an episode up: a pure function of its seed and number.

        Returns:
            What is seen, and the picture of the goal, uint8[S, S, 3].

        Raises:
            RuntimeError: no goal lies far enough from the start.
        """
        key = EpisodeKey(seed, "test", self._index, number)
        layout = draw_layout(self._family, key, 0)
        self._nuisances: Nuisances = draw_nuisances(key)
        start, goal = places(key)
        there = laid_out(self._family, layout, goal)
        reached, _ = there.reset()
        self._environment = laid_out(self._family, layout, start)
        observation, _ = self._environment.reset()
        self._goal = reached[:3].copy()
        model = self._environment.model
        self._stage.set(model.body_pos, model.body_quat, self._nuisances)
        picture = self._stage.picture(there.data.qpos, self._nuisances)
        return self._seen(observation), picture

    def act(self, actions: NDArray[np.float32]) -> Seen:
        """Carry out actions float32[T, 4], as the data set has them, and look."""
        for action in actions:
            observation, *_ = self._environment.step(np.clip(action, -1, 1))
        return self._seen(observation)

    def _seen(self, observation: NDArray[np.float64]) -> Seen:
        across, along, up = (self._goal - observation[:3]).tolist()
        frame = self._stage.picture(self._environment.data.qpos, self._nuisances)
        return Seen(frame, (across, along, up))


def places(key: EpisodeKey) -> tuple[Point, Point]:
    """Where the hand starts, and the first other place drawn that is far enough away.

    Raises:
        RuntimeError: there is none.
    """
    start = draw_start(key, 0)
    for attempt in range(1, _DRAWS):
        goal = draw_start(key, attempt)
        if np.linalg.norm(np.subtract(goal, start)) >= LEAST_DISTANCE:
            return start, goal
    raise RuntimeError(f"no goal lies {LEAST_DISTANCE} m from the start of {key}")
