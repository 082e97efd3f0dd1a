"""What an objective on pictures or clips hides of a batch, by the mask of its recipe.

Letters: n samples, N patches.
"""

from __future__ import annotations

from itertools import islice

from torch import Tensor

from tectum_core.model import VisionTransformer
from tectum_train.masking import MaskConfig, draw_masks, needs_change, scores_for
from tectum_train.objectives.batch import Batch, given

__all__ = ["hidden_of"]


def hidden_of(
    batch: Batch,
    purpose: str,
    mask: MaskConfig,
    trunk: VisionTransformer,
    pixels: Tensor,
    ratio: float,
) -> Tensor:
    """Draw it: the same however often it is asked, and in whichever part of a batch.

    Args:
        batch: whose first n samples they are.
        purpose: the objective's name; another one hides something else.
        mask: of the recipe.
        trunk: whose patches they are.
        pixels: float[n, 3, S, S] or float[n, 3, T, S, S], the samples' own.
        ratio: share hidden where the mask names none.

    Returns:
        bool[n, N], beside the pixels, equally many in each row.
    """
    later = None
    if needs_change(mask) and pixels.dim() == 4:  # a clip has its own
        later = given(batch.later, "later frames")[: len(pixels)]
    return draw_masks(
        mask,
        trunk.config,
        ratio,
        batch.stream(purpose),
        islice(batch.streams(purpose), len(pixels)),
        scores_for(mask, trunk, pixels, later),
    ).to(pixels.device)
