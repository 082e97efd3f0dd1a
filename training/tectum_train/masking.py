"""Which patches an objective hides: the recipe's choice of a mask, drawn for each sample by itself.

Knows neither batches nor objectives. The masks themselves are `tectum_core.masks`', what changes
`tectum_core.change`'s, as serving's Reconstruct uses them. A step draws one ratio for the whole
batch, so that all rows show equally many patches; what a sample hides is drawn from that sample's
own stream (`Batch.streams`), so it is the same whichever part of a batch or rank it comes to.

Letters: n samples, N patches, T frames, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self, assert_never

import torch
from pydantic import Field, NonNegativeInt, model_validator
from torch import Generator, Tensor

from tectum_core import masks
from tectum_core.architecture import Strict, VisionConfig
from tectum_core.change import clip_change, picture_change
from tectum_core.model import VisionTransformer

__all__ = [
    "BlockMask",
    "ExplicitMask",
    "ImportanceMask",
    "MaskConfig",
    "RandomMask",
    "TubeMask",
    "check_mask",
    "draw_masks",
    "needs_change",
    "scores_for",
    "teacher_momentum",
]

_Ratio = Annotated[float, Field(gt=0, lt=1)]


class _Drawn(Strict):
    """What every mask has that is drawn."""

    ratios: tuple[_Ratio, ...] = ()
    """Shares of the patches that are hidden; each step draws one. Empty: the decoder's
    `mask_ratio`; for `beit` 0.4."""


class RandomMask(_Drawn):
    """Each patch alike (MAE)."""

    kind: Literal["random"] = "random"
    """Discriminator."""


class BlockMask(_Drawn):
    """Rectangles that touch (BEiT); in a clip the same ones in every frame."""

    kind: Literal["block"] = "block"
    """Discriminator."""


class TubeMask(_Drawn):
    """Random patches, the same ones in every frame of a clip (VideoMAE)."""

    kind: Literal["tube"] = "tube"
    """Discriminator."""


class ImportanceMask(_Drawn):
    """What matters most is hidden first, but for hints.

    Source: AttMask (arXiv:2203.12719), whose students learn more with hints than without; its hints
    are of what is most attended to.
    """

    kind: Literal["importance"] = "importance"
    """Discriminator."""
    source: Literal["change", "attention"] = "change"
    """What matters: what differs from the later frame of a pair or the next ones of a clip; or what
    a teacher, a slow copy of the trunk, attends to, which costs a pass of it over all patches."""
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Share of the teacher that a step leaves (the paper's rises from 0.996), of source `attention`
    alone. 1: it stays the trunk that the run begins with, which `trunk` must then name."""
    hint: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the patches shown that is drawn from all alike; the rest is what scores least. At 0
    every cue of what matters is hidden, at 1 the mask is random."""

    @model_validator(mode="after")
    def _has_a_teacher(self) -> Self:
        # Its default is no refusal: a run's own recipe.json writes all of them out.
        usual = type(self).model_fields["momentum"].default
        if self.source != "attention" and self.momentum != usual:
            raise ValueError(
                f"mask.momentum: found {self.momentum:g}; allowed: with source 'attention' alone, "
                f"as '{self.source}' has no teacher"
            )
        return self


class ExplicitMask(Strict):
    """The same patches of every sample."""

    kind: Literal["explicit"] = "explicit"
    """Discriminator."""
    hidden: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    """Their places: oldest first, then top to bottom, left to right."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.hidden)) < len(self.hidden):
            twice = next(one for one in self.hidden if self.hidden.count(one) > 1)
            raise ValueError(f"mask.hidden: found {twice} twice; allowed: each patch once")
        return self


MaskConfig = Annotated[
    RandomMask | BlockMask | TubeMask | ImportanceMask | ExplicitMask, Field(discriminator="kind")
]
"""Any of them."""


def needs_change(mask: MaskConfig) -> bool:
    """Whether it must be told what changes: an image's later frame."""
    return isinstance(mask, ImportanceMask) and mask.source == "change"


def teacher_momentum(mask: MaskConfig) -> float | None:
    """Its teacher's momentum, if it hides what one attends to."""
    if isinstance(mask, ImportanceMask) and mask.source == "attention":
        return mask.momentum
    return None


def check_mask(mask: MaskConfig, trunk: VisionConfig) -> None:
    """Refuse a mask that the trunk's input cannot have.

    Raises:
        ValueError: a tube in single images, or listed patches that are not there or are all; names
            the field, what was found and what is allowed.
    """
    if isinstance(mask, TubeMask) and trunk.steps == 1:
        what = (
            f"clips of one tubelet ({trunk.frames} frames)" if trunk.frames > 1 else "single images"
        )
        raise ValueError(
            "mask.kind: found 'tube', which is for clips of several tubelets; allowed: 'random', "
            f"'block', 'importance' or 'explicit', as these are {what}"
        )
    if not isinstance(mask, ExplicitMask):
        return
    if (last := max(mask.hidden)) >= trunk.patches:
        raise ValueError(
            f"mask.hidden: found {last}; allowed: 0 to {trunk.patches - 1}, the patches that there "
            "are"
        )
    if len(mask.hidden) == trunk.patches:
        raise ValueError(
            f"mask.hidden: found all {trunk.patches} patches; allowed: fewer, or nothing is shown"
        )


def scores_for(
    mask: MaskConfig,
    trunk: VisionConfig,
    pixels: Tensor,
    later: Tensor | None = None,
    teacher: VisionTransformer | None = None,
) -> Tensor | None:
    """What `draw_masks` needs to know of the pixels.

    Args:
        mask: of the recipe.
        trunk: whose patches they are.
        pixels: float[n, 3, H, W] or float[n, 3, T, H, W], as the trunk reads them.
        later: float[n, 3, H, W], the later frame of each image's pair; clips have none.
        teacher: whose attention counts.

    Returns:
        float[n, N], how much each patch matters; None if the mask does not ask.

    Raises:
        ValueError: the mask asks for an image's change, and there is no later frame; or for
            attention, and there is no teacher.
    """
    if not isinstance(mask, ImportanceMask):
        return None
    if mask.source == "attention":
        if teacher is None:
            raise ValueError("a mask by attention needs a teacher")
        # In float32 always: rounded otherwise, some patches would change places.
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            return teacher.importance(pixels).float()
    if pixels.dim() == 5:
        return clip_change(pixels, trunk)
    if later is None:
        raise ValueError("a mask by change needs the later frame of each image's pair")
    return picture_change(pixels, later, trunk)


def draw_masks(
    mask: MaskConfig,
    trunk: VisionConfig,
    ratio: float,
    step: Generator,
    streams: Iterable[Generator],
    scores: Tensor | None = None,
) -> Tensor:
    """Draw what is hidden.

    Args:
        mask: of the recipe; `check_mask` found nothing wrong with it.
        trunk: whose patches they are.
        ratio: share hidden where the mask names none.
        step: of the draws that the whole batch shares, on the CPU.
        streams: one for each of the n samples, on the CPU.
        scores: float[n, N], from `scores_for`.

    Returns:
        bool[n, N] on the CPU, equally many in each row.
    """
    chosen = ratio
    if not isinstance(mask, ExplicitMask) and mask.ratios:
        chosen = mask.ratios[int(torch.randint(len(mask.ratios), (), generator=step))]
    rows = None if scores is None else scores.detach().cpu()
    return torch.stack(
        [
            _drawn(mask, trunk, chosen, stream, None if rows is None else rows[number])
            for number, stream in enumerate(streams)
        ]
    )


def _drawn(
    mask: MaskConfig, trunk: VisionConfig, ratio: float, stream: Generator, scores: Tensor | None
) -> Tensor:
    """bool[N] of one sample."""
    match mask:
        case RandomMask():
            return masks.random_mask(trunk.patches, ratio, stream)
        case BlockMask():
            frame = masks.block_mask(trunk.grid, trunk.grid, ratio, stream)
            return masks.tube_mask(trunk.steps, frame)
        case TubeMask():
            frame = masks.random_mask(trunk.grid**2, ratio, stream)
            return masks.tube_mask(trunk.steps, frame)
        case ImportanceMask():
            if scores is None:
                raise ValueError("an importance mask needs scores")
            return masks.hinted_mask(scores, ratio, mask.hint, stream)
        case ExplicitMask():
            return masks.explicit_mask(mask.hidden, trunk.patches)
        case _:
            assert_never(mask)
