"""VideoMAE: encode the few tubes of a clip that are visible, predict the pixels of the others.

Letters: B batch, n samples that are used, S side of the frames, T frames, t frames of a tubelet,
N tubelets.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from tectum_core.architecture import ModelConfig
from tectum_core.masks import visible_indices
from tectum_core.model import PerceptionModel, PixelDecoder, VisionTransformer, patchify
from tectum_train.losses.masked import hidden_patches
from tectum_train.losses.precision import wide
from tectum_train.masking import MaskConfig, TubeMask
from tectum_train.objectives.base import Averaged, Outcome, PartSettings, shares
from tectum_train.objectives.batch import Batch, Reads, given
from tectum_train.objectives.hiding import Hiding

__all__ = ["VideoMae", "VideoMaeConfig", "counted_tubelets"]


class VideoMaeConfig(PartSettings):
    """Masked clip modelling on pixels."""

    kind: Literal["video_mae"] = "video_mae"
    """Discriminator."""
    mask: MaskConfig = TubeMask()
    """What is hidden; as much as `model.video_decoder.mask_ratio` unless it says how much."""
    statistics_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of predicting each tubelet's mean and spread, for painting without peeking."""

    @property
    def reads(self) -> Reads:
        """Clips."""
        return Reads.CLIP

    def trains_trunk(self, _: ModelConfig) -> bool:
        """Its trunk reads clips."""
        return False


class VideoMae(Averaged):
    """Mean squared error on hidden tubelets, normalised per tubelet.

    The paper's code normalises each colour by itself (`model.video_decoder.channelwise`). Tubelets
    with a frame behind the episode's end do not count: there its last frame is repeated.

    Source: VideoMAE (arXiv:2203.12602).
    """

    name = "video_mae"

    def __init__(self, config: VideoMaeConfig, model: PerceptionModel) -> None:
        super().__init__()
        if model.video is None or model.video_decoder is None:
            raise ValueError("video_mae needs model.video and model.video_decoder")
        self.config = config
        self.model = model
        self.hiding = Hiding(config.mask, model.video)

    def counted(self, batch: Batch) -> Tensor:
        """Tubelets: hidden ones that lie in their episode."""
        trunk, decoder, pixels = self._read(batch)
        return self._masked(batch, trunk, decoder, pixels)[1].sum()

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and `relative`: the error as a share of predicting zero.

        Where no rank's hidden tubelets count there is none.
        """
        trunk, decoder, pixels = self._read(batch)
        hidden, counted = self._masked(batch, trunk, decoder, pixels)
        shape, keep = trunk.config, visible_indices(hidden)
        prediction = decoder(trunk(pixels, keep).tokens, keep)
        target = decoder.target(patchify(pixels, shape.patch_size, shape.tubelet_frames))
        masked = hidden_patches(prediction.values, target.values, counted)
        loss = masked
        if prediction.normalised:
            mean = hidden_patches(prediction.mean, target.mean, counted)
            spread = hidden_patches(prediction.log_spread, target.log_spread, counted)
            loss = masked + self.config.statistics_weight * (mean + spread)
        error = (wide(prediction.values.detach()) - target.values).square().mean(dim=2)
        sums = shares({"relative": (error, target.values.square().mean(dim=2), counted)}, 1e-6)
        return Outcome(loss, {"masked": masked.detach()}, sums=sums)

    def after_step(self) -> None:
        """Let the teacher of its masks follow."""
        if self.model.video is not None:
            self.hiding.follow(self.model.video)

    def _read(self, batch: Batch) -> tuple[VisionTransformer, PixelDecoder, Tensor]:
        """Trunk, decoder, and float[n, 3, T, S, S]."""
        trunk, decoder = self.model.video, self.model.video_decoder
        if trunk is None or decoder is None:
            raise ValueError("video_mae needs model.video and model.video_decoder")
        frames = given(batch.clip, "clips").frames[: self.config.used(batch)]
        return trunk, decoder, frames.transpose(1, 2)

    def _masked(
        self, batch: Batch, trunk: VisionTransformer, decoder: PixelDecoder, pixels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """bool[n, N] each: what is hidden, and of that what counts."""
        ratio = decoder.config.mask_ratio
        hidden: Tensor = self.hiding(batch, self.name, pixels, ratio)
        inside = given(batch.clip, "clips").inside[: len(pixels)]
        return hidden, counted_tubelets(hidden, inside, trunk.config.tubelet_frames)


def counted_tubelets(hidden: Tensor, inside: Tensor, tubelet_frames: int) -> Tensor:
    """Hidden tubelets that lie in their episode with all of their frames.

    Args:
        hidden: bool[n, N], oldest first.
        inside: bool[n, T], False where the episode had ended.
        tubelet_frames: t; divides T.

    Returns:
        bool[n, N].
    """
    steps = inside.unflatten(1, (-1, tubelet_frames)).all(dim=2)
    return hidden & steps.repeat_interleave(hidden.shape[1] // steps.shape[1], dim=1)
