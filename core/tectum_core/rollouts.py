"""Rollouts of a world model: from what was seen and what may be done to what would be seen.

What the predictor runs; arrays in, arrays out, and in between the robot's units and the model's.

Letters: B batch, T frames seen, F frames predicted, M vectors of a frame as the trunk
gives them, N latents made of them, D their width, k robot actions between two frames (1 for latent
ones), A numbers in one of them, X = k·A, S the model's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tectum_core.bundle import BundleConfig
from tectum_core.model import WorldModel
from tectum_core.outputs import Float32, Rollouts, as_rows
from tectum_core.preprocess import to_pixels

__all__ = ["RolloutRequest", "between_frames", "roll_out"]


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """What was seen, and what may be done."""

    history: Float32
    """float32[B, T, M, D] or [B, T, D], frames in a row, oldest first, as `embed_images` gives them
    under the name of `world_model.latents`."""
    frames: int
    """F."""
    past: Float32 | None = None
    """What was done between the history's frames: float32[B, (T − 1)·k, A], in the robot's units if
    actions are real. None: there are none, or T is 1."""
    actions: Float32 | None = None
    """What will be done: float32[B, F·k, A]. None: there are none."""
    goals: Float32 | None = None
    """float32[B, M, D] or [B, D], as the history; None: no distances."""
    decode_frames: bool = False
    """Paint the predicted frames too."""


def roll_out(
    world: WorldModel, config: BundleConfig, asked: RolloutRequest, device: torch.device
) -> Rollouts:
    """Predict what follows.

    Args:
        world: the model.
        config: of its bundle.
        asked: from what.
        device: where the model is.

    Raises:
        ValueError: shapes that do not fit each other or the model.
    """

    def on_device(values: Float32) -> Tensor:
        # A copy: torch takes no memory that it may not write, nor steps backwards.
        return torch.from_numpy(np.array(values, np.float32, order="C")).to(device)

    seen = _as_latents(world, on_device(asked.history))
    past, actions = (
        between_frames(world, config, None if given is None else on_device(given), count)
        for given, count in ((asked.past, seen.shape[1] - 1), (asked.actions, asked.frames))
    )
    latents = world.rollout(seen, past, actions, asked.frames)
    distances = painted = None
    if asked.goals is not None:
        goals = _as_latents(world, on_device(asked.goals[:, None]))
        distances = (latents - goals).square().mean(dim=(2, 3)).cpu().numpy()
    if asked.decode_frames:
        painted = world.decode(latents.flatten(0, 1)).float().unflatten(0, latents.shape[:2])
    pooled = world.config.latents == "pooled"
    return Rollouts(
        latents=(latents[:, :, 0] if pooled else latents).cpu().numpy(),
        distances=distances,
        frames=None if painted is None else as_rows(to_pixels(painted, config.images)),
        painted=painted,
    )


def between_frames(
    world: WorldModel, config: BundleConfig, given: Tensor | None, count: int
) -> Tensor | None:
    """Actions as the world model reads them, those of each interval side by side.

    Args:
        world: the model.
        config: of its bundle.
        given: float32[B, count·k, A], in the robot's units if they are real; None: there are none.
        count: intervals.

    Returns:
        float32[B, count, X], standardised.

    Raises:
        ValueError: as many as there should not be.
    """
    if given is None:
        if world.action_width and count:
            raise ValueError("this world model needs actions")
        return None
    each = world.config.action_steps or 1
    wanted = [count * each, world.action_width // each]
    if not world.action_width or list(given.shape[1:]) != wanted:
        raise ValueError(
            f"actions of shape {list(given.shape[1:])}; {count} intervals take {wanted}"
        )
    if world.config.actions == "real" and config.actions is not None:
        given = config.actions.standardise(given)
    return given.reshape(len(given), count, world.action_width)


def _as_latents(world: WorldModel, vectors: Tensor) -> Tensor:
    """The trunk's vectors float32[B, T, D] or [B, T, M, D] as float32[B, T, N, D]."""
    apart = vectors[:, :, None] if world.config.latents == "pooled" else vectors
    wanted = [world.trunk_grid**2, world.latent_width]
    if list(apart.shape[2:]) != wanted or not apart.shape[1]:
        raise ValueError(f"vectors of shape {list(vectors.shape)}; a frame has {wanted}")
    return world.latents(apart)
