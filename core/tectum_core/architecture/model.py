"""The whole model: which parts it has, and whether they fit each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from pydantic import model_validator

from tectum_core.architecture.fusion import ActionConfig, FusionConfig
from tectum_core.architecture.latent_action import (
    ConvolutionDynamicsConfig,
    LatentActionConfig,
    TransformerDynamicsConfig,
)
from tectum_core.architecture.text import JointConfig, TextConfig
from tectum_core.architecture.transformer import Strict, TransformerConfig
from tectum_core.architecture.vision import PixelDecoderConfig, VisionConfig
from tectum_core.architecture.world_model import WorldModelConfig

__all__ = ["ModelConfig"]

_LARGEST_LAYER = 2**25
"""Numbers that one layer makes of a picture, a text or a pair of frames, at most: a ViT-H of 4,096
patches makes 21 million. What is run costs memory that no file of a bundle is as large as."""
_LARGEST_CLIP_LAYER = 2**27
"""Of a clip, and of a text's guesses: V-JEPA 2's largest makes 113 million."""


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
    """Robot actions; needs `fusion`, or a `world_model` that reads them."""
    fusion: FusionConfig | None = None
    """Masked texts and actions; needs `text`."""
    latent_action: LatentActionConfig | None = None
    """What changed between two frames."""
    world_model: WorldModelConfig | None = None
    """What the next frames will be."""

    @model_validator(mode="after")
    def _parts_have_what_they_stand_on(self) -> Self:
        if self.vision.frames != 1:
            raise ValueError("vision.frames must be 1; clips go to `video`")
        if self.video is not None and self.video.frames == 1:
            raise ValueError("video.frames must be above 1; images go to `vision`")
        acting = self.fusion or self._reads_actions()
        needs: list[tuple[str, object, str, object]] = [
            ("joint", self.joint, "text", self.text),
            ("video_decoder", self.video_decoder, "video", self.video),
            ("fusion", self.fusion, "text", self.text),
            ("actions", self.actions, "fusion, or a world_model that reads them", acting),
        ]
        for part, present, foundation, there in needs:
            if present is not None and not there:
                raise _absent(part, foundation, f"{part} null")
        if self.fusion is not None and self.text is not None and self.text.causal:
            raise ValueError("fusion fills in masked tokens, so text.causal must be false")
        if self.pixel_decoder is not None and self.pixel_decoder.text_context and not self.text:
            raise _absent("pixel_decoder.text_context", "text", "text_context false")
        latent = self.latent_action
        if latent is not None and latent.decoded_steps and self.actions is None:
            raise _absent("latent_action.decoded_steps", "actions", "decoded_steps 0")
        if latent is not None and latent.image_size > self.vision.image_size:
            raise ValueError("latent_action.image_size is at most vision.image_size")
        if latent is not None and isinstance(latent.dynamics, TransformerDynamicsConfig):
            grid = latent.image_size // latent.dynamics.patch_size
            if latent.predicts_from_trunk and grid != self.vision.grid:
                does = "reads" if latent.reads_trunk else "predicts"
                raise ValueError(
                    f"latent_action {does} the trunk's tokens, so its image_size / patch_size "
                    f"must be {self.vision.grid}, not {grid}"
                )
        return self

    @model_validator(mode="after")
    def _world_model_has_its_actions(self) -> Self:
        world, latent = self.world_model, self.latent_action
        if world is None:
            return self
        if world.grid is not None and self.vision.grid % world.grid:
            raise ValueError(
                f"world_model.grid ({world.grid}) must divide the trunk's ({self.vision.grid})"
            )
        if world.actions == "real" and self.actions is None:
            raise _absent("world_model.actions 'real'", "actions", "world_model.actions another")
        if world.actions == "latent" and latent is None:
            raise _absent(
                "world_model.actions 'latent'", "latent_action", "world_model.actions another"
            )
        if world.actions == "latent" and latent is not None:
            apart = abs(world.interval - latent.interval)
            if apart > latent.tolerance:
                raise ValueError(
                    f"world_model.interval ({world.interval:g}) must be latent_action.interval "
                    f"({latent.interval:g} ± {latent.tolerance:g}), whose latent actions it reads"
                )
        return self

    def _reads_actions(self) -> bool:
        return self.world_model is not None and self.world_model.actions == "real"

    @model_validator(mode="after")
    def _layers_fit_in_memory(self) -> Self:
        for part, numbers in self._layers():
            large = part in ("video", "video decoder", "text.vocabulary_size")
            largest = _LARGEST_CLIP_LAYER if large else _LARGEST_LAYER
            if numbers > largest:
                raise ValueError(
                    f"{part}: a layer of {numbers} numbers for one input; allowed are {largest}"
                )
        return self

    def _layers(self) -> Iterator[tuple[str, int]]:
        """Each part's largest layer, in numbers for one example."""
        trunks = ("vision", self.vision, self.pixel_decoder), (
            "video", self.video, self.video_decoder,
        )  # fmt: skip
        words = 0 if self.text is None else self.text.max_tokens
        for name, trunk, decoder in trunks:
            if trunk is not None:
                yield name, _widest(trunk.patches + trunk.registers + 1, trunk.transformer)
            if trunk is not None and decoder is not None:
                yield f"{name} decoder", _widest(trunk.patches + words, decoder.transformer)
        if self.vision.stem is not None:
            yield "vision.stem", _sharpest(self.vision.image_size // 2, self.vision.stem.widths)
        if self.text is not None:
            yield "text", _widest(words, self.text.transformer)
        if self.text is not None and self.fusion is not None:
            steps = 0 if self.actions is None else self.actions.max_steps + 1
            yield "fusion", _widest(self.vision.patches + words + steps, self.fusion.transformer)
            yield "text.vocabulary_size", words * self.text.vocabulary_size
        if self.actions is not None and self.actions.bins is not None:
            each = self.actions.dimensions * self.actions.bins.count
            yield "actions.bins", self.actions.max_steps * each
        latent = self.latent_action
        if latent is not None and isinstance(latent.dynamics, TransformerDynamicsConfig):
            patches = (latent.image_size // latent.dynamics.patch_size) ** 2
            yield "latent_action", _widest(patches, latent.dynamics.transformer)
        elif latent is not None and isinstance(latent.dynamics, ConvolutionDynamicsConfig):
            yield "latent_action", _sharpest(latent.image_size, latent.dynamics.widths)
        if self.world_model is not None:
            yield from self._world_layers(self.world_model)

    def _world_layers(self, world: WorldModelConfig) -> Iterator[tuple[str, int]]:
        latents = (world.grid or self.vision.grid) ** 2 if world.latents == "tokens" else 1
        yield "world_model", _widest(world.history * (latents + 1), world.transformer)
        yield "world_model.max_steps", world.max_steps * latents * self.vision.transformer.width
        if world.decoder is not None:
            yield "world_model.decoder", _widest(self.vision.patches, world.decoder)


def _absent(part: str, foundation: str, without: str) -> ValueError:
    """A part that stands on what is not there; names the field that would be it."""
    field = foundation.partition(",")[0]
    return ValueError(
        f"{field}: found null; allowed: a section, as {part} needs {foundation}; or {without}"
    )


def _widest(tokens: int, stack: TransformerConfig) -> int:
    """Of a stack of blocks: queries, keys and values, or the MLP's hidden layer."""
    return tokens * max(3 * stack.width, stack.hidden)


def _sharpest(side: int, widths: tuple[int, ...]) -> int:
    """Of convolutions that begin at a side and halve it from one width to the next."""
    return max(width * (side >> level) ** 2 for level, width in enumerate(widths))
