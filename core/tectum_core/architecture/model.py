"""The whole model: which parts it has, and whether they fit each other."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from tectum_core.architecture.fusion import ActionConfig, FusionConfig
from tectum_core.architecture.latent_action import LatentActionConfig, TransformerDynamicsConfig
from tectum_core.architecture.text import JointConfig, TextConfig
from tectum_core.architecture.transformer import Strict
from tectum_core.architecture.vision import PixelDecoderConfig, VisionConfig

__all__ = ["ModelConfig"]


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
