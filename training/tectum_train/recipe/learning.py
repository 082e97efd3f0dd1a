"""Whether what is learnt, of which model and in which steps, is something that can be learnt.

Each check is told the parts of a recipe that it is about, and raises ValueError, which names the
field, what was found and what is allowed. Knows no whole recipe and no data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tectum_core.architecture import (
    ActionConfig,
    ModelConfig,
    PixelDecoderConfig,
    VqBottleneck,
)
from tectum_train.augment.settings import AugmentationConfig
from tectum_train.masking import ExplicitMask, check_mask
from tectum_train.objectives import ObjectiveConfig, PartSettings
from tectum_train.objectives.beit import BeitConfig
from tectum_train.objectives.dino import DinoConfig
from tectum_train.objectives.image_text import ImageTextConfig
from tectum_train.objectives.latent_action import LatentActionObjectiveConfig
from tectum_train.objectives.masked_action import ActionPredictionConfig, MaskedActionConfig
from tectum_train.objectives.masked_image import MaskedImageConfig
from tectum_train.objectives.masked_language import MaskedLanguageConfig
from tectum_train.objectives.mo_co import MoCoConfig
from tectum_train.objectives.r3m import R3mConfig
from tectum_train.objectives.video_mae import VideoMaeConfig
from tectum_train.objectives.world_model import WorldModelObjectiveConfig
from tectum_train.recipe.places import PlacesConfig
from tectum_train.recipe.sections import ScheduleConfig
from tectum_train.tasks import Distance, GradNormWeights, TasksConfig

__all__ = [
    "check_actions_are_learnt",
    "check_codes_can_live",
    "check_each_is_told_apart",
    "check_ends_are_reached",
    "check_frozen_patches",
    "check_gradients_meet",
    "check_masks_fit",
    "check_own_ratios_are_trained",
    "check_scale",
    "check_steps_are_large_enough",
    "check_trunk_is_learnt",
    "check_views_keep_sides",
]

_Objectives = Sequence[ObjectiveConfig]
_LARGEST_SCALE = 100.0
"""InfoNCE's, at which every step stops it (arXiv:2103.00020)."""


def check_each_is_told_apart(objectives: _Objectives) -> None:
    """No two are of one kind: their metrics and masks would have one name."""
    for kind, times in Counter(one.kind for one in objectives).items():
        if times > 1:
            raise ValueError(f"objectives: found {kind} {times} times; allowed: once each")


def check_trunk_is_learnt(
    objectives: _Objectives, tasks: TasksConfig | None, model: ModelConfig, trunk: str | None
) -> None:
    """What predicts a trunk's latents and leaves it as it is has one that somebody trains.

    Where trunks are drawn together, there are two or more, and the one that is served learns.
    """
    learning = [one.kind for one in objectives if one.trains_trunk(model)]
    sharing = None if tasks is None else tasks.sharing
    if isinstance(sharing, Distance):
        if len(learning) < 2:
            raise ValueError(
                "tasks.sharing: found distance; allowed: where two objectives or more train a "
                f"trunk (here: {', '.join(learning) or 'none'})"
            )
        if sharing.served not in learning:
            raise ValueError(
                f"tasks.sharing.served: found {sharing.served}, which trains no trunk; allowed: "
                f"{' or '.join(learning)}"
            )
    if trunk is not None or learning:
        return
    for one in objectives:
        if one.trains_trunk(model):
            continue
        if isinstance(one, WorldModelObjectiveConfig) or (
            isinstance(one, LatentActionObjectiveConfig)
            and model.latent_action is not None
            and model.latent_action.target == "latents"
        ):
            raise ValueError(
                f"objectives.{one.kind}.encoder: found 'detached'; allowed: 'trained', or what is "
                "predicted are a random trunk's latents; `trunk` may name a bundle's, or another "
                "objective train it"
            )


def check_actions_are_learnt(
    objectives: _Objectives, tasks: TasksConfig | None, model: ModelConfig
) -> None:
    """Actions that a world model reads or that are hidden mean something."""
    world, actions = model.world_model, model.actions
    learnt = any(isinstance(one, LatentActionObjectiveConfig) for one in objectives)
    for one in objectives:
        reads = isinstance(one, WorldModelObjectiveConfig) and world is not None
        latent = reads and world is not None and world.actions == "latent"
        if latent and not learnt:
            raise ValueError(
                "model.world_model.actions: found 'latent'; allowed: beside an objective "
                "latent_action alone, or nobody teaches what they are"
            )
        if latent and _read_by_own_trunks(model, tasks):
            raise ValueError(
                "model.world_model.actions: found 'latent'; allowed: with tasks.sharing null, or "
                "where model.latent_action reads pixels (dynamics.source): under soft sharing it "
                "would be taught on one trunk, and read another's tokens"
            )
        if isinstance(one, MaskedActionConfig) and actions is not None and actions.max_steps < 2:
            raise ValueError(
                f"model.actions.max_steps: found {actions.max_steps}; allowed: at least 2, of "
                "which masked_action hides some and shows some"
            )


def _read_by_own_trunks(model: ModelConfig, tasks: TasksConfig | None) -> bool:
    """Whether latent actions are made of trunk tokens, of which each objective has others."""
    apart = tasks is not None and tasks.sharing is not None
    return apart and model.latent_action is not None and model.latent_action.reads_trunk


def check_steps_are_large_enough(objectives: _Objectives, schedule: ScheduleConfig) -> None:
    """Samples that are told from each other are several, whatever ranks and pieces they come to."""
    for one in objectives:
        used = _used(one, schedule)
        if used < one.fewest:
            raise ValueError(
                f"schedule.batch_size: found {schedule.batch_size}, of which {one.kind} uses "
                f"{used}; allowed: so many that it uses {one.fewest} or more, which it tells apart"
            )


def check_ends_are_reached(
    objectives: _Objectives, tasks: TasksConfig | None, schedule: ScheduleConfig
) -> None:
    """What takes so many steps, or comes every so many, does so within the run.

    An objective that has turns counts these.
    """
    most, found = max(schedule.steps - 1, 1), dict[str, tuple[int, int, str]]()
    for one in objectives:
        own = _turns(one, tasks, schedule)
        if isinstance(one, DinoConfig):
            found |= {
                f"objectives.{one.kind}.teacher_steps": (
                    one.teacher_steps, own - 1, "the teacher's last temperature never comes"
                ),
                f"objectives.{one.kind}.frozen_steps": (
                    one.frozen_steps, own - 1, "prototypes never learn"
                ),
            }  # fmt: skip
        if isinstance(one, DinoConfig | MoCoConfig) and one.momentum_steps not in (0, own):
            raise ValueError(
                f"objectives.{one.kind}.momentum_steps: found {one.momentum_steps}; allowed: 0 or "
                f"{own}, all steps in which {one.kind} learns: with more, momentum never rises to "
                "1, and with fewer what follows the trunk stands still before the end "
                f"(schedule.steps: {schedule.steps})"
            )
    if tasks is not None:
        why = "gradients are looked at in the first step alone"
        found["tasks.conflict_every"] = (tasks.conflict_every, most, why)
        if isinstance(tasks.weighting, GradNormWeights):
            found["tasks.weighting.every"] = (tasks.weighting.every, most, why)
    late = [
        f"{field}: found {value}; allowed: at most {largest}, or {why}"
        for field, (value, largest, why) in found.items()
        if value > largest
    ]
    if late:
        raise ValueError(f"{'; '.join(late)} (schedule.steps: {schedule.steps})")


def check_gradients_meet(
    objectives: _Objectives, tasks: TasksConfig | None, model: ModelConfig
) -> None:
    """What compares gradients on the trunk has two objectives or more that have some there."""
    if tasks is None:
        return
    learning = [one.kind for one in objectives if one.trains_trunk(model)]
    for field, found in (
        ("tasks.weighting", "grad_norm" if isinstance(tasks.weighting, GradNormWeights) else ""),
        ("tasks.conflict_every", str(tasks.conflict_every or "")),
    ):
        if found and len(learning) < 2:
            raise ValueError(
                f"{field}: found {found}; allowed: where two objectives or more train the trunk, "
                f"on which gradients are compared (here: {', '.join(learning) or 'none'})"
            )


def check_masks_fit(objectives: _Objectives, model: ModelConfig) -> None:
    """What a mask hides is there, in pictures and in clips."""
    for one in objectives:
        trunk = model.video if isinstance(one, VideoMaeConfig) else model.vision
        if trunk is not None and isinstance(one, BeitConfig | MaskedImageConfig | VideoMaeConfig):
            try:
                check_mask(one.mask, trunk)
            except ValueError as error:
                raise ValueError(f"objectives.{one.kind}.{error}") from error


def check_codes_can_live(
    objectives: _Objectives, model: ModelConfig, schedule: ScheduleConfig
) -> None:
    """Codes that a step uses alike are used twice as often as those that are drawn anew."""
    latent = model.latent_action
    if latent is None or not isinstance(latent.bottleneck, VqBottleneck):
        return
    shape = latent.bottleneck
    for one in objectives:
        uses = _used(one, schedule) * shape.codes / shape.codebook_size
        if isinstance(one, LatentActionObjectiveConfig) and uses < 2 * shape.restart_below:
            raise ValueError(
                f"model.latent_action.bottleneck.restart_below: found {shape.restart_below:g}; "
                f"allowed: at most {uses / 2:g}, half of what each code is used if all are used "
                f"alike (schedule.batch_size {schedule.batch_size}, codes {shape.codes}, "
                f"codebook_size {shape.codebook_size})"
            )


def check_frozen_patches(objectives: _Objectives) -> None:
    """A projection of patches that stays random is nobody else's."""
    for one in objectives:
        if isinstance(one, MoCoConfig) and one.frozen_patches and len(objectives) > 1:
            others = ", ".join(other.kind for other in objectives if other is not one)
            raise ValueError(
                f"mo_co.frozen_patches: found true beside {others}; allowed: alone, as its patches "
                "are theirs too"
            )


def check_scale(objectives: _Objectives, model: ModelConfig) -> None:
    """InfoNCE's scale is what it may become."""
    for one in objectives:
        contrasts = isinstance(one, ImageTextConfig) and one.loss == "info_nce"
        if contrasts and model.joint is not None and model.joint.initial_scale > _LARGEST_SCALE:
            raise ValueError(
                f"model.joint.initial_scale: found {model.joint.initial_scale:g}; allowed: at most "
                f"{_LARGEST_SCALE:g}, where loss 'info_nce' stops it"
            )


def check_own_ratios_are_trained(objectives: _Objectives, model: ModelConfig) -> None:
    """What is hidden unless a request says how much is no more and no less than in training."""
    owners: dict[str, tuple[str, float] | None] = {
        "masked_image": _own_ratio("pixel_decoder", model.pixel_decoder),
        "video_mae": _own_ratio("video_decoder", model.video_decoder),
        "masked_action": _own_ratio("actions", model.actions),
    }
    for one in objectives:
        if isinstance(one, MaskedImageConfig | VideoMaeConfig):
            ratios = () if isinstance(one.mask, ExplicitMask) else one.mask.ratios
        else:
            ratios = one.ratios if isinstance(one, MaskedActionConfig) else ()
        owner = owners.get(one.kind)
        if owner is not None and ratios and not min(ratios) <= owner[1] <= max(ratios):
            raise ValueError(
                f"model.{owner[0]}.mask_ratio: found {owner[1]:g}; allowed: {min(ratios):g} to "
                f"{max(ratios):g}, as {one.kind} hides; it is what Reconstruct hides by default"
            )


def _own_ratio(
    part: str, config: PixelDecoderConfig | ActionConfig | None
) -> tuple[str, float] | None:
    return None if config is None else (part, config.mask_ratio)


def check_views_keep_sides(
    objectives: _Objectives,
    model: ModelConfig,
    augmentation: AugmentationConfig,
    places: PlacesConfig | None,
) -> None:
    """Views are not told alike with their mirrors on a trunk that must tell left from right."""
    views, flip = augmentation.views, augmentation.flip
    sided = dict[str, list[str]]()
    for one in objectives:
        for what in _with_sides(one, model) if views.flip else ():
            if flip is None or flip.changes(what) or (places and places.of(what)):
                sided.setdefault(what, []).append(one.kind)
    for what, kinds in sided.items():
        raise ValueError(
            f"augmentation.views.flip: found {views.flip:g}; allowed: 0 beside {', '.join(kinds)}, "
            f"whose {what} may name sides: the trunk would learn that left and right are one. Or "
            f"augmentation.flip.{what} says that they name none"
            f"{', and data.places likewise' if places and places.of(what) else ''}"
        )


def _with_sides(one: ObjectiveConfig, model: ModelConfig) -> tuple[str, ...]:
    """What an objective reads that may know left from right, as `augmentation.flip` calls it."""
    words = isinstance(one, ImageTextConfig | MaskedLanguageConfig | R3mConfig)
    decoder, world = model.pixel_decoder, model.world_model
    if isinstance(one, MaskedImageConfig):
        words = decoder is not None and decoder.text_context
    acts = isinstance(one, MaskedActionConfig | ActionPredictionConfig)
    if isinstance(one, WorldModelObjectiveConfig):
        acts = world is not None and world.actions == "real"
    if isinstance(one, LatentActionObjectiveConfig):
        acts = bool(one.decode_weight)
    found = {"words": words, "actions": acts, "labels": bool(one.labels)}
    return tuple(what for what, reads in found.items() if reads)


def _turns(objective: ObjectiveConfig, tasks: TasksConfig | None, schedule: ScheduleConfig) -> int:
    """In how many steps of a run an objective learns."""
    if tasks is None or tasks.alternate is None:
        return schedule.steps
    pattern = tasks.alternate.pattern
    rounds, rest = divmod(schedule.steps, len(pattern))
    return rounds * pattern.count(objective.kind) + pattern[:rest].count(objective.kind)


def _used(objective: ObjectiveConfig, schedule: ScheduleConfig) -> int:
    """Samples of a step that an objective uses, on all ranks."""
    share = objective.fraction if isinstance(objective, PartSettings) else 1.0
    return max(1, round(schedule.batch_size * share))
