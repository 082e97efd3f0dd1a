"""No setting of a recipe is for something that nothing reads.

Each check is told the parts of a recipe that it is about, and raises ValueError, which names the
field, what was found and where it does something. Defaults are no refusal: a run's own recipe.json
writes all of them out. Knows no whole recipe and no data.
"""

from __future__ import annotations

from collections.abc import Sequence

from tectum_core.architecture import (
    ActionBinsConfig,
    ModelConfig,
    PixelDecoderConfig,
    Strict,
)
from tectum_train.augment.settings import AugmentationConfig, ViewsConfig
from tectum_train.objectives import ObjectiveConfig, Reads
from tectum_train.objectives.masked_action import ActionPredictionConfig, MaskedActionConfig
from tectum_train.objectives.masked_image import MaskedImageConfig
from tectum_train.objectives.r3m import R3mConfig
from tectum_train.objectives.sim_clr import SimClrConfig

__all__ = ["check_changes_are_seen", "check_settings_are_read"]

_Objectives = Sequence[ObjectiveConfig]


def check_settings_are_read(objectives: _Objectives, model: ModelConfig) -> None:
    """No setting is for a part that the model lacks, or that another setting puts out of use."""
    decoder, actions = model.pixel_decoder, model.actions
    for one in objectives:
        if isinstance(one, MaskedImageConfig) and not (decoder and decoder.text_context):
            one.refuse("text_share", "with model.pixel_decoder.text_context alone")
        acts = isinstance(one, MaskedActionConfig | ActionPredictionConfig)
        if acts and not (actions and actions.state_dimensions):
            one.refuse("state_share", "where model.actions.state_dimensions is not 0")
        paints = {"masked_image": decoder, "video_mae": model.video_decoder}.get(one.kind)
        if paints is not None and not paints.normalised_target:
            one.refuse("statistics_weight", "where the decoder's normalised_target is true")
        if isinstance(one, R3mConfig) and not one.language_weight:
            for name in ("hidden", "layers"):
                one.refuse(name, "where language_weight is not 0, as no reward is learnt")
        if isinstance(one, SimClrConfig | R3mConfig) and one.layers == 1:
            one.refuse("hidden", "with 2 layers or more, as one has no hidden ones")
    if model.video_decoder is not None and model.video_decoder.text_context:
        raise ValueError(
            "model.video_decoder.text_context: found true; allowed: false, as clips are filled in "
            "without words"
        )
    bins = actions.bins if actions else None
    if bins and bins.spacing == "quantiles" and bins.limit != _usual(ActionBinsConfig, "limit"):
        raise ValueError(
            f"model.actions.bins.limit: found {bins.limit:g}; allowed: with spacing 'uniform' "
            "alone, as quantiles end where the data do"
        )
    for part, paints in (("pixel_decoder", decoder), ("video_decoder", model.video_decoder)):
        usual = _usual(PixelDecoderConfig, "variance_floor")
        if paints and not paints.normalised_target and paints.variance_floor != usual:
            raise ValueError(
                f"model.{part}.variance_floor: found {paints.variance_floor:g}; allowed: where "
                "normalised_target is true"
            )


def check_changes_are_seen(objectives: _Objectives, augmentation: AugmentationConfig) -> None:
    """How frames are changed is said where an objective sees them, and of views likewise."""
    kinds = ", ".join(one.kind for one in objectives)
    if not any(one.sees_frames for one in objectives):
        for name, field in AugmentationConfig.model_fields.items():
            found = getattr(augmentation, name)
            if name != "views" and found and found != field.default:
                raise ValueError(
                    f"augmentation.{name}: found {_brief(found)}; allowed: where an objective sees "
                    f"frames; {kinds} see views, which augmentation.views changes"
                )
    views = augmentation.views
    for name in () if views.crops else ("crop_area", "crop_size", "small"):
        if getattr(views, name) != _usual(ViewsConfig, name):
            raise ValueError(
                f"augmentation.views.{name}: found {_brief(getattr(views, name))}; allowed: where "
                "augmentation.views.crops is not 0, as it is of small views"
            )
    _check_colours(views)
    compared = any(Reads.VIEWS in one.reads or Reads.CROPS in one.reads for one in objectives)
    for name, field in ViewsConfig.model_fields.items():
        found, usual = getattr(augmentation.views, name), field.default
        if found and found != usual and not compared:
            raise ValueError(
                f"augmentation.views.{name}: found {_brief(found)}; allowed: where an objective "
                f"compares views ({kinds})"
            )


def _check_colours(views: ViewsConfig) -> None:
    """Views whose colours change do so by something, and others by nothing."""
    amounts = {name: getattr(views, name) for name in ("colour", "hue", "saturation")}
    if not views.colour_share:
        for name, found in amounts.items():
            if found and found != _usual(ViewsConfig, name):
                raise ValueError(
                    f"augmentation.views.{name}: found {found:g}; allowed: where "
                    "augmentation.views.colour_share is not 0, as no view changes its colours"
                )
    elif not any(amounts.values()) and views.colour_share != _usual(ViewsConfig, "colour_share"):
        raise ValueError(
            f"augmentation.views.colour_share: found {views.colour_share:g}; allowed: where "
            "colour, hue or saturation is not 0, or no colour changes"
        )


def _usual(section: type[Strict], name: str) -> object:
    return section.model_fields[name].default


def _brief(value: object) -> object:
    return value.model_dump() if isinstance(value, Strict) else value
