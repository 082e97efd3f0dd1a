"""Wandering: stretches of an episode in which the hand goes anywhere, whatever the task asks for.

What an expert does follows from what it sees, so its episodes never show what another action would
have led to. A model that shall answer that needs episodes in which actions were drawn.
"""

import numpy as np
from numpy.typing import NDArray

from tabletop.plan import EpisodeKey, generator

# T control steps

STRETCH = 10
"""Control steps that a drawn displacement lasts, or the expert is left alone."""
WANDERING_STEPS = 60
"""An episode with wandering ends then, or after its success: it need not succeed."""


def draw_wandering(
    key: EpisodeKey, attempt: int, share: float, steps: int
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """When the hand wanders, and where to.

    Args:
        key: which episode.
        attempt: which try.
        share: of all stretches, how many on average.
        steps: T.

    Returns:
        bool[T], whether it wanders, and float32[T, 3], each axis's displacement if it does: even
        over [−r, r], where r is 1 in half of all stretches and even over [0, 1] in the others, so
        that slow ones are shown too.
    """
    random = generator(key, attempt, "wander")
    stretches = -(-steps // STRETCH)
    wanders = random.random(stretches) < share
    displacements = random.uniform(-1, 1, size=(stretches, 3))
    reach = np.minimum(1, 2 * random.random((stretches, 1)))
    displacements = (displacements * reach).astype(np.float32)
    return wanders.repeat(STRETCH)[:steps], displacements.repeat(STRETCH, axis=0)[:steps]
