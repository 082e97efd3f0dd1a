"""Golden inputs: what every head of a bundle is asked to prove that it runs as it should.

No input is rounded near the middle of two levels when it is resized: there two processors differ
by a whole level.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_core.architecture import ModelConfig
from tectum_core.bundle import Bundle, BundleConfig
from tectum_core.masks import random_mask
from tectum_core.model.world_model import action_width
from tectum_core.preprocess import ImagePreprocessing, resample

__all__ = ["ROLLED", "SEEN", "golden_inputs", "outline"]

SEEN, ROLLED = 2, 2
"""Frames before and in a golden rollout."""
_PICTURES, _SEQUENCES = 3, 2
_MARGIN = 0.01
"""Of a level; resampling on two processors differs by far less."""
_NUDGES = 50
"""Rounds of them; a handful is enough where pictures shrink."""


def golden_inputs(bundle: Bundle, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs of the shapes that the bundle takes.

    Pictures are larger than the model's side, so that resizing is proved too.

    Raises:
        ValueError: no pictures were found that every processor resizes to the same levels.
    """
    generator = np.random.default_rng(seed)
    model, scaling = bundle.config.model, bundle.config.actions
    side = model.vision.image_size
    images = _smooth(generator, _PICTURES, side + side // 2, 2 * side)
    inputs = {"input/images": _settled(images, bundle.config.images, generator)}
    inputs["input/image_mask"] = _scattered(_PICTURES, model.vision.patches, 0.75)
    if model.video is not None:
        frames = _smooth(generator, model.video.frames, side, side)
        inputs["input/clip"] = _settled(frames, bundle.config.images, generator)
        inputs["input/clip_mask"] = _scattered(1, model.video.patches, 0.75)
    if model.actions is not None and scaling is not None:
        shape = (_SEQUENCES, model.actions.max_steps, model.actions.dimensions)
        drawn = _around(generator, shape, scaling.mean, scaling.standard_deviation)
        inputs["input/actions"] = drawn
        inputs["input/action_mask"] = _scattered(_SEQUENCES, model.actions.max_steps, 0.5)
        inputs["input/states"] = _around(
            generator,
            (_SEQUENCES, model.actions.state_dimensions),
            scaling.state_mean,
            scaling.state_standard_deviation,
        )
    if model.world_model is not None:
        for name, (steps, numbers) in _world_actions(model).items():
            # Latent actions are about as large as standardised ones.
            mean, spread = (0.0,) * numbers, (1.0,) * numbers
            if model.world_model.actions == "real" and scaling is not None:
                mean, spread = scaling.mean, scaling.standard_deviation
            inputs[f"input/{name}"] = _around(generator, (steps, numbers), mean, spread)
    return inputs


def _world_actions(model: ModelConfig) -> dict[str, tuple[int, int]]:
    """Steps and numbers of what is done before a golden rollout and in it, by the input's name."""
    world = model.world_model
    if world is None or world.actions == "none":
        return {}
    each = world.action_steps or 1
    numbers = action_width(world, model.actions, model.latent_action) // each
    seen = min(SEEN, world.history)
    return {
        "world_past": ((seen - 1) * each, numbers),
        "world_actions": (ROLLED * each, numbers),
    }


def outline(config: BundleConfig) -> dict[str, Tensor]:
    """What `golden_inputs` makes for such a bundle, without memory: on torch's meta device."""
    model = config.model
    side, clip = model.vision.image_size, model.video
    shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "images": (torch.uint8, (_PICTURES, side + side // 2, 2 * side, 3)),
        "image_mask": (torch.bool, (_PICTURES, model.vision.patches)),
    }
    if clip is not None:
        shapes["clip"] = torch.uint8, (clip.frames, side, side, 3)
        shapes["clip_mask"] = torch.bool, (1, clip.patches)
    if model.actions is not None:
        steps = model.actions.max_steps
        shapes["actions"] = torch.float32, (_SEQUENCES, steps, model.actions.dimensions)
        shapes["action_mask"] = torch.bool, (_SEQUENCES, steps)
        shapes["states"] = torch.float32, (_SEQUENCES, model.actions.state_dimensions)
    shapes |= {name: (torch.float32, shape) for name, shape in _world_actions(model).items()}
    return {
        f"input/{name}": torch.empty(shape, dtype=dtype, device="meta")
        for name, (dtype, shape) in shapes.items()
    }


def _smooth(
    generator: np.random.Generator, count: int, height: int, width: int
) -> NDArray[np.uint8]:
    """uint8[count, height, width, 3], a few waves in each channel."""
    rows = np.arange(height)[:, None, None] / height
    columns = np.arange(width)[None, :, None] / width
    pictures = []
    for _ in range(count):
        frequency = generator.uniform(1, 6, size=(2, 3))
        phase = generator.uniform(0, 6.28, size=3)
        wave = np.sin(6.28 * (rows * frequency[0] + columns * frequency[1]) + phase)
        pictures.append(np.rint(127.5 + 127.5 * wave).astype(np.uint8))
    return np.stack(pictures)


def _settled(
    pictures: NDArray[np.uint8], spec: ImagePreprocessing, generator: np.random.Generator
) -> Tensor:
    """The pictures, a few pixels nudged, so that no resized value lies between two levels."""
    settled = torch.from_numpy(pictures)
    for _ in range(_NUDGES):
        resampled = resample(settled, spec).float()
        near = ((resampled - resampled.floor() - 0.5).abs() < _MARGIN).nonzero()
        if not len(near):
            return settled
        picture, channel, row, column = near.T
        row = ((row + 0.5) * settled.shape[1] / resampled.shape[2]).long()
        column = ((column + 0.5) * settled.shape[2] / resampled.shape[3]).long()
        nudge = torch.from_numpy(generator.choice([-2, -1, 1, 2], len(near)))
        place = (picture, row, column, channel)
        settled[place] = (settled[place] + nudge).clamp(0, 255).to(torch.uint8)
    raise ValueError(
        f"after {_NUDGES} rounds of nudging, {len(near)} values of the resized golden pictures "
        f"still lie near the middle of two levels; images.resize_to ({spec.resize_to}) may be too "
        f"far above images.size ({spec.size})"
    )


def _around(
    generator: np.random.Generator,
    shape: tuple[int, ...],
    mean: tuple[float, ...],
    spread: tuple[float, ...],
) -> Tensor:
    """float32[shape] in a robot's units, as its data are spread."""
    drawn = generator.normal(size=shape) * np.array(spread) + np.array(mean)
    return torch.from_numpy(drawn.astype(np.float32))


def _scattered(batch: int, elements: int, ratio: float) -> Tensor:
    """bool[batch, elements]: the same scattered choice in every row."""
    mask = random_mask(elements, ratio, torch.Generator().manual_seed(0))
    return mask.expand(batch, -1).clone()
