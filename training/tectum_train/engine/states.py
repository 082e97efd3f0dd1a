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
from tectum_train.engine.following import Following

__all__ = ["CAMERA_NAMES", "StateFeatures"]

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
        following: Following | None = None,
    ) -> Tensor:
        """States at frames, in the robot's units and in pixels of the model's input.

        Args:
            samples: where they are recorded.
            at: [B, …].
            placement: where the B samples' pixels went; None: nowhere.
            following: how the robot's own numbers go with them; None: not at all.

        Returns:
            float32[B, …, P], or [B, …, P + 4] with the camera.
        """
        robot = torch.from_numpy(samples.numbers(self.robot, at))
        if placement is not None and following is not None:
            robot = following.moved(robot, placement)
        if self.intrinsics is None:
            return robot
        camera = torch.from_numpy(samples.intrinsics(self.intrinsics, at))
        if placement is not None:
            camera = placement.intrinsics(camera)
        return torch.cat([robot, camera], dim=-1)
