"""Sections of a recipe: what is read, how it is descended and how long; each field documented."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tectum_core.architecture import Strict
from tectum_train.recipe.places import PlacesConfig

__all__ = ["ClipConfig", "DataConfig", "OptimiserConfig", "ScheduleConfig"]

_Share = Annotated[float, Field(ge=0, le=1)]
_Decay = Annotated[float, Field(ge=0, lt=1)]


class ClipConfig(Strict):
    """Frames in a row of one episode."""

    frames: Annotated[int, Field(ge=2)] = 8
    """How many."""
    steps: PositiveInt = 5
    """Steps between two of them."""


class DataConfig(Strict):
    """A LeRobot v3.0 data set, and what of it is read."""

    train: str
    """Folder of the training episodes."""
    test: str
    """Folder of the held-out episodes."""
    camera: str = "observation.images.front"
    """Feature that holds the pictures."""
    action: str | None = "action"
    """Feature that holds the actions; None: there are none, or none is read."""
    state: str | None = "observation.state"
    """Feature that holds the robot's state; None: there is none, or it is not read."""
    task: str | None = None
    """Feature that says which frames are of the same task: their sentences are paraphrases, of
    which each sample draws one, and positives for each other. None: a sentence is a task."""
    cache: str = "~/.cache/tectum/frames"
    """Folder for decoded frames, which are made once."""
    pair_steps: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (4,)
    """Steps between the two frames of a pair; one is drawn for each sample."""
    action_steps: PositiveInt = 16
    """Length of an action sequence; equals `model.actions.max_steps`."""
    episodes_at_once: NonNegativeInt = 0
    """Of how many episodes a step's samples come, until all of theirs have been taken; then of as
    many others. Negatives are then of the same episode more often: these differ in what happens,
    not in scene and light. 0: of all of them."""
    frames_at_once: NonNegativeInt = 0
    """How many of each of these episodes' frames are taken before those of other episodes, so that
    a short run sees more episodes: the batch's divided by `episodes_at_once` make each step's
    episodes other ones. 0: all of them."""
    intrinsics: str | None = None
    """Feature that holds the camera's (fx, fy, cx, cy) in pixels of the recorded pictures. It
    follows the robot's state as four numbers more, in pixels of the model's input, and is moved as
    augmentation moves the pixels. None: not read."""
    places: PlacesConfig | None = None
    """Numbers of actions and states that are places in the picture; None: none is, and none moves
    with the pixels."""
    clip: ClipConfig | None = None
    """Frames in a row, for objectives that read clips; None: there are none."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.frames_at_once and not self.episodes_at_once:
            raise ValueError(
                f"frames_at_once: found {self.frames_at_once} without episodes_at_once, of whose "
                "episodes it says how much is taken; allowed: 0, or both"
            )
        return self


class OptimiserConfig(Strict):
    """AdamW; gains, biases, embeddings and the logit scale are never decayed."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Decoupled weight decay."""
    betas: tuple[_Decay, _Decay] = (0.9, 0.95)
    """Averages of gradient and squared gradient."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the squared gradient that a step is divided by."""
    clip_norm: PositiveFloat | None = 1.0
    """Gradients are scaled down to at most this norm; None: they stay as they are."""


class ScheduleConfig(Strict):
    """How long, and how the learning rate moves: linear warm-up, then a cosine to `final_share`."""

    steps: PositiveInt
    """Optimiser steps in all."""
    batch_size: Annotated[PositiveInt, Field(le=2**20)] = 128
    """Samples a step, of all ranks together."""
    micro_batch: PositiveInt | None = None
    """Samples that go through the model at a time, where a rank's part of a step is too large for
    its memory; None: all of them. The result is the same; it takes longer."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up, fewer than `steps`."""
    final_share: _Share = 0.01
    """Last learning rate as a share of the peak."""
    checkpoint_every: PositiveInt = 500
    """Steps between checkpoints; the last one is always written."""

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps: found {self.warmup_steps}; allowed: fewer than steps ({self.steps})"
            )
        return self
