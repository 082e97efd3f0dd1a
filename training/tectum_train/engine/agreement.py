"""What a recipe and a data set must have in common; told before the first step, by the field.

Each raises RecipeError, which says what was found and what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from tectum_core.architecture import ContinuousBottleneck
from tectum_train.data import DataError, LeRobotDataset
from tectum_train.data.samples import Samples
from tectum_train.engine.states import CAMERA_NAMES
from tectum_train.engine.words import check_sided_labels, check_sides
from tectum_train.objectives import Reads
from tectum_train.objectives.dino import DinoConfig
from tectum_train.objectives.latent_action import LatentActionObjectiveConfig
from tectum_train.objectives.mo_co import MoCoConfig
from tectum_train.objectives.supervised import SupervisedConfig
from tectum_train.recipe import Recipe, RecipeError
from tectum_train.tasks import DwaWeights

__all__ = [
    "check_labels",
    "check_mirror",
    "check_mirrored_words",
    "check_places",
    "check_recorded",
    "check_window",
    "oversized",
    "seldom_begun",
]

_FEW = 0.5
"""Share of frames below which what so few of them begin is told."""
_SMALL, _PROTOTYPES = 1_000_000, 4096
"""Frames below which so many prototypes are the most that share them out."""
_MOST = 0.5
"""Share of frames in which places in the picture must be in it: a hand may leave it for a while."""


def check_recorded(recipe: Recipe, dataset: LeRobotDataset) -> None:
    """All that the data set's own description tells, before its frames are decoded.

    Raises:
        DataError: a feature is not there.
        RecipeError: features, times or numbers do not fit.
    """
    _check_features(recipe, dataset)
    _check_interval(recipe, dataset.info.fps)
    _check_queues(recipe, sum(episode.length for episode in dataset.episodes))
    lengths = [episode.length for episode in dataset.episodes]
    _check_reach(recipe, max(lengths))
    _check_groups(recipe, len(lengths), max(lengths))


def _check_features(recipe: Recipe, dataset: LeRobotDataset) -> None:
    """What is read is there, and the model has as many numbers of it as the data."""
    data, actions = recipe.data, recipe.model.actions
    read = {"data.task": data.task}
    if actions is not None:
        read |= {"data.action": data.action, "data.state": data.state}
        read |= {"data.intrinsics": data.intrinsics}
    for one in recipe.objectives:
        if isinstance(one, SupervisedConfig):
            read |= {f"objectives.supervised.classes.{name}": name for name in one.classes}
    for field, name in read.items():
        if name is not None and name not in dataset.columns:
            raise DataError(
                f"{field}: {dataset.root} has no feature {name!r}; "
                f"it has: {', '.join(sorted(dataset.columns))}"
            )
    if actions is None:
        return
    camera = 0 if data.intrinsics is None else len(CAMERA_NAMES)
    for field, found, name, more in (
        ("dimensions", actions.dimensions, data.action, 0),
        ("state_dimensions", actions.state_dimensions, data.state, camera),
    ):
        own = 0 if name is None else math.prod(dataset.info.features[name].shape)
        if found != own + more:
            whose = "" if name is None else f", the numbers of {name}"
            also = " and the camera's" if more else ""
            raise RecipeError(
                f"model.actions.{field}: found {found}; allowed: {own + more}{whose}{also}"
            )


def _check_interval(recipe: Recipe, fps: float) -> None:
    """Frames of pairs and clips lie as far apart as the bundle will say that they should."""
    model, clip = recipe.model, recipe.data.clip
    for key, wanted in (
        ("world_model.interval", model.world_model and model.world_model.interval),
        ("video.frame_interval", model.video and model.video.frame_interval),
    ):
        if clip is not None and wanted and abs(clip.steps / fps / wanted - 1) > 0.01:
            raise RecipeError(
                f"data.clip.steps: {clip.steps} steps at {fps:g} a second are "
                f"{clip.steps / fps:g} s, but model.{key} is {wanted:g} s"
            )
    latent = model.latent_action
    if latent is None:
        return
    for steps in recipe.data.pair_steps:
        if abs(steps / fps - latent.interval) > latent.tolerance + 1e-9:
            raise RecipeError(
                f"data.pair_steps: {steps} steps at {fps:g} a second are {steps / fps:g} s, "
                f"but model.latent_action.interval is {latent.interval:g} ± {latent.tolerance:g} s"
            )


def _check_reach(recipe: Recipe, longest: int) -> None:
    """What lies apart in time lies in one episode, at least in the longest."""
    reads, clip = [one.reads for one in recipe.objectives], recipe.data.clip
    apart = {"data.pair_steps": min(recipe.data.pair_steps)} if _any(reads, Reads.LATER) else {}
    if clip is not None and _any(reads, Reads.CLIP):
        apart["data.clip.steps"] = clip.steps
    for key, steps in apart.items():
        if steps >= longest:
            raise RecipeError(
                f"{key}: found {steps}; allowed: at most {longest - 1}, as the longest episode "
                f"has {longest} frames and nothing would be learnt"
            )


def _check_groups(recipe: Recipe, episodes: int, longest: int) -> None:
    """A few episodes at once are fewer than all, or some of their frames are."""
    few, some = recipe.data.episodes_at_once, recipe.data.frames_at_once
    if few >= episodes and not some:
        raise RecipeError(
            f"data.episodes_at_once: found {few}; allowed: fewer than the {episodes} episodes to "
            "train on, or samples come of all of them, as with 0"
        )
    if some >= longest:
        raise RecipeError(
            f"data.frames_at_once: found {some}; allowed: at most {longest - 1}, as the longest "
            f"episode has {longest} frames, which are all taken with 0, too"
        )


def seldom_begun(recipe: Recipe, lengths: Sequence[int]) -> Iterator[str]:
    """What to say of pairs and clips for which most of the frames lie in too short an episode.

    Args:
        recipe: the run.
        lengths: of the training episodes, in frames.
    """
    reads, frames = [one.reads for one in recipe.objectives], sum(lengths)
    gaps, clip = recipe.data.pair_steps, recipe.data.clip
    if _any(reads, Reads.LATER):
        later = sum(max(length - gap, 0) for length in lengths for gap in gaps)
        share = later / (frames * len(gaps))
        if share < _FEW:
            yield (
                f"data.pair_steps: only {share:.0%} of the frames have one {_either(gaps)} steps "
                "later in their episode; others teach nothing about what changes"
            )
    if clip is not None and _any(reads, Reads.CLIP):
        reach = (clip.frames - 1) * clip.steps
        share = sum(length for length in lengths if length > reach) / frames
        if share < _FEW:
            yield (
                f"data.clip: only {share:.0%} of the frames are in an episode as long as a clip, "
                f"{reach + 1} frames ({clip.frames}, {clip.steps} steps apart)"
            )


def oversized(recipe: Recipe, frames: int) -> Iterator[str]:
    """What to say of parts that are larger than what they learn from.

    Args:
        recipe: the run.
        frames: of the training episodes.
    """
    latent, vision = recipe.model.latent_action, recipe.model.vision
    for one in recipe.objectives:
        if isinstance(one, DinoConfig) and one.prototypes > _PROTOTYPES and frames < _SMALL:
            yield (
                f"objectives.dino.prototypes: {one.prototypes:,} for {frames:,} frames; of so few, "
                f"more than {_PROTOTYPES:,} are hardly ever anybody's"
            )
        learns = isinstance(one, LatentActionObjectiveConfig) and latent is not None
        if learns and latent is not None and isinstance(latent.bottleneck, ContinuousBottleneck):
            foretold = 3 * latent.image_size**2
            if latent.target == "latents":
                foretold = vision.patches * vision.transformer.width
            if latent.bottleneck.width >= foretold:
                yield (
                    f"model.latent_action.bottleneck.width: {latent.bottleneck.width:,} numbers "
                    f"can hold all {foretold:,} of what is foretold, so nothing makes them say "
                    "what is done instead"
                )


def check_labels(recipe: Recipe, samples: Samples) -> None:
    """Labels are one whole number a frame, each of them a class."""
    for one in recipe.objectives:
        if not isinstance(one, SupervisedConfig):
            continue
        for name, classes in one.classes.items():
            values, field = samples.column(name), f"objectives.supervised.classes.{name}"
            if values.ndim != 1 or values.dtype.kind not in "biu":
                shape = "" if values.ndim == 1 else f" of shape {list(values.shape[1:])}"
                raise RecipeError(
                    f"{field}: found {values.dtype}{shape}; allowed: features of one whole number "
                    "a frame"
                )
            least, most = int(values.min()), int(values.max())
            if least < 0 or most >= classes:
                raise RecipeError(
                    f"{field}: found {classes} for labels from {least} to {most}; allowed: more "
                    "than the largest, and none below 0"
                )


def _check_queues(recipe: Recipe, frames: int) -> None:
    """A queue of keys holds fewer than there are pictures."""
    for one in recipe.objectives:
        if isinstance(one, MoCoConfig) and one.queue >= frames:
            raise RecipeError(
                f"objectives.mo_co.queue: found {one.queue}; allowed: fewer than the {frames} "
                "frames to train on, or each picture's own older key would be among its negatives"
            )


def check_window(recipe: Recipe, epoch: int) -> None:
    """Weights by how losses fell from one window to the next need two of them, of whole rounds."""
    tasks = recipe.tasks
    if tasks is None or not isinstance(tasks.weighting, DwaWeights):
        return
    window, steps = tasks.weighting.window or epoch, recipe.schedule.steps
    found = (
        f"tasks.weighting.window: found {window}{'' if tasks.weighting.window else ' (an epoch)'}"
    )
    if 2 * window >= steps:
        raise RecipeError(
            f"{found}; allowed: less than half of schedule.steps ({steps}), or no weight would "
            "ever change"
        )
    turns = 1 if tasks.alternate is None else len(tasks.alternate.pattern)
    if window % turns:
        raise RecipeError(
            f"{found}; allowed: multiples of {turns}, the length of tasks.alternate.pattern, or "
            "windows would hold other turns"
        )


def check_mirror(recipe: Recipe, samples: Samples) -> None:
    """What a mirror is said to change are numbers that the data set has."""
    flip = recipe.augmentation.flip
    if flip is None:
        return
    if unread := set(flip.labels or {}) - {
        name for one in recipe.objectives for name in one.labels
    }:
        raise RecipeError(
            f"augmentation.flip.labels: found {min(unread)!r}, which no objective reads as labels"
        )
    for what, feature in (("actions", recipe.data.action), ("states", recipe.data.state)):
        pairs = flip.exchanged(what)
        _check_width(f"augmentation.flip.{what}", flip.negated(what), feature, samples)
        _check_width(
            f"augmentation.flip.exchanged_{what}", {*pairs, *pairs.values()}, feature, samples
        )


def check_places(recipe: Recipe, samples: Samples) -> None:
    """Places in the picture are numbers that the data set has, and in the picture."""
    places = recipe.data.places
    if places is None:
        return
    whole = np.array([places.width, places.height])
    for what, feature in (("actions", recipe.data.action), ("states", recipe.data.state)):
        for place in places.of(what):
            _check_width(f"data.places.{what}", place, feature, samples)
            found = samples.numbers(feature, np.arange(len(samples)))[:, list(place)]
            share = float(((found >= 0) & (found <= whole)).all(axis=1).mean())
            if share < _MOST:
                raise RecipeError(
                    f"data.places.{what}: found {list(place)}, which {feature} has from "
                    f"{found.min():g} to {found.max():g} and in {share:.0%} of the frames in the "
                    f"picture; allowed: numbers that are mostly between 0 and data.places.width "
                    f"({whole[0]:g}) and height ({whole[1]:g})"
                )


def _check_width(
    field: str, numbers: Collection[int], feature: str | None, samples: Samples
) -> None:
    """Numbers are some of the feature's; one that is missing is told by who reads it."""
    known = samples.dataset.info.features
    if feature in known and numbers and max(numbers) >= math.prod(known[feature].shape):
        raise RecipeError(
            f"{field}: found {max(numbers)}; allowed: 0 to "
            f"{math.prod(known[feature].shape) - 1}, the numbers of {feature}"
        )


def check_mirrored_words(recipe: Recipe, instructions: Sequence[str]) -> None:
    """A mirror exchanges what instructions say to have sides."""
    flip, task = recipe.augmentation.flip, recipe.data.task
    if flip is None:
        return
    try:
        check_sides(flip.words, instructions)
    except ValueError as error:
        raise RecipeError(f"augmentation.flip.words: {error}") from error
    if task is not None and any(task in one.labels for one in recipe.objectives):
        try:
            check_sided_labels(flip.labels or {}, task, instructions)
        except ValueError as error:
            raise RecipeError(f"augmentation.flip.labels: {error}") from error


def _any(reads: Sequence[Reads], wanted: Reads) -> bool:
    return any(wanted in one for one in reads)


def _either(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))
