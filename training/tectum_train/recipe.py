"""A training run as data: a strict tree read from YAML, every field documented.

An unknown key is an error that names it. `--set path.to.key=value` changes one leaf.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from tectum_core.architecture import ModelConfig, Strict
from tectum_core.preprocess import ImagePreprocessing
from tectum_train import recipes
from tectum_train.augment.settings import AugmentationConfig
from tectum_train.differences import differing
from tectum_train.objectives import ObjectiveConfig, Reads
from tectum_train.objectives.world_model import WorldModelObjectiveConfig
from tectum_train.refusals import Change, Place, explained

__all__ = [
    "ClipConfig",
    "DataConfig",
    "OptimiserConfig",
    "Recipe",
    "RecipeError",
    "ScheduleConfig",
    "expanded",
    "read_recipe",
    "resumed_recipe",
]

_Share = Annotated[float, Field(ge=0, le=1)]


class RecipeError(ValueError):
    """A recipe that cannot be read; names the key and what it allows."""


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
    pair_steps: tuple[PositiveInt, ...] = (4,)
    """Steps between the two frames of a pair; one is drawn for each sample."""
    action_steps: PositiveInt = 16
    """Length of an action sequence; equals `model.actions.max_steps`."""
    intrinsics: str | None = None
    """Feature that holds the camera's (fx, fy, cx, cy) in pixels of the recorded pictures. It
    follows the robot's state as four numbers more, in pixels of the model's input, and is moved as
    augmentation moves the pixels. None: not read."""
    clip: ClipConfig | None = None
    """Frames in a row, for objectives that read clips; None: there are none."""


class OptimiserConfig(Strict):
    """AdamW; gains, biases, embeddings and the logit scale are never decayed."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Decoupled weight decay."""
    betas: tuple[_Share, _Share] = (0.9, 0.95)
    """Averages of gradient and squared gradient."""
    clip_norm: PositiveFloat = 1.0
    """Gradients are scaled down to at most this norm."""


class ScheduleConfig(Strict):
    """How long, and how the learning rate moves: linear warm-up, then a cosine to `final_share`."""

    steps: PositiveInt
    """Optimiser steps in all."""
    batch_size: PositiveInt = 128
    """Samples a step, of all ranks together."""
    micro_batch: PositiveInt | None = None
    """Samples that go through the model at a time, where a rank's part of a step is too large for
    its memory; None: all of them. The result is the same; it takes longer."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up."""
    final_share: _Share = 0.01
    """Last learning rate as a share of the peak."""
    checkpoint_every: PositiveInt = 500
    """Steps between checkpoints; the last one is always written."""


class Recipe(Strict):
    """A whole run."""

    name: str
    """What the run, and by default its bundle, is called."""
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
    """What is learnt, jointly: the weighted sum."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """AdamW's settings."""
    schedule: ScheduleConfig
    """Steps, batch size, learning-rate curve."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward and backward passes; weights and losses stay float32, and so does
    attention on a CPU."""
    seed: int = 0
    """Of initialisation, order, masks and augmentation."""
    output: str = "runs"
    """Folder for runs; this one goes to `<output>/<name>-seed<seed>`."""

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
        flip, vision = self.augmentation.flip, self.model.vision
        if flip is not None:
            flip.check_told(
                actions=self.data.action is not None,
                states=self.data.state is not None and self.model.actions is not None,
                words=self.model.text is not None,
            )
        self.augmentation.views.check_crops(vision.patch_size, vision.image_size)
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

        Left out are words, where a run keeps its files, and the held-out episodes, which only
        evaluation opens.
        """
        return self.model_dump_json(
            exclude={
                "derived_from": True,
                "description": True,
                "output": True,
                "data": {"cache", "test"},
            }
        )


def read_recipe(
    name_or_path: str, changes: Sequence[str] = (), output: str | None = None
) -> Recipe:
    """Read a recipe.

    Args:
        name_or_path: one of `recipes.named()`, or a YAML file.
        changes: `path.to.key=value`, the value in YAML.
        output: folder for runs, in place of the recipe's.

    Raises:
        RecipeError: no such recipe, no YAML, an unknown key or a value that is not allowed.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        known = recipes.named()
        if name_or_path not in known:
            raise RecipeError(f"no recipe named {name_or_path!r}; there are: {', '.join(known)}")
        path = known[name_or_path]
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds no mapping")
    return _changed(tree, changes, path.name, output)


def resumed_recipe(
    name_or_path: str,
    changes: Sequence[str] = (),
    output: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Recipe:
    """Read a recipe as the run that it names was begun with; as `read_recipe` if there is none.

    A run is there once it has a checkpoint.

    Args:
        name_or_path: of the recipe.
        changes: they say which run (name, seed), and go on top of its own settings.
        output: folder for runs, in place of the recipe's.
        tell: called with what of the recipe is not used, or that a run has no checkpoint yet.

    Raises:
        RecipeError: as `read_recipe`, and for a run's recipe.json that cannot be read.
    """
    asked = read_recipe(name_or_path, changes, output)
    path = asked.folder / "recipe.json"
    if not path.is_file():
        return asked
    if not asked.checkpoint.exists():
        tell(f"{asked.folder} has no checkpoint yet: begins anew, with the settings given now")
        return asked
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds no mapping")
    # The folder was found there, wherever it was when the run began.
    begun = _changed(tree, changes, str(path), asked.output)
    others = [
        f"{key} is {json.dumps(own, ensure_ascii=False)} here, "
        f"{json.dumps(other, ensure_ascii=False)} in {name_or_path}"
        for key, own, other in differing(_settings(begun), _settings(asked))
    ]
    if others:
        tell(f"goes on with its own settings; the recipe now differs: {'; '.join(others)}")
    return begun


def _settings(recipe: Recipe) -> dict[str, Any]:
    """All but words."""
    return recipe.model_dump(mode="json", exclude={"description", "derived_from"})


def _changed(tree: dict[str, Any], changes: Sequence[str], name: str, output: str | None) -> Recipe:
    called = tree.get("name")
    made = [Change(change, _apply(tree, change)) for change in changes]
    if output is not None:
        tree["output"] = output
    if isinstance(called, str) and tree.get("name") != called and not tree.get("derived_from"):
        tree["derived_from"] = called
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(explained(error, Recipe, tree, name, made)) from error


def expanded(path: str) -> Path:
    """A recipe's path with `~` and environment variables filled in."""
    return Path(os.path.expandvars(path)).expanduser()


def _apply(tree: dict[str, Any], change: str) -> Place:
    """Make a change; gives where it went."""
    path, equals, text = change.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set wants path.to.key=value, found {change!r}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {change}: the value is no YAML") from error
    *parents, leaf = path.split(".")
    here: Any = tree
    place: Place = ()
    for key in parents:
        place = (*place, _step(here, key, change))
        here = _child(here, place[-1], change)
    place = (*place, _step(here, leaf, change))
    here[place[-1]] = value
    return place


def _step(here: Any, key: str, change: str) -> str | int:
    """The key itself, or the number of a list's entry."""
    return _index(here, key, change) if isinstance(here, list) else key


def _child(here: Any, step: Any, change: str) -> Any:
    """The mapping or list at a step; a section that is absent or null is made."""
    child = here[step] if isinstance(here, list) else here.get(step)
    if child is None:
        child = here[step] = {}
    if not isinstance(child, dict | list):
        raise RecipeError(f"--set {change}: there is nothing below {str(step)!r}")
    return child


def _index(place: list[Any], key: str, change: str) -> int:
    """An entry of a list by number, or by its `kind`."""
    for number, entry in enumerate(place):
        if isinstance(entry, dict) and entry.get("kind") == key:
            return number
    if key.isdigit() and int(key) < len(place):
        return int(key)
    raise RecipeError(f"--set {change}: no entry {key!r}")
