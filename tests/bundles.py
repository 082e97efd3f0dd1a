"""Tiny untrained bundles and pictures, for whoever tests against a model."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tectum_core.architecture import (
    ActionConfig,
    FsqBottleneck,
    FusionConfig,
    JointConfig,
    LatentActionConfig,
    ModelConfig,
    PixelDecoderConfig,
    TextConfig,
    TransformerConfig,
    TransformerDynamicsConfig,
    VisionConfig,
    WorldModelConfig,
)
from tectum_core.preprocess import ActionScaling, ImagePreprocessing
from tectum_core.tokenizer import Tokenizer
from tectum_core.untrained import write_untrained

SIDE = 32
"""Of the model's input, pixels."""
INTERVAL, TOLERANCE = 0.05, 0.01
"""Between the two frames of a latent action, seconds."""
SCALING = ActionScaling(
    names=("x", "y", "z", "grip"),
    mean=(0.1, 0.2, 0.3, 0.4),
    standard_deviation=(1.0, 2.0, 0.5, 0.1),
    step_interval=0.0125,
    state_names=("x", "y", "z"),
    state_mean=(0.0, 0.5, 1.0),
    state_standard_deviation=(1.0, 2.0, 4.0),
)
IMAGES = ImagePreprocessing(size=SIDE)


def stack(width: int = 32, depth: int = 1, **changes: Any) -> TransformerConfig:
    """A small stack of blocks."""
    given = {"width": width, "depth": depth, "heads": 2, "hidden": 2 * width, **changes}
    return TransformerConfig.model_validate(given)


@cache
def tokenizer() -> Tokenizer:
    """A vocabulary that knows a few instructions whole."""
    words = "open close push pull the a red blue green drawer door button quickly slowly"
    return Tokenizer.train([words], 120)


def vision(**changes: Any) -> VisionConfig:
    """A trunk on 4×4 patches."""
    given = {"transformer": stack(depth=2), "image_size": SIDE, "patch_size": 8, **changes}
    return VisionConfig.model_validate(given)


def bare_model(**changes: Any) -> ModelConfig:
    """A vision trunk, and whatever is put on it."""
    return ModelConfig.model_validate({"vision": vision(), **changes})


def full_model(**changes: Any) -> ModelConfig:
    """A model that has every part."""
    parts = {
        "text": TextConfig(
            transformer=stack(), vocabulary_size=tokenizer().vocabulary_size, max_tokens=12
        ),
        "joint": JointConfig(width=16, truncations=(8,)),
        "pixel_decoder": PixelDecoderConfig(transformer=stack(), text_context=True),
        "video": vision(
            transformer=stack(), frames=4, tubelet_frames=2, frame_interval=0.1, class_token=True
        ),
        "video_decoder": PixelDecoderConfig(transformer=stack()),
        "fusion": FusionConfig(transformer=stack()),
        "actions": ActionConfig(dimensions=4, state_dimensions=3, max_steps=8),
        "latent_action": LatentActionConfig(
            dynamics=TransformerDynamicsConfig(transformer=stack()),
            bottleneck=FsqBottleneck(codes=2),
            image_size=16,
            interval=INTERVAL,
            tolerance=TOLERANCE,
            decoded_steps=4,
        ),
        "world_model": world_model(),
    }
    return bare_model(**{**parts, **changes})


def world_model(**changes: Any) -> WorldModelConfig:
    """A world model of patch tokens that reads the robot's own actions and paints frames."""
    given = {
        "transformer": stack(),
        "history": 3,
        "action_steps": 4,
        "interval": INTERVAL,
        "max_steps": 6,
        "decoder": stack(),
        **changes,
    }
    return WorldModelConfig.model_validate(given)


def write_full(folder: Path, seed: int = 0, **changes: Any) -> str:
    """Write a bundle that has every part, `changes` to the model aside; gives its version."""
    return write_untrained(folder, full_model(**changes), IMAGES, tokenizer(), SCALING, seed)


def write_bare(folder: Path, seed: int = 0, **changes: Any) -> str:
    """Write a bundle that embeds images and does nothing else; gives its version."""
    return write_untrained(folder, bare_model(**changes), IMAGES, seed=seed)


def picture(seed: int = 0, height: int = 40, width: int = 56) -> NDArray[np.uint8]:
    """uint8[H, W, 3] with some structure: a few coloured rectangles on a gradient."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], -1)
    for _ in range(4):
        top, left = draw.integers(height - 4), draw.integers(width - 4)
        bottom, right = top + draw.integers(4, height), left + draw.integers(4, width)
        pixels[top:bottom, left:right] = draw.integers(0, 256, 3)
    return pixels.astype(np.uint8)


def clip(seed: int = 0, frames: int = 4, height: int = 40, width: int = 56) -> NDArray[np.uint8]:
    """uint8[T, H, W, 3]."""
    return np.stack([picture(seed * 100 + frame, height, width) for frame in range(frames)])


def actions(seed: int = 0, steps: int = 8) -> NDArray[np.float32]:
    """float32[T, 4] in the robot's units."""
    drawn = np.random.default_rng(seed).normal(size=(steps, len(SCALING.names)))
    return (drawn * SCALING.standard_deviation + SCALING.mean).astype(np.float32)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """The same pixels, losslessly, as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
