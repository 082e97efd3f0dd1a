"""Golden outputs: a bundle's own proof that it runs here as it ran where it was trained.

Making them: a few fixed inputs go through every head on the float32 reference, and
inputs and outputs are stored in the bundle. Checking them: the same inputs go through
the predictor at hand, and every output must come close enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_core.bundle import Bundle
from tectum_core.masks import random_mask
from tectum_core.predictor import Predictor

__all__ = ["GoldenMismatch", "GoldenReport", "check_golden", "golden_inputs", "make_golden"]

Precision = Literal["float32", "bfloat16", "int8"]


class GoldenMismatch(ValueError):
    """A host does not reproduce a bundle's golden outputs; says which, and by how much."""


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """How close a host came."""

    outputs: int
    """Outputs compared."""
    min_cosine: float
    """Over all outputs."""
    max_abs_difference: float
    """Over all outputs."""


def golden_inputs(bundle: Bundle, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs of the shapes that the bundle takes.

    Pictures are larger than the model's side, so that resizing is proved too.
    """
    generator = np.random.default_rng(seed)
    model = bundle.config.model
    side = model.vision.image_size
    inputs = {"input/images": torch.from_numpy(_smooth(generator, 3, side + side // 2, 2 * side))}
    inputs["input/image_mask"] = _scattered(3, model.vision.patches, 0.75)
    if model.video is not None:
        frames = _smooth(generator, model.video.frames, side, side)
        inputs["input/clip"] = torch.from_numpy(frames)
        inputs["input/clip_mask"] = _scattered(1, model.video.patches, 0.75)
    if model.actions is not None and bundle.config.actions is not None:
        shape = (2, model.actions.max_steps, model.actions.dimensions)
        spread = np.array(bundle.config.actions.standard_deviation)
        drawn = generator.normal(size=shape) * spread + np.array(bundle.config.actions.mean)
        inputs["input/actions"] = torch.from_numpy(drawn.astype(np.float32))
        inputs["input/action_mask"] = _scattered(2, model.actions.max_steps, 0.5)
    return inputs


def make_golden(
    bundle: Bundle, inputs: Mapping[str, Tensor], texts: tuple[str, ...]
) -> dict[str, Tensor]:
    """Inputs and float32 reference outputs, as `golden.safetensors` holds them."""
    outputs = _run(Predictor(bundle), inputs, texts)
    return {**inputs, **{f"output/{name}": torch.from_numpy(v) for name, v in outputs.items()}}


def check_golden(predictor: Predictor, precision: Precision = "float32") -> GoldenReport:
    """Run the golden inputs here and compare.

    Raises:
        GoldenMismatch: an input cannot be run; an output is missing, of another shape, or too far
            away; or the bundle states no tolerance for `precision`.
    """
    bundle = predictor.bundle
    if not any(name.startswith("output/") for name in bundle.golden):
        raise GoldenMismatch(f"{bundle.name}: the bundle has no golden outputs")
    tolerance = bundle.config.tolerances.get(precision)
    if tolerance is None:
        raise GoldenMismatch(f"{bundle.name} states no tolerance for {precision}")
    inputs = {k: v for k, v in bundle.golden.items() if k.startswith("input/")}
    try:
        found = _run(predictor, inputs, bundle.golden_texts)
    except KeyError as error:
        raise GoldenMismatch(f"{bundle.name}: the golden tensors lack {error.args[0]}") from error
    except (ValueError, RuntimeError, IndexError) as error:  # inputs that fit no such model
        raise GoldenMismatch(f"{bundle.name}: its golden inputs do not run: {error}") from error
    wanted = {
        key.removeprefix("output/"): value.numpy()
        for key, value in bundle.golden.items()
        if key.startswith("output/")
    }
    if found.keys() != wanted.keys():
        differing = ", ".join(sorted(found.keys() ^ wanted.keys()))
        raise GoldenMismatch(f"{bundle.name}: golden outputs and heads differ: {differing}")
    cosines, differences, failures = [1.0], [0.0], []
    for name, reference in sorted(wanted.items()):
        cosine, difference = _compare(found[name], reference, bundle.name, name)
        cosines.append(cosine)
        differences.append(difference)
        allowed = tolerance.max_relative_difference * float(np.abs(reference).max())
        if not (cosine >= tolerance.min_cosine and difference <= allowed):
            failures.append(
                f"{name}: cosine {cosine:.6f} (at least {tolerance.min_cosine}), "
                f"largest difference {difference:.3g} (at most {allowed:.3g})"
            )
    if failures:
        raise GoldenMismatch(
            f"{bundle.name} does not reproduce its golden outputs here in {precision}: "
            + "; ".join(failures)
        )
    return GoldenReport(len(wanted), min(cosines), max(differences))


def _run(
    predictor: Predictor, inputs: Mapping[str, Tensor], texts: tuple[str, ...]
) -> dict[str, NDArray[np.float32]]:
    """Every head's outputs, by name."""
    model = predictor.model
    images = list(inputs["input/images"].numpy())
    outputs = {
        "pooled": predictor.embed_images(images, "pooled"),
        "tokens": predictor.embed_images(images, "tokens"),
    }
    if model.joint is not None:
        outputs["joint_image"] = predictor.embed_images(images, "joint")
        outputs["joint_text"] = predictor.embed_texts(texts)
    if model.pixel_decoder is not None:
        filled = predictor.fill_images(images, inputs["input/image_mask"])
        outputs["filled_images"] = np.nan_to_num(filled.error)
    if model.video is not None:
        clip = [inputs["input/clip"].numpy()]
        outputs["clip_pooled"] = predictor.embed_clips(clip, "pooled")
        if model.video_decoder is not None:
            filled = predictor.fill_clips(clip, inputs["input/clip_mask"])
            outputs["filled_clips"] = np.nan_to_num(filled.error)
    if model.fusion is not None:
        ids = [predictor.encode(text).ids for text in texts]
        outputs["filled_texts"] = predictor.fill_texts(ids, images[: len(ids)]).probabilities
    if predictor.config.actions is not None:
        outputs["filled_actions"] = predictor.fill_actions(
            inputs["input/actions"].numpy(), inputs["input/action_mask"], images[:2], texts[:2]
        )
    if model.latent_action is not None:
        decode = model.latent_action.action_decoder is not None
        latent = predictor.latent_actions(images[:-1], images[1:], decode, predict_frames=True)
        outputs["latent_action"] = latent.vectors
        if latent.frames is not None:
            outputs["predicted_frames"] = latent.frames.astype(np.float32)
        if latent.actions is not None:
            outputs["decoded_actions"] = latent.actions
    return outputs


def _compare(
    found: NDArray[np.float32], reference: NDArray[np.float32], bundle: str, name: str
) -> tuple[float, float]:
    if found.shape != reference.shape:
        raise GoldenMismatch(
            f"{bundle}: golden output {name} has shape {reference.shape}, found {found.shape}"
        )
    a, b = found.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / norm if norm else float(np.array_equal(a, b))
    return cosine, float(np.abs(a - b).max())


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


def _scattered(batch: int, elements: int, ratio: float) -> Tensor:
    """bool[batch, elements]: the same scattered choice in every row."""
    mask = random_mask(elements, ratio, torch.Generator().manual_seed(0))
    return mask.expand(batch, -1).clone()
