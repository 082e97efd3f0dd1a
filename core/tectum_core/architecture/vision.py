"""Trunks that read pictures and clips, and the decoder that paints them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tectum_core.architecture.transformer import Strict, TransformerConfig

__all__ = ["MOST_PATCHES", "PixelDecoderConfig", "StemConfig", "VisionConfig"]


MOST_PATCHES = 2**15
"""Patch tokens of one input; 64 frames of 384 pixels, as V-JEPA 2 reads, are 18,432."""


class StemConfig(Strict):
    """Stages of a 3×3 convolution of stride 2 and residual blocks of two 3×3 convolutions."""

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=8)]
    """Channels of the stages, one for each halving of a patch's side (arXiv:2106.14881)."""
    blocks: Annotated[NonNegativeInt, Field(le=256)] = 0
    """Residual blocks in each stage (arXiv:1603.05027)."""
    groups: PositiveInt = 1
    """Groups of channels that are normalised together over a picture (arXiv:1803.08494)."""

    @model_validator(mode="after")
    def _groups_divide_widths(self) -> Self:
        if any(width % self.groups for width in self.widths):
            raise ValueError(f"groups ({self.groups}) must divide all of widths {self.widths}")
        return self

    @property
    def patch_size(self) -> int:
        """Side of the patch that a pixel has become, pixels."""
        return int(2 ** len(self.widths))


class VisionConfig(Strict):
    """A vision transformer on images, or on clips if `frames` is above 1."""

    transformer: TransformerConfig
    """The trunk."""
    image_size: Annotated[PositiveInt, Field(le=4096)] = 224
    """Side of the square input, pixels."""
    patch_size: PositiveInt = 16
    """Side of one patch, pixels; divides `image_size`."""
    frames: PositiveInt = 1
    """Frames in the input; 1 is a single image."""
    tubelet_frames: PositiveInt = 1
    """Frames in one token; divides `frames`."""
    frame_interval: PositiveFloat | None = None
    """Seconds between the frames of a clip; None for single images."""
    stem: StemConfig | None = None
    """Convolutions that read the picture before it becomes patches; None: one linear map of each
    patch."""
    patch_bias: bool = True
    """Whether the patch embedding has a bias (CLIP's has none)."""
    class_token: bool = False
    """Whether a learnt class token leads the sequence."""
    registers: Annotated[int, Field(ge=0)] = 0
    """Learnt register tokens after the class token (arXiv:2309.16588)."""
    positions: Literal["learnt", "sincos"] = "learnt"
    """`sincos` is MAE's fixed 2-D table."""
    input_norm: bool = False
    """A LayerNorm before the first block (CLIP)."""
    final_norm: bool = True
    """A LayerNorm after the last block, on all tokens."""
    pooling: Literal["class", "mean", "attention"] = "mean"
    """How one vector is made of all tokens; `attention` is SigLIP's MAP head."""

    @model_validator(mode="after")
    def _tokens_fill_the_input(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patch_size ({self.patch_size}) must divide image_size ({self.image_size})"
            )
        if self.patches > MOST_PATCHES:
            raise ValueError(f"{self.patches} patches; allowed are at most {MOST_PATCHES}")
        if self.frames % self.tubelet_frames:
            raise ValueError(
                f"tubelet_frames ({self.tubelet_frames}) must divide frames ({self.frames})"
            )
        if self.stem and (self.frames > 1 or self.stem.patch_size != self.patch_size):
            raise ValueError(
                f"a stem of {len(self.stem.widths)} stages reads single images of patch_size "
                f"{self.stem.patch_size}, not {self.frames} frames of patch_size {self.patch_size}"
            )
        if self.pooling == "class" and not self.class_token:
            raise ValueError("pooling 'class' needs class_token")
        if (self.frames > 1) != (self.frame_interval is not None):
            raise ValueError("frame_interval belongs to clips (frames > 1), and they need it")
        if self.positions == "sincos" and self.transformer.width % 4:
            raise ValueError(
                f"positions 'sincos' need a width that 4 divides, not {self.transformer.width}"
            )
        return self

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def steps(self) -> int:
        """Tokens along time."""
        return self.frames // self.tubelet_frames

    @property
    def patches(self) -> int:
        """Patch tokens in all, N."""
        return self.steps * self.grid * self.grid

    @property
    def patch_values(self) -> int:
        """Numbers in one token's pixels: 3·t·P·P."""
        return 3 * self.tubelet_frames * self.patch_size**2


class PixelDecoderConfig(Strict):
    """The MAE decoder: from visible tokens to the pixels of hidden patches."""

    transformer: TransformerConfig
    """The decoder's own blocks; fewer and narrower than the trunk's."""
    normalised_target: bool = True
    """Whether targets are normalised per patch; their mean and spread are then predicted too."""
    channelwise: bool = False
    """Whether a normalised target is so in each colour by itself, as VideoMAE's is."""
    variance_floor: PositiveFloat = 1e-3
    """Added to a patch's variance, in squared units of the model's input, before normalising: flat
    patches (tables, walls) would otherwise become amplified noise."""
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    """Share of patches hidden in training, and by default in serving."""
    text_context: bool = False
    """Whether the decoder may read the instruction's tokens."""

    @model_validator(mode="after")
    def _positions_fit(self) -> Self:
        if self.transformer.width % 4:  # its positions are always MAE's sine-cosine table
            raise ValueError(
                f"the decoder's width must be one that 4 divides, not {self.transformer.width}"
            )
        if self.channelwise and not self.normalised_target:
            raise ValueError("channelwise says how targets are normalised: it needs that they are")
        return self
