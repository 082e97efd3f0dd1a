"""Configuration of every part of a model; with the weights, all that is needed to rebuild it.

Plain data, checked at the door: no torch, no files. The parts live in `model`, one
module each, and are read from here. A part that is None is a part the model lacks,
and with it the capabilities that need it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

__all__ = [
    "ActionConfig",
    "Bottleneck",
    "ContinuousBottleneck",
    "ConvolutionDynamicsConfig",
    "Dynamics",
    "FsqBottleneck",
    "FusionConfig",
    "JointConfig",
    "LatentActionConfig",
    "ModelConfig",
    "PixelDecoderConfig",
    "Strict",
    "TextConfig",
    "TransformerConfig",
    "TransformerDynamicsConfig",
    "VisionConfig",
    "VqBottleneck",
]


class Strict(BaseModel):
    """Frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TransformerConfig(Strict):
    """A stack of pre-norm transformer blocks."""

    width: PositiveInt
    """Length of a token, D."""
    depth: PositiveInt
    """Number of blocks."""
    heads: PositiveInt
    """Attention heads; divides `width`."""
    hidden: PositiveInt
    """Width of the MLP's hidden layer, usually 4·D."""
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    """`quick_gelu` is x·σ(1.702x), as in the original CLIP."""
    norm_eps: PositiveFloat = 1e-6
    """Epsilon of every LayerNorm."""
    qkv_bias: bool = True
    """Whether the query, key and value projections have biases."""
    layer_scale: PositiveFloat | None = None
    """Initial value of LayerScale on both residual branches (DINOv2); None: without."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


class VisionConfig(Strict):
    """A vision transformer on images, or on clips if `frames` is above 1."""

    transformer: TransformerConfig
    """The trunk."""
    image_size: PositiveInt = 224
    """Side of the square input, pixels."""
    patch_size: PositiveInt = 16
    """Side of one patch, pixels; divides `image_size`."""
    frames: PositiveInt = 1
    """Frames in the input; 1 is a single image."""
    tubelet_frames: PositiveInt = 1
    """Frames in one token; divides `frames`."""
    frame_interval: PositiveFloat | None = None
    """Seconds between the frames of a clip; None for single images."""
    stem: tuple[PositiveInt, ...] = ()
    """Channels of 3×3 convolutions of stride 2 that read the picture before it becomes patches, one
    for each halving of a patch's side (arXiv:2106.14881); empty: one linear map of each patch."""
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
        if self.frames % self.tubelet_frames:
            raise ValueError(
                f"tubelet_frames ({self.tubelet_frames}) must divide frames ({self.frames})"
            )
        if self.stem and (self.frames > 1 or 2 ** len(self.stem) != self.patch_size):
            raise ValueError(
                f"a stem of {len(self.stem)} convolutions reads single images of patch_size "
                f"{2 ** len(self.stem)}, not {self.frames} frames of patch_size {self.patch_size}"
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


class TextConfig(Strict):
    """A text transformer over the bundle's tokenizer."""

    transformer: TransformerConfig
    """The trunk."""
    vocabulary_size: PositiveInt
    """Entries of the tokenizer."""
    max_tokens: PositiveInt = 32
    """Longest sequence, special tokens included; longer texts are cut."""
    causal: bool = False
    """Whether a token sees only those before it (CLIP); masked language needs False."""
    pooling: Literal["first", "last", "mean"] = "mean"
    """`last` is the last token that is not padding, the end-of-text token in CLIP."""


class JointConfig(Strict):
    """The space that images and texts share."""

    width: PositiveInt = 128
    """Length of a joint vector."""
    initial_scale: PositiveFloat = 1 / 0.07
    """Logit scale before training."""
    bias: float | None = None
    """Logit bias before training (SigLIP); None: without."""
    truncations: tuple[PositiveInt, ...] = ()
    """Shorter lengths that the training made meaningful, ascending."""


class PixelDecoderConfig(Strict):
    """The MAE decoder: from visible tokens to the pixels of hidden patches."""

    transformer: TransformerConfig
    """The decoder's own blocks; fewer and narrower than the trunk's."""
    normalised_target: bool = True
    """Whether targets are normalised per patch; their mean and spread are then predicted too."""
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
        return self


class ActionConfig(Strict):
    """Robot actions and state, in standardised units."""

    dimensions: PositiveInt
    """Numbers in one action, A."""
    state_dimensions: Annotated[int, Field(ge=0)] = 0
    """Numbers in the robot's state, S; 0: the model takes none."""
    max_steps: PositiveInt = 16
    """Longest sequence."""
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of steps hidden by default in serving."""


class FusionConfig(Strict):
    """The transformer in which image, text and action tokens meet."""

    transformer: TransformerConfig
    """Its blocks; each modality is projected to their width."""
    text_mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of tokens hidden by default in serving."""


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
    codebook has their product."""


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
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (32, 64, 128)
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

    @model_validator(mode="after")
    def _dynamics_fill_the_frame(self) -> Self:
        if isinstance(self.dynamics, TransformerDynamicsConfig):
            unit = self.dynamics.patch_size
        else:
            unit = 2 ** (len(self.dynamics.widths) - 1)
        if self.image_size % unit:
            raise ValueError(f"image_size ({self.image_size}) must be a multiple of {unit}")
        return self

    @property
    def reads_trunk(self) -> bool:
        """Whether the trunk's tokens enter."""
        return isinstance(self.dynamics, TransformerDynamicsConfig) and (
            self.dynamics.source == "trunk"
        )


class ModelConfig(Strict):
    """The whole model: a trunk, and the parts that stand on it."""

    vision: VisionConfig
    """The image trunk."""
    video: VisionConfig | None = None
    """The clip trunk."""
    text: TextConfig | None = None
    """The text trunk."""
    joint: JointConfig | None = None
    """The space images and texts share; needs `text`."""
    pixel_decoder: PixelDecoderConfig | None = None
    """Masked images."""
    video_decoder: PixelDecoderConfig | None = None
    """Masked clips; needs `video`."""
    actions: ActionConfig | None = None
    """Robot actions; needs `fusion`."""
    fusion: FusionConfig | None = None
    """Masked texts and actions; needs `text`."""
    latent_action: LatentActionConfig | None = None
    """What changed between two frames."""

    @model_validator(mode="after")
    def _parts_have_what_they_stand_on(self) -> Self:
        if self.vision.frames != 1:
            raise ValueError("vision.frames must be 1; clips go to `video`")
        if self.video is not None and self.video.frames == 1:
            raise ValueError("video.frames must be above 1; images go to `vision`")
        needs: list[tuple[str, object, str, object]] = [
            ("joint", self.joint, "text", self.text),
            ("video_decoder", self.video_decoder, "video", self.video),
            ("fusion", self.fusion, "text", self.text),
            ("actions", self.actions, "fusion", self.fusion),
        ]
        for part, present, foundation, there in needs:
            if present is not None and there is None:
                raise ValueError(f"{part} needs {foundation}")
        if self.fusion is not None and self.text is not None and self.text.causal:
            raise ValueError("fusion fills in masked tokens, so text.causal must be false")
        if self.pixel_decoder is not None and self.pixel_decoder.text_context and not self.text:
            raise ValueError("pixel_decoder.text_context needs text")
        latent = self.latent_action
        if latent is not None and latent.decoded_steps and self.actions is None:
            raise ValueError("latent_action.decoded_steps needs actions")
        if latent is not None and latent.image_size > self.vision.image_size:
            raise ValueError("latent_action.image_size is at most vision.image_size")
        if latent is not None and isinstance(latent.dynamics, TransformerDynamicsConfig):
            grid = latent.image_size // latent.dynamics.patch_size
            if latent.dynamics.source == "trunk" and grid != self.vision.grid:
                raise ValueError(
                    f"latent_action reads the trunk's tokens, so its image_size / patch_size "
                    f"must be {self.vision.grid}, not {grid}"
                )
        return self
