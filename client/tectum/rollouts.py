"""What rollouts answer: for each candidate what would be seen, and how far that is from a goal.

As in `results`, arrays are read-only views of the message, and a reader raises ValueError where the
worker's answer contradicts itself.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tectum.images import pixels
from tectum.results import Batch, Embedding, embedding, items, response_info
from tectum.tensors import from_wire
from tectum.v1 import rollout_pb2

# K candidates, F frames, N latents of a frame, D dimensions


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """What would be seen if one candidate were done."""

    latents: Embedding | None
    """[F, D], or [F, N, D], in the space of kind `world_latent`. None: not asked for."""
    goal_distances: NDArray[np.float32] | None
    """float32[F]: how far each predicted frame is from the goal, mean squared difference of their
    latents; 0 is the goal. What is far depends on the model, and distances of one compare with each
    other alone: the embedded model's trunk (latents 4×4) has 1.31 between first frames of different
    test episodes, 0.55 between an episode's first and last. None: there is no goal."""
    frames: NDArray[np.uint8] | None
    """uint8[F, H, W, 3], the predicted frames as the model paints them. None: not asked for."""


class RolloutBatch(Batch[Rollout]):
    """One rollout for each candidate."""

    @cached_property
    def goal_distances(self) -> NDArray[np.float32]:
        """All distances: float32[K, F].

        Raises:
            ItemFailed: some candidates have no rollout.
            ValueError: there is no goal.
        """
        found = [rollout.goal_distances for rollout in self.answers()]
        known = [distances for distances in found if distances is not None]
        if len(known) < len(found):
            raise ValueError("without a goal there are no distances")
        return np.stack(known)


def rollout_batch(message: rollout_pb2.RolloutResponse) -> RolloutBatch:
    """Read what would be seen."""
    found = items(message.results, "rollout", lambda result: _rollout(result.rollout))
    return RolloutBatch(found, response_info(message.info))


def _rollout(message: rollout_pb2.Rollout) -> Rollout:
    has = message.HasField
    return Rollout(
        latents=embedding(message.latents) if has("latents") else None,
        goal_distances=from_wire(message.goal_distances) if has("goal_distances") else None,
        frames=np.stack([pixels(frame) for frame in message.frames]) if message.frames else None,
    )
