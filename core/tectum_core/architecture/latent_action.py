"""Latent actions: dynamics each way, and the bottleneck between them."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from tectum_core.architecture.transformer import Strict, TransformerConfig
from tectum_core.architecture.vision import MOST_PATCHES

__all__ = [
    "Bottleneck",
    "ContinuousBottleneck",
    "ConvolutionDynamicsConfig",
    "Dynamics",
    "FsqBottleneck",
    "LatentActionConfig",
    "TransformerDynamicsConfig",
    "VqBottleneck",
]

_LARGEST_GRID = 65_536


class ContinuousBottleneck(Strict):
    """No quantiser: the vector's length is the only limit on what passes."""

    kind: Literal["continuous"] = "continuous"
    """Discriminator."""
    width: PositiveInt = 16
    """Length of the latent action."""


class VqBottleneck(Strict):
    """A learnt codebook with EMA updates; codes that fall out of use are drawn anew, always."""

    kind: Literal["vq"] = "vq"
    """Discriminator."""
    codes: PositiveInt = 4
    """Codes in one latent action."""
    codebook_size: PositiveInt = 8
    """Entries of the codebook, which all codes share."""
    code_width: PositiveInt = 32
    """Length of one code's vector."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """EMA decay of the codebook."""
    restart_below: PositiveFloat = 1.0
    """An entry used less than this often per batch (EMA) is drawn anew from the batch."""
    commitment: PositiveFloat = 0.25
    """Weight of the commitment loss."""


class FsqBottleneck(Strict):
    """Finite scalar quantisation (arXiv:2309.15505): a fixed grid, nothing to collapse."""

    kind: Literal["fsq"] = "fsq"
    """Discriminator."""
    codes: PositiveInt = 1
    """Codes in one latent action."""
    levels: Annotated[tuple[Annotated[int, Field(ge=3)], ...], Field(min_length=1)] = (5, 5, 5, 5)
    """Levels along each axis of a code, at least 3: two of them have no middle to round to. The
    codebook has their product, at most 65,536."""

    @model_validator(mode="after")
    def _codebook_is_small(self) -> Self:
        if math.prod(self.levels) > _LARGEST_GRID:
            raise ValueError(f"levels multiply to more than the {_LARGEST_GRID} codes allowed")
        return self


Bottleneck = Annotated[
    ContinuousBottleneck | VqBottleneck | FsqBottleneck, Field(discriminator="kind")
]


class TransformerDynamicsConfig(Strict):
    """Inverse and forward dynamics as transformers over patches (LAPA)."""

    kind: Literal["transformer"] = "transformer"
    """Discriminator."""
    transformer: TransformerConfig
    """Shape of either."""
    patch_size: PositiveInt = 4
    """Side of one patch of the module's frames, pixels."""
    source: Literal["pixels", "trunk"] = "pixels"
    """What both read: their own patches of the frames, or the trunk's patch tokens."""


class ConvolutionDynamicsConfig(Strict):
    """Inverse dynamics as a convolutional encoder, forward dynamics as a U-Net (LAPO)."""

    kind: Literal["convolution"] = "convolution"
    """Discriminator."""
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=8)] = (32, 64, 128)
    """Channels at each resolution, halved from one to the next; multiples of 8."""

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        if any(width % 8 for width in self.widths):
            raise ValueError(f"widths must be multiples of 8, found {self.widths}")
        return self


Dynamics = Annotated[
    TransformerDynamicsConfig | ConvolutionDynamicsConfig, Field(discriminator="kind")
]


class LatentActionConfig(Strict):
    """Inverse dynamics, bottleneck and forward dynamics between two frames."""

    dynamics: Dynamics
    """What reads the frames and predicts the later one."""
    bottleneck: Bottleneck = ContinuousBottleneck()
    """What passes from one to the other."""
    image_size: PositiveInt = 32
    """Side of the frames that the module reads and predicts, pixels; at most the model's."""
    interval: PositiveFloat
    """Seconds between the two frames in training."""
    tolerance: PositiveFloat
    """How far a served pair's interval may lie from `interval`, seconds."""
    decoded_steps: Annotated[int, Field(ge=0)] = 0
    """Robot actions decoded from one latent action; 0: no such head."""
    says: Literal["pair", "change"] = "pair"
    """What reaches the bottleneck: what inverse dynamics makes of the pair, or that less what it
    makes of the earlier frame beside itself. With `change` every still pair says the same, and what
    is quantised is a difference, as in LAPA."""
    target: Literal["pixels", "latents"] = "pixels"
    """What forward dynamics predicts of the later frame: its pixels, or the trunk's patch tokens,
    each at mean 0 and spread 1. With `latents` no frame is predicted."""

    @model_validator(mode="after")
    def _dynamics_fill_the_frame(self) -> Self:
        if isinstance(self.dynamics, TransformerDynamicsConfig):
            unit = self.dynamics.patch_size
        else:
            unit = 2 ** (len(self.dynamics.widths) - 1)
        if self.target == "latents" and not isinstance(self.dynamics, TransformerDynamicsConfig):
            raise ValueError("target 'latents' needs dynamics of kind 'transformer'")
        if self.image_size % unit:
            raise ValueError(f"image_size ({self.image_size}) must be a multiple of {unit}")
        if isinstance(self.dynamics, TransformerDynamicsConfig):
            patches = (self.image_size // unit) ** 2
            if patches > MOST_PATCHES:
                raise ValueError(f"{patches} patches; allowed are at most {MOST_PATCHES}")
        return self

    @property
    def reads_trunk(self) -> bool:
        """Whether the trunk's tokens enter a latent action."""
        return isinstance(self.dynamics, TransformerDynamicsConfig) and (
            self.dynamics.source == "trunk"
        )

    @property
    def predicts_from_trunk(self) -> bool:
        """Whether they enter what is predicted."""
        return self.reads_trunk or self.target == "latents"
