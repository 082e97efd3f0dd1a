"""`config.json`: everything about a bundle but its numbers. Strict; unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from tectum_core.architecture import ModelConfig, Strict
from tectum_core.preprocess import ActionScaling, ImagePreprocessing

__all__ = ["PARTS", "BundleConfig", "GoldenTolerance", "Part", "TrainingSummary"]

Part = Literal[
    "vision", "vision.pool", "video", "video.pool", "joint", "pixel_decoder",
    "pixel_decoder.from_text", "video_decoder", "fusion.token_head", "fusion.action_head",
    "fusion.actions.embed", "fusion.actions.embed_state", "fusion.from_image", "fusion.from_text",
    "latent_action", "latent_action.action_decoder", "world_model", "world_model.decoder",
]  # fmt: skip
"""A part of the model that something served comes out of, or that a condition goes into, and that
training may have left out, by its name in the model. A trunk that is read only through others is
none of them: where it is random, so is what reads it."""

PARTS: Final[dict[Part, str]] = {
    "vision": "vision trunk",
    "vision.pool": "pooling of pictures",
    "video": "video trunk",
    "video.pool": "pooling of clips",
    "joint": "joint space",
    "pixel_decoder": "image decoder",
    "pixel_decoder.from_text": "reading of texts beside pictures",
    "video_decoder": "clip decoder",
    "fusion.token_head": "word decoder",
    "fusion.action_head": "action head",
    "fusion.actions.embed": "reading of visible actions",
    "fusion.actions.embed_state": "reading of the robot's state",
    "fusion.from_image": "reading of pictures beside texts and actions",
    "fusion.from_text": "reading of texts beside actions",
    "latent_action": "latent-action module",
    "latent_action.action_decoder": "decoder of latent actions",
    "world_model": "world model",
    "world_model.decoder": "decoder of predicted frames",
}
"""Every one of them in words."""


_INTERVAL_SHARE = 0.01


class GoldenTolerance(Strict):
    """How far a host's outputs may lie from the golden ones, for one kind of numerics."""

    min_cosine: Annotated[float, Field(gt=0, le=1)]
    """Smallest cosine similarity of any output to its golden counterpart."""
    max_relative_difference: PositiveFloat
    """Largest absolute difference, as a share of the golden output's largest magnitude."""


class TrainingSummary(Strict):
    """Where the weights come from."""

    recipe: str
    """Name of the recipe; empty for random weights."""
    data: str
    """What it was trained on, for people."""
    steps: NonNegativeInt
    """Optimiser steps."""
    seed: int
    """Seed of initialisation and order."""
    commit: str
    """The commit that trained it, or all of them in order, with commas; empty if unknown."""
    metrics: dict[str, float] = {}
    """Held-out numbers of the last checkpoint, by the evaluation's names."""
    untrained: tuple[Part, ...] = ()
    """Parts that training did not reach, whose numbers are random still: what they compute is not
    served. Empty also where nobody knows, as of imported weights: everything is served then."""

    words_hidden: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of a text's words that training hid at once, for who asks after hidden words as it did;
    None: it hid none, or nobody knows."""

    def learnt(self, *parts: Part) -> bool:
        """Whether none of these is known to be untrained."""
        return not set(parts) & set(self.untrained)


class BundleConfig(Strict):
    """The whole of `config.json`."""

    format: Literal["tectum-bundle-1"] = "tectum-bundle-1"
    """Changes when a reader of the old form could misread the new one."""
    model: ModelConfig
    """The architecture."""
    images: ImagePreprocessing
    """How pictures become input; `size` equals the vision trunk's."""
    actions: ActionScaling | None = None
    """Names and scales of actions and state; present if the model has an action path."""
    training: TrainingSummary
    """Where the weights come from."""
    tolerances: dict[Literal["float32", "bfloat16", "int8"], GoldenTolerance] = {
        "float32": GoldenTolerance(min_cosine=0.99999, max_relative_difference=1e-3),
        "bfloat16": GoldenTolerance(min_cosine=0.999, max_relative_difference=0.1),
        "int8": GoldenTolerance(min_cosine=0.98, max_relative_difference=0.5),
    }
    """By numerics: how close a host must come to the golden outputs."""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.images.size != self.model.vision.image_size:
            raise ValueError(
                f"images.size ({self.images.size}) must equal model.vision.image_size "
                f"({self.model.vision.image_size})"
            )
        if self.model.video and self.model.video.image_size != self.images.size:
            raise ValueError("model.video.image_size must equal images.size")
        if (self.actions is None) != (self.model.actions is None):
            raise ValueError("actions and model.actions come together")
        if self.actions is not None and self.model.actions is not None:
            found = (len(self.actions.names), len(self.actions.state_names))
            wanted = (self.model.actions.dimensions, self.model.actions.state_dimensions)
            if found != wanted:
                raise ValueError(f"actions name {found} dimensions, the model has {wanted}")
        world = self.model.world_model
        if world is not None and world.action_steps is not None and self.actions is not None:
            spanned = world.action_steps * self.actions.step_interval
            if abs(spanned / world.interval - 1) > _INTERVAL_SHARE:
                raise ValueError(
                    f"model.world_model.interval is {world.interval:g} s, but its action_steps "
                    f"({world.action_steps}) take {spanned:g} s"
                )
        return self
