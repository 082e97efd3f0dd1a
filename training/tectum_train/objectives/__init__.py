"""What can be learnt: a discriminated list of configurations, and what builds each.

The type checker catches a configuration that nothing builds.
"""

from __future__ import annotations

from typing import Annotated, assert_never

from pydantic import Field

from tectum_core.model import PerceptionModel
from tectum_core.tokenizer import Tokenizer
from tectum_train.objectives.base import (
    Averaged,
    Coupled,
    Objective,
    Outcome,
    PartSettings,
    Sums,
)
from tectum_train.objectives.batch import Batch, Clip, Reads
from tectum_train.objectives.beit import Beit, BeitConfig
from tectum_train.objectives.cpc import Cpc, CpcConfig
from tectum_train.objectives.dino import Dino, DinoConfig
from tectum_train.objectives.image_codes import ImageCodes, ImageCodesConfig
from tectum_train.objectives.image_text import ImageText, ImageTextConfig
from tectum_train.objectives.latent_action import LatentAction, LatentActionObjectiveConfig
from tectum_train.objectives.masked_action import (
    ActionPrediction,
    ActionPredictionConfig,
    MaskedAction,
    MaskedActionConfig,
)
from tectum_train.objectives.masked_image import MaskedImage, MaskedImageConfig
from tectum_train.objectives.masked_language import MaskedLanguage, MaskedLanguageConfig
from tectum_train.objectives.mo_co import MoCo, MoCoConfig
from tectum_train.objectives.r3m import R3m, R3mConfig
from tectum_train.objectives.sim_clr import SimClr, SimClrConfig
from tectum_train.objectives.supervised import Supervised, SupervisedConfig
from tectum_train.objectives.video_mae import VideoMae, VideoMaeConfig
from tectum_train.objectives.weighted import WeightedSum, named
from tectum_train.objectives.world_model import WorldModelObjective, WorldModelObjectiveConfig

__all__ = [
    "Averaged",
    "Batch",
    "Clip",
    "Coupled",
    "Objective",
    "ObjectiveConfig",
    "Outcome",
    "PartSettings",
    "Reads",
    "Sums",
    "WeightedSum",
    "named",
    "objective_for",
]

ObjectiveConfig = Annotated[
    ImageTextConfig
    | MaskedImageConfig
    | MaskedLanguageConfig
    | MaskedActionConfig
    | ActionPredictionConfig
    | LatentActionObjectiveConfig
    | SimClrConfig
    | MoCoConfig
    | DinoConfig
    | SupervisedConfig
    | CpcConfig
    | R3mConfig
    | WorldModelObjectiveConfig
    | BeitConfig
    | ImageCodesConfig
    | VideoMaeConfig,
    Field(discriminator="kind"),
]


def objective_for(
    config: ObjectiveConfig, model: PerceptionModel, tokenizer: Tokenizer | None
) -> Objective:
    """The objective that `config` describes.

    Raises:
        ValueError: the model lacks a part that it needs.
    """
    match config:
        case ImageTextConfig():
            return ImageText(config, model)
        case BeitConfig():
            return Beit(config, model)
        case ImageCodesConfig():
            return ImageCodes(config, model)
        case MaskedImageConfig():
            return MaskedImage(config, model)
        case MaskedLanguageConfig():
            if tokenizer is None or tokenizer.mask_id is None:
                raise ValueError("masked_language needs a tokenizer with [MASK]")
            return MaskedLanguage(config, model, tokenizer.mask_id, tokenizer.vocabulary_size)
        case MaskedActionConfig():
            return MaskedAction(config, model)
        case ActionPredictionConfig():
            return ActionPrediction(config, model)
        case LatentActionObjectiveConfig():
            return LatentAction(config, model)
        case SimClrConfig():
            return SimClr(config, model)
        case MoCoConfig():
            return MoCo(config, model)
        case DinoConfig():
            return Dino(config, model)
        case SupervisedConfig():
            return Supervised(config, model)
        case CpcConfig():
            return Cpc(config, model)
        case R3mConfig():
            return R3m(config, model)
        case WorldModelObjectiveConfig():
            return WorldModelObjective(config, model)
        case VideoMaeConfig():
            return VideoMae(config, model)
        case _:
            assert_never(config)
