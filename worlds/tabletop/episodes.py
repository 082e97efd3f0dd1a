"""One episode from its key: try until the expert succeeds, then film it.

Runs in a worker process, which keeps one stage per family, for compiling a scene and opening a
graphics context takes as long as filming.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabletop.camera import extrinsics, intrinsics
from tabletop.families import FAMILIES
from tabletop.instructions import draw_instruction
from tabletop.nuisances import FIELD_OF_VIEW, draw_nuisances
from tabletop.plan import EpisodeKey
from tabletop.simulator import attempt_episode
from tabletop.stage import Stage

MAX_ATTEMPTS = 20
"""The weakest expert succeeds nine times in ten; more failures in a row than this are a fault."""


@dataclass(frozen=True, slots=True)
class Episode:
    """What the recorder needs, and how often the expert tried."""

    columns: dict[str, NDArray[Any]]
    """One array per feature of `world.features`, [T, …]."""
    instruction: str
    attempts: int


def make_episode(
    key: EpisodeKey, size: int, noise: float, wander: float = 0.0, held_out_look: bool = False
) -> Episode:
    """Make one episode.

    Args:
        key: which.
        size: side of the pictures, pixels.
        noise: standard deviation of the noise on the expert's displacement commands.
        wander: share of stretches in which the hand goes anywhere.
        held_out_look: surfaces have patterns that no usual episode has.

    Raises:
        RuntimeError: the expert never succeeded.
    """
    for attempt in range(MAX_ATTEMPTS):
        rollout = attempt_episode(key, attempt, noise, wander)
        if rollout is not None:
            break
    else:
        raise RuntimeError(f"the expert failed {MAX_ATTEMPTS} times at {key}")

    nuisances = draw_nuisances(key, held_out_look)
    length = len(rollout.states)
    matrix = extrinsics(nuisances.view).ravel().astype(np.float32)
    camera = intrinsics(size, FIELD_OF_VIEW).astype(np.float32)
    columns = {
        "observation.state": rollout.states,
        "action": rollout.actions,
        "next.success": rollout.successes,
        "camera.intrinsics": np.tile(camera, (length, 1)),
        "camera.extrinsics": np.tile(matrix, (length, 1)),
        "layout": np.full(length, rollout.layout.id),
        "task_family": np.full(length, key.family),
        "observation.images.front": _stage(key.family, size).film(rollout, nuisances),
    }
    return Episode(columns, draw_instruction(key), attempt + 1)


@cache
def _stage(family: int, size: int) -> Stage:
    return Stage(FAMILIES[family], size)
