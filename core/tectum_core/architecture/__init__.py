"""Configuration of every part of a model; with the weights, all that is needed to rebuild it.

Plain data, checked at the door: no torch, no files. The parts themselves live in `model`
and are read from here. A part that is None is a part the model lacks, and with it the
capabilities that need it.

A default never changes: bundles leave out of their space ids whatever is at its default.
"""

from tectum_core.architecture.fusion import ActionBinsConfig, ActionConfig, FusionConfig
from tectum_core.architecture.latent_action import (
    Bottleneck,
    ContinuousBottleneck,
    ConvolutionDynamicsConfig,
    Dynamics,
    FsqBottleneck,
    LatentActionConfig,
    TransformerDynamicsConfig,
    VqBottleneck,
)
from tectum_core.architecture.model import ModelConfig
from tectum_core.architecture.text import JointConfig, TextConfig
from tectum_core.architecture.transformer import Strict, TransformerConfig
from tectum_core.architecture.vision import PixelDecoderConfig, StemConfig, VisionConfig
from tectum_core.architecture.world_model import WorldModelConfig

__all__ = [
    "ActionBinsConfig",
    "ActionConfig",
    "Bottleneck",
    "ContinuousBottleneck",
    "ConvolutionDynamicsConfig",
    "Dynamics",
    "FsqBottleneck",
    "FusionConfig",
    "JointConfig",
    "LatentActionConfig",
    "ModelConfig",
    "PixelDecoderConfig",
    "StemConfig",
    "Strict",
    "TextConfig",
    "TransformerConfig",
    "TransformerDynamicsConfig",
    "VisionConfig",
    "VqBottleneck",
    "WorldModelConfig",
]
