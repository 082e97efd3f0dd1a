"""What a model reads as its robot's state: the robot's own numbers, and behind them the camera's.

Told once, for training, which moves them as it moves the pixels, and for evaluation, which takes
both as they are.

Letters: B samples, n numbers, P of a state that are the robot's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_train.augment import Placement
from tectum_train.data.samples import Samples

__all__ = ["CAMERA_NAMES", "StateFeatures", "mirrored_numbers"]

CAMERA_NAMES = ("camera_fx", "camera_fy", "camera_cx", "camera_cy")
"""Of what a camera's intrinsics add to the state; a bundle whose state ends with them reads one."""


@dataclass(frozen=True, slots=True)
class StateFeatures:
    """Features of a data set that make up the state, in its order."""

    robot: str | None
    """The robot's own numbers; None: there are none."""
    intrinsics: str | None = None
    """The camera's (fx, fy, cx, cy), in pixels of the recorded pictures; None: it is not read."""

    @classmethod
    def of_bundle(cls, names: Sequence[str], robot: str, intrinsics: str) -> Self:
        """What a bundle's state is made of.

        Args:
            names: the bundle's `state_names`.
            robot, intrinsics: what the data set calls its features.
        """
        camera = tuple(names[-len(CAMERA_NAMES) :]) == CAMERA_NAMES
        own = len(names) - (len(CAMERA_NAMES) if camera else 0)
        return cls(robot if own else None, intrinsics if camera else None)

    @property
    def features(self) -> tuple[str, ...]:
        """Those that are read."""
        return tuple(name for name in (self.robot, self.intrinsics) if name is not None)

    def widths(self, dimensions: int) -> dict[str, int]:
        """How many numbers each of them has in a state of so many."""
        camera = 0 if self.intrinsics is None else len(CAMERA_NAMES)
        wanted = {self.robot: dimensions - camera, self.intrinsics: camera}
        return {name: width for name, width in wanted.items() if name is not None}

    def read(
        self,
        samples: Samples,
        at: NDArray[np.int64],
        placement: Placement | None = None,
        mirrored: tuple[int, ...] | None = None,
    ) -> Tensor:
        """States at frames, in the robot's units and in pixels of the model's input.

        Args:
            samples: where they are recorded.
            at: [B, …].
            placement: where the B samples' pixels went; None: nowhere.
            mirrored: numbers of the robot that change their sign with left and right.

        Returns:
            float32[B, …, P], or [B, …, P + 4] with the camera.
        """
        robot = torch.from_numpy(samples.numbers(self.robot, at))
        if placement is not None:
            robot = mirrored_numbers(robot, placement.flipped, mirrored)
        if self.intrinsics is None:
            return robot
        camera = torch.from_numpy(samples.intrinsics(self.intrinsics, at))
        if placement is not None:
            camera = placement.intrinsics(camera)
        return torch.cat([robot, camera], dim=-1)


def mirrored_numbers(values: Tensor, flipped: Tensor, places: tuple[int, ...] | None) -> Tensor:
    """float[B, …, n] with these of the n numbers negated where bool[B] says so."""
    if not places:
        return values
    sign = torch.ones(len(values), values.shape[-1], dtype=values.dtype)
    sign[:, list(places)] = torch.where(flipped, -1.0, 1.0).to(values.dtype)[:, None]
    return values * sign.view(len(values), *(1,) * (values.dim() - 2), -1)
