"""What a run is made of: data, tokenizer, scales, model and objectives, as its recipe says them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from tectum_core.bundle import BundleConfig, Part, TrainingSummary
from tectum_core.model import PerceptionModel
from tectum_core.model.outline import outlined
from tectum_core.preprocess import ActionScaling
from tectum_core.tokenizer import Tokenizer
from tectum_train.data.samples import Samples
from tectum_train.engine.accumulation import division, indivisible
from tectum_train.engine.begun import begin_with_trunk, trunk_of
from tectum_train.engine.scaling import scaling_of, shown_actions
from tectum_train.engine.words import check_sided_labels, check_sides, sentences
from tectum_train.objectives import Objective, WeightedSum, objective_for
from tectum_train.objectives.masked_language import MaskedLanguageConfig
from tectum_train.objectives.mo_co import MoCoConfig
from tectum_train.recipe import Recipe, RecipeError, expanded
from tectum_train.tasks import CrossStitch, DwaWeights, ManyTasks, views_of

__all__ = ["Run", "build", "check_parts", "open_samples", "servable"]


@dataclass(frozen=True, slots=True)
class Run:
    """What a run has made."""

    recipe: Recipe
    model: PerceptionModel
    tokenizer: Tokenizer | None
    scaling: ActionScaling | None
    config: BundleConfig
    """Of the bundle that it becomes, not yet evaluated."""
    folder: Path
    objective: WeightedSum | ManyTasks
    """What was learnt, with what belongs to no model (projectors, queues, predictors)."""
    begun: tuple[Part, ...] = ()
    """Parts that came trained from another bundle."""
    views: Mapping[str, Run] = field(default_factory=dict)
    """Where objectives have a trunk each: the run as each of them sees it, by its kind."""

    @property
    def parts(self) -> tuple[Objective, ...]:
        """The objectives, as the recipe lists them."""
        return tuple(part for part in self.objective.parts if isinstance(part, Objective))

    def summed_up(self, **facts: object) -> Run:
        """The same, with these facts in its bundle's training summary."""
        summary = self.config.training.model_copy(update=facts)
        return replace(self, config=self.config.model_copy(update={"training": summary}))


def servable(recipe: Recipe) -> bool:
    """Whether its model will be one by itself; trunks that are stitched together are none."""
    return recipe.tasks is None or not isinstance(recipe.tasks.sharing, CrossStitch)


def open_samples(recipe: Recipe, split: str, progress: Callable[[int, int], None]) -> Samples:
    """The recipe's `train` or `test` data, its frames decoded and cached.

    Raises:
        DataError: the folder is not as it should be.
        RecipeError: it is not there, or `augmentation.flip` names numbers that it has not, or in
            `train` words.
    """
    root = expanded(recipe.data.train if split == "train" else recipe.data.test)
    if not root.exists():
        raise RecipeError(
            f"data.{split}: {root} is not there; name a LeRobot v3.0 folder by "
            f"--set data.{split}=FOLDER"
        )
    samples = Samples.open(
        root,
        recipe.data.camera,
        recipe.images,
        expanded(recipe.data.cache),
        progress,
    )
    _check_mirror(recipe, samples)
    if split == "train":
        _check_sides(recipe, samples.instructions)
    return samples


def _check_sides(recipe: Recipe, instructions: Sequence[str]) -> None:
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


def check_parts(recipe: Recipe) -> None:
    """Refuse what needs no data to be refused: before they are decoded, and without memory.

    Raises:
        BundleError: the trunk that it begins with is in no sound bundle.
        RecipeError: that trunk is another than the recipe's, or an objective that must see a
            batch as a whole is given pieces of it (`schedule.micro_batch`).
        ValueError: an objective lacks a part of the model, or a file.
    """
    with outlined():
        model = PerceptionModel(recipe.model)
        text = recipe.model.text
        tokenizer = None if text is None else Tokenizer.train((), text.vocabulary_size)
        _, parts = _objectives(recipe, model, tokenizer)
        whole = indivisible(WeightedSum(parts))
    if whole and division(recipe) > 1:
        raise RecipeError(f"schedule.micro_batch: {', '.join(whole)} must see a batch as a whole")
    trunk_of(recipe)


def build(recipe: Recipe, samples: Samples, folder: Path) -> Run:
    """Tokenizer from the instructions, scales from the actions, the rest from the recipe.

    Raises:
        RecipeError: recipe and data contradict each other.
    """
    _check_interval(recipe, samples.dataset.info.fps)
    _check_queues(recipe, len(samples))
    text = recipe.model.text
    tokenizer = (
        None
        if text is None
        else Tokenizer.train(sentences(recipe, samples.instructions), text.vocabulary_size)
    )
    scaling = None if recipe.model.actions is None else scaling_of(recipe, samples)
    summary = TrainingSummary(
        recipe=recipe.name,
        data=recipe.data.train,
        steps=recipe.schedule.steps,
        seed=recipe.seed,
        commit="",
        words_hidden=next(
            (one.ratio for one in recipe.objectives if isinstance(one, MaskedLanguageConfig)), None
        ),
    )
    try:
        config = BundleConfig(
            model=recipe.model, images=recipe.images, actions=scaling, training=summary
        )
    except ValidationError as error:
        told = "; ".join(found["msg"] for found in error.errors())
        raise RecipeError(f"{recipe.name} on this data set: {told}") from error
    model = PerceptionModel(recipe.model)
    bins = None if model.fusion is None else model.fusion.bins
    if bins is not None and bins.config.spacing == "quantiles" and scaling is not None:
        bins.fit(shown_actions(recipe, samples, scaling))
    begun = begin_with_trunk(model, recipe)
    views, parts = _objectives(recipe, model, tokenizer)
    if recipe.tasks is None:
        objective: WeightedSum | ManyTasks = WeightedSum(parts)
    else:
        trunks = list({id(view.vision): view.vision for view in views.values()}.values())
        epoch = math.ceil(len(samples) / recipe.schedule.batch_size)
        _check_window(recipe, epoch)
        objective = ManyTasks(parts, trunks, recipe.tasks, epoch)
    sharing = None if recipe.tasks is None else recipe.tasks.sharing
    run = Run(recipe, model, tokenizer, scaling, config, folder, objective, begun)
    if sharing is None:
        return run
    return replace(run, views={kind: replace(run, model=view) for kind, view in views.items()})


def _objectives(
    recipe: Recipe, model: PerceptionModel, tokenizer: Tokenizer | None
) -> tuple[dict[str, PerceptionModel], list[tuple[float, Objective]]]:
    """What each takes for the model, by its kind; and each of them, with its weight."""
    sharing = None if recipe.tasks is None else recipe.tasks.sharing
    views = views_of(model, [one.kind for one in recipe.objectives], sharing)
    parts = [
        (one.weight, objective_for(one, views[one.kind], tokenizer)) for one in recipe.objectives
    ]
    for _, part in parts:
        part.check(recipe.images)
    return views, parts


def _check_queues(recipe: Recipe, frames: int) -> None:
    """A queue of keys holds fewer than there are pictures."""
    for one in recipe.objectives:
        if isinstance(one, MoCoConfig) and one.queue >= frames:
            raise RecipeError(
                f"objectives.mo_co.queue: found {one.queue}; allowed: fewer than the {frames} "
                "frames to train on, or each picture's own older key would be among its negatives"
            )


def _check_window(recipe: Recipe, epoch: int) -> None:
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


def _check_mirror(recipe: Recipe, samples: Samples) -> None:
    """What a mirror is said to change are numbers that the data set has."""
    flip, known = recipe.augmentation.flip, samples.dataset.info.features
    if flip is None:
        return
    if unread := set(flip.labels or {}) - {
        name for one in recipe.objectives for name in one.labels
    }:
        raise RecipeError(
            f"augmentation.flip.labels: found {min(unread)!r}, which no objective reads as labels"
        )
    for key, feature, places in (
        ("actions", recipe.data.action, flip.actions),
        ("states", recipe.data.state, flip.states),
    ):
        if feature not in known or not places:
            continue  # what is missing is told by who reads it
        width = math.prod(known[feature].shape)
        if max(places) >= width:
            raise RecipeError(
                f"augmentation.flip.{key}: found {max(places)}; allowed: 0 to {width - 1}, the "
                f"numbers of {feature}"
            )
