"""A training run as data: a strict tree, every field documented; its sections fit each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, ValidationError, field_validator, model_validator

from tectum_core.architecture import ModelConfig, Strict
from tectum_core.bundle.repository import NAME
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.augment.settings import AugmentationConfig
from tectum_train.masking import teacher_momentum
from tectum_train.objectives import ObjectiveConfig, Reads
from tectum_train.objectives.image_codes import ImageCodesConfig
from tectum_train.objectives.masked_action import MaskedActionConfig
from tectum_train.objectives.world_model import WorldModelObjectiveConfig
from tectum_train.paths import content_of, expanded
from tectum_train.recipe.learning import (
    check_actions_are_learnt,
    check_codes_can_live,
    check_each_is_told_apart,
    check_ends_are_reached,
    check_frozen_patches,
    check_gradients_meet,
    check_masks_fit,
    check_own_ratios_are_trained,
    check_scale,
    check_steps_are_large_enough,
    check_trunk_is_learnt,
    check_views_keep_sides,
)
from tectum_train.recipe.sections import DataConfig, OptimiserConfig, ScheduleConfig
from tectum_train.recipe.unread import check_changes_are_seen, check_settings_are_read
from tectum_train.refusals import RecipeError
from tectum_train.tasks import CrossStitch, TasksConfig

__all__ = ["Recipe"]

_NO_IDENTITY: dict[str, Any] = {
    "derived_from": True,
    "description": True,
    "output": True,
    "data": {"cache", "test"},
    "schedule": {"checkpoint_every"},
}
"""Fields that make no other run."""


class Recipe(Strict):
    """A whole run."""

    name: str
    """What the run, its folder and by default its bundle are called."""
    derived_from: str = ""
    """Name of the recipe that was renamed to this one by `--set name=`; empty: none was."""
    description: str
    """Command, time, expected numbers, of the recipe as it comes: a changed one has others."""
    data: DataConfig
    """Where samples come from."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random views of its pictures."""
    images: ImagePreprocessing
    """How pictures become input; goes into the bundle."""
    model: ModelConfig
    """The architecture; `text.vocabulary_size` is the largest the trained tokenizer may be."""
    trunk: str | None = None
    """Bundle whose image trunk the run begins with: its folder, or `embedded` for the one that
    comes with the package; trunk and preprocessing must be the recipe's. None: random numbers."""
    objectives: Annotated[tuple[ObjectiveConfig, ...], Field(min_length=1)]
    """What is learnt, jointly: the weighted sum, unless `tasks` says otherwise."""
    tasks: TasksConfig | None = None
    """How several objectives learn together; None: the weighted sum on one trunk."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """AdamW's settings."""
    schedule: ScheduleConfig
    """Steps, batch size, learning-rate curve."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward and backward passes; weights and losses stay float32, and so does
    attention on a CPU."""
    seed: Annotated[NonNegativeInt, Field(lt=2**63)] = 0
    """Of initialisation, order, masks and augmentation."""
    output: str = "runs"
    """Folder for runs; this one goes to `<output>/<name>-seed<seed>`."""

    @field_validator("name")
    @classmethod
    def _name_is_a_folders(cls, name: str) -> str:
        """What a repository will take, and nothing that leads out of `output`."""
        if not NAME.fullmatch(name):
            raise ValueError(
                f"found {name[:80]!r}; allowed: letters, digits, '.', '_', '-', at most 64, the "
                "first a letter or a digit"
            )
        return name

    @model_validator(mode="after")
    def _pictures_are_what_trunks_see(self) -> Self:
        for key, trunk in (("vision", self.model.vision), ("video", self.model.video)):
            if trunk is not None and trunk.image_size != self.images.size:
                raise ValueError(
                    f"images.size: found {self.images.size}; allowed: {trunk.image_size}, "
                    f"model.{key}.image_size"
                )
        if self.augmentation.shift >= self.images.size:
            raise ValueError(
                f"augmentation.shift: found {self.augmentation.shift}; allowed: less than "
                f"images.size ({self.images.size}), or nothing of a picture may be left"
            )
        return self

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        actions, latent = self.model.actions, self.model.latent_action
        decoded = 0 if latent is None else latent.decoded_steps
        if self.data.action is None and (actions is not None or decoded):
            raise ValueError("model.actions and latent_action.decoded_steps need data.action")
        # What is served reads sequences of max_steps; on shorter ones it would never have learnt.
        if actions is not None and self.data.action_steps != actions.max_steps:
            raise ValueError(
                f"data.action_steps ({self.data.action_steps}) must equal "
                f"model.actions.max_steps ({actions.max_steps}): sequences are as long in "
                "training as in use"
            )
        # Beyond the later frame lie actions that it does not show.
        if decoded > min(*self.data.pair_steps, self.data.action_steps):
            raise ValueError(
                f"model.latent_action.decoded_steps ({decoded}) may be at most data.pair_steps "
                f"({min(self.data.pair_steps)}) and data.action_steps ({self.data.action_steps})"
            )
        return self

    @model_validator(mode="after")
    def _reads_what_there_is(self) -> Self:
        clips, clip = [one for one in self.objectives if Reads.CLIP in one.reads], self.data.clip
        if clips and clip is None:
            kinds = ", ".join(one.kind for one in clips)
            raise ValueError(f"{kinds} read clips, so data.clip must say which")
        for one in clips:
            if clip is not None and clip.frames < one.clip_frames:
                raise ValueError(
                    f"data.clip.frames: found {clip.frames}; allowed: at least {one.clip_frames}, "
                    f"which {one.kind} reads"
                )
        crops = self.augmentation.views.crops
        if crops and not any(Reads.CROPS in one.reads for one in self.objectives):
            kinds = ", ".join(one.kind for one in self.objectives)
            raise ValueError(
                f"augmentation.views.crops: found {crops}; allowed: 0, as no objective reads small "
                f"views ({kinds})"
            )
        video = self.model.video
        if video is not None and clip is not None and video.frames != clip.frames:
            raise ValueError(
                f"data.clip.frames ({clip.frames}) must equal model.video.frames ({video.frames})"
            )
        return self

    @model_validator(mode="after")
    def _tasks_suit(self) -> Self:
        if self.tasks is None:
            check_each_is_told_apart(self.objectives)
            return self
        self.tasks.check_kinds([one.kind for one in self.objectives])
        if self.schedule.micro_batch is not None:
            self.tasks.check_pieces()
        if isinstance(self.tasks.sharing, CrossStitch):
            for one in self.objectives:
                if isinstance(one, ImageCodesConfig) or _momentum(one) is not None:
                    raise ValueError(
                        f"tasks.sharing: {one.kind} needs a trunk by itself, for its tokenizer's "
                        "file or to ask what it attends to; cross-stitched ones are none"
                    )
        return self

    @model_validator(mode="after")
    def _teachers_know_something(self) -> Self:
        for one in self.objectives:
            begun = self.trunk is not None and Reads.CLIP not in one.reads
            if _momentum(one) == 1 and not begun:
                raise ValueError(
                    f"objectives.{one.kind}.mask.momentum: found 1; allowed: below 1, or a teacher "
                    "of random numbers stays one; `trunk` may name a bundle's, which reads pictures"
                )
        return self

    @model_validator(mode="after")
    def _something_can_be_learnt(self) -> Self:
        objectives, model, schedule = self.objectives, self.model, self.schedule
        check_trunk_is_learnt(objectives, self.tasks, model, self.trunk)
        check_actions_are_learnt(objectives, self.tasks, model)
        check_steps_are_large_enough(objectives, schedule)
        check_ends_are_reached(objectives, self.tasks, schedule)
        check_gradients_meet(objectives, self.tasks, model)
        check_masks_fit(objectives, model)
        check_codes_can_live(objectives, model, schedule)
        check_frozen_patches(objectives)
        check_scale(objectives, model)
        check_settings_are_read(objectives, model)
        check_own_ratios_are_trained(objectives, model)
        check_changes_are_seen(objectives, self.augmentation)
        check_views_keep_sides(objectives, model, self.augmentation, self.data.places)
        return self

    @model_validator(mode="after")
    def _clips_are_as_the_world_model_wants_them(self) -> Self:
        world, clip = self.model.world_model, self.data.clip
        for one in self.objectives:
            if not isinstance(one, WorldModelObjectiveConfig) or world is None or clip is None:
                continue
            if clip.frames < world.history + one.rollout:
                raise ValueError(
                    f"data.clip.frames ({clip.frames}) must be at least model.world_model.history "
                    f"({world.history}) and the objective's rollout ({one.rollout}) together"
                )
            if world.action_steps not in (None, clip.steps):
                raise ValueError(
                    f"model.world_model.action_steps ({world.action_steps}) must equal "
                    f"data.clip.steps ({clip.steps})"
                )
            if world.actions == "real" and self.data.action is None:
                raise ValueError("model.world_model.actions 'real' needs data.action")
        return self

    @model_validator(mode="after")
    def _camera_is_in_the_state(self) -> Self:
        if self.data.intrinsics is None:
            return self
        takes = None if self.model.actions is None else self.model.actions.state_dimensions
        if takes is None or takes < 4 or (takes > 4) != (self.data.state is not None):
            raise ValueError(
                "data.intrinsics are four numbers of the state, behind those of data.state: "
                f"model.actions.state_dimensions must count both, and is {takes or 0}"
            )
        return self

    @model_validator(mode="after")
    def _augmentation_suits(self) -> Self:
        flip, places, vision = self.augmentation.flip, self.data.places, self.model.vision
        read = {
            "actions": self.data.action is not None,
            "states": self.data.state is not None and self.model.actions is not None,
        }
        if flip is not None:
            flip.check_told(
                **read,
                words=self.model.text is not None,
                labels=any(one.labels for one in self.objectives),
            )
        if places is not None:
            places.check_told(flip, **read)
        self.augmentation.views.check_crops(vision.patch_size, vision.image_size)
        return self

    @model_validator(mode="after")
    def _augmentation_is_seen(self) -> Self:
        augmentation, world = self.augmentation, self.model.world_model
        acts = world is not None and world.actions == "real"
        shown = any(
            isinstance(one, MaskedActionConfig)
            or (isinstance(one, WorldModelObjectiveConfig) and acts)
            for one in self.objectives
        )
        if augmentation.action_noise and not shown:
            kinds = ", ".join(one.kind for one in self.objectives)
            raise ValueError(
                f"augmentation.action_noise: found {augmentation.action_noise:g}; allowed: 0, as "
                f"no objective is shown actions ({kinds})"
            )
        coloured = augmentation.colour or augmentation.hue or augmentation.grey
        if any(Reads.RECOLOURED in one.reads for one in self.objectives) and not coloured:
            raise ValueError(
                "latent_action.appearance 'apart' needs colours that augmentation changes (colour, "
                "hue or grey)"
            )
        return self

    @property
    def folder(self) -> Path:
        """Where the run keeps its files."""
        return expanded(self.output) / f"{self.name}-seed{self.seed}"

    @property
    def checkpoint(self) -> Path:
        """Where it keeps what it is resumed from; not there before the first one is written."""
        return self.folder / "checkpoint.safetensors"

    def identity(self) -> str:
        """What a checkpoint belongs to, as JSON: everything that training reads.

        Of files that objectives learn from, their content counts. Left out are words, where and
        how often a run keeps its files, and the held-out episodes, which only evaluation opens.

        Raises:
            RecipeError: a file that an objective learns from cannot be read.
        """
        settings = self.model_dump_json(exclude=_NO_IDENTITY)
        named = dict.fromkeys(path for one in self.objectives for path in one.files)
        if not named:
            return settings
        try:
            content = {path: content_of(expanded(path)) for path in named}
        except OSError as error:
            raise RecipeError(f"a file that an objective learns from: {error}") from error
        return json.dumps({**json.loads(settings), "content": content})

    @classmethod
    def completed(cls, identity: str) -> dict[str, Any]:
        """An identity's tree; options that came after it was written have their defaults.

        One that this version cannot read is as it stands.
        """
        tree: dict[str, Any] = json.loads(identity)
        content = {key: tree[key] for key in ("content",) if key in tree}
        settings = {key: value for key, value in tree.items() if key not in content}
        try:
            whole = cls.model_validate(
                {
                    **settings,
                    "description": "",
                    "data": {**settings.get("data", {}), "test": ""},
                }
            )
        except ValidationError:
            return tree
        return {**whole.model_dump(mode="json", exclude=_NO_IDENTITY), **content}


def _momentum(objective: ObjectiveConfig) -> float | None:
    """Its teacher's momentum, if it hides what one attends to."""
    return teacher_momentum(objective.mask) if hasattr(objective, "mask") else None
