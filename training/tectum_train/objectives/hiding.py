"""What an objective on pictures or clips hides of a batch, by the mask of its recipe.

Letters: n samples, N patches.
"""

from __future__ import annotations

from itertools import islice

from torch import Tensor, nn

from tectum_core.model import VisionTransformer
from tectum_train.masking import (
    MaskConfig,
    check_mask,
    draw_masks,
    needs_change,
    scores_for,
    teacher_momentum,
)
from tectum_train.momentum import Slow
from tectum_train.objectives.batch import Batch, given

__all__ = ["Hiding"]


class Hiding(nn.Module):
    """Draws it, and keeps the teacher whose attention says what matters, where that is asked for.

    Source of the teacher, a slow copy of what learns: AttMask (arXiv:2203.12719).

    Args:
        mask: of the recipe.
        trunk: whose patches they are.

    Raises:
        ValueError: the trunk's input cannot have such a mask.
    """

    def __init__(self, mask: MaskConfig, trunk: VisionTransformer) -> None:
        super().__init__()
        check_mask(mask, trunk.config)
        self.mask = mask
        self.shape = trunk.config
        self.teacher = Slow(trunk) if teacher_momentum(mask) else None

    def forward(self, batch: Batch, purpose: str, pixels: Tensor, ratio: float) -> Tensor:
        """The same however often a batch is asked for it, and in whichever part of a batch.

        Args:
            batch: whose first n samples they are.
            purpose: the objective's name; another one hides something else.
            pixels: float[n, 3, S, S] or float[n, 3, T, S, S], the samples' own.
            ratio: share hidden where the mask names none.

        Returns:
            bool[n, N], beside the pixels, equally many in each row.
        """
        return batch.hidden(self, lambda: self._drawn(batch, purpose, pixels, ratio))

    def _drawn(self, batch: Batch, purpose: str, pixels: Tensor, ratio: float) -> Tensor:
        later = None
        if needs_change(self.mask) and pixels.dim() == 4:  # a clip has its own
            later = given(batch.later, "later frames")[: len(pixels)]
        teacher = None if self.teacher is None else self.teacher.copy
        return draw_masks(
            self.mask,
            self.shape,
            ratio,
            batch.stream(purpose),
            islice(batch.streams(purpose), len(pixels)),
            scores_for(self.mask, self.shape, pixels, later, teacher),
        ).to(pixels.device)

    def follow(self, trunk: VisionTransformer) -> None:
        """Let the teacher, if there is one, follow a step of the trunk."""
        if self.teacher is not None and (momentum := teacher_momentum(self.mask)):
            self.teacher.follow(trunk, momentum)
