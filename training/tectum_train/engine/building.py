"""What a run is made of: data, tokenizer, scales, model and objectives, as its recipe says them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from tectum_core.bundle import BundleConfig, Part, TrainingSummary
from tectum_core.model import PerceptionModel
from tectum_core.model.outline import outlined
from tectum_core.preprocess import ActionScaling
from tectum_core.tokenizer import Tokenizer
from tectum_train.data.samples import Samples
from tectum_train.engine.accumulation import division, indivisible
from tectum_train.engine.agreement import (
    check_labels,
    check_mirror,
    check_mirrored_words,
    check_places,
    check_recorded,
    check_window,
)
from tectum_train.engine.begun import begin_with_trunk, trunk_of
from tectum_train.engine.scaling import scaling_of, shown_actions
from tectum_train.engine.words import sentences
from tectum_train.objectives import Objective, WeightedSum, objective_for
from tectum_train.objectives.masked_language import MaskedLanguageConfig
from tectum_train.recipe import Recipe, RecipeError, expanded
from tectum_train.tasks import CrossStitch, ManyTasks, views_of

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
        DataError: the folder is not as it should be, or `train` lacks a feature.
        RecipeError: it is not there or only holds such folders, `train` and the recipe contradict
            each other, or `augmentation.flip` names numbers that it has not, or in `train` words,
            or `data.places` numbers that are no places in its pictures.
    """
    root = expanded(recipe.data.train if split == "train" else recipe.data.test)
    if not root.exists():
        raise RecipeError(
            f"data.{split}: {root} is not there; name a LeRobot v3.0 folder by "
            f"--set data.{split}=FOLDER"
        )
    within = root / split
    if not (root / "meta").exists() and (within / "meta").exists():
        raise RecipeError(
            f"data.{split}: found {root}, which is no LeRobot data set but holds one; allowed: "
            f"{within}"
        )
    samples = Samples.open(
        root,
        recipe.data.camera,
        recipe.images,
        expanded(recipe.data.cache),
        progress,
        partial(check_recorded, recipe) if split == "train" else lambda _: None,
    )
    check_mirror(recipe, samples)
    if split == "train":
        check_places(recipe, samples)
        check_mirrored_words(recipe, samples.instructions)
    return samples


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
    check_labels(recipe, samples)
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
        check_window(recipe, epoch)
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
    kinds = [one.kind for one in recipe.objectives]
    learning = [one.kind for one in recipe.objectives if one.trains_trunk(recipe.model)]
    views = views_of(model, kinds, sharing, learning)
    parts = [
        (one.weight, objective_for(one, views[one.kind], tokenizer)) for one in recipe.objectives
    ]
    for _, part in parts:
        part.check(recipe.images)
    return views, parts
