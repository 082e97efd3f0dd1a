"""Golden outputs: a bundle's own proof that it runs here as it ran where it was trained.

Making them: a few fixed inputs go through every head on the float32 reference, and
inputs and outputs are stored in the bundle. Checking them: the same inputs go through
the predictor at hand, and every output must come close enough. Outputs are compared
before they are rounded to pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_core.bundle import Bundle
from tectum_core.golden_inputs import ROLLED, SEEN, outline
from tectum_core.launching.faults import device_lost
from tectum_core.model import WorldModel
from tectum_core.predictor import Predictor
from tectum_core.rollouts import RolloutRequest

__all__ = [
    "LONGEST_TEXT",
    "TEXTS",
    "GoldenMismatch",
    "GoldenReport",
    "check_golden",
    "make_golden",
]

TEXTS = 3
"""Golden texts of a model that reads any."""
LONGEST_TEXT = 4096
"""Characters of one golden text, at most."""
_Item = TypeVar("_Item")


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


def make_golden(
    bundle: Bundle, inputs: Mapping[str, Tensor], texts: tuple[str, ...]
) -> dict[str, Tensor]:
    """Inputs and float32 reference outputs, as `golden.safetensors` holds them."""
    outputs = _run(Predictor(bundle), inputs, texts)
    return {**inputs, **{f"output/{name}": torch.from_numpy(v) for name, v in outputs.items()}}


def check_golden(predictor: Predictor) -> GoldenReport:
    """Run the golden inputs here and compare, as close as the predictor's numerics must come.

    Raises:
        GoldenMismatch: an input is not what such a model has, or cannot be run; an output is
            missing, of another shape, or too far away; or the bundle states no tolerance for
            this precision.
        torch.AcceleratorError: the device is lost.
    """
    bundle, precision = predictor.bundle, predictor.numerics.precision
    if not any(name.startswith("output/") for name in bundle.golden):
        raise GoldenMismatch(f"{bundle.name}: the bundle has no golden outputs")
    tolerance = bundle.config.tolerances.get(precision)
    if tolerance is None:
        raise GoldenMismatch(f"{bundle.name} states no tolerance for {precision}")
    inputs = {k: v for k, v in bundle.golden.items() if k.startswith("input/")}
    _check_inputs(bundle, inputs)
    try:
        found = _run(predictor, inputs, bundle.golden_texts)
    except (ValueError, RuntimeError, IndexError, TypeError) as error:  # values that fit no model
        if device_lost(error, predictor.device):
            raise
        raise GoldenMismatch(f"{bundle.name}: its golden inputs do not run: {error}") from error
    wanted = {
        key.removeprefix("output/"): _array(value)
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


def _check_inputs(bundle: Bundle, inputs: Mapping[str, Tensor]) -> None:
    """That they are as many and as large as `golden_inputs` makes them; more cost memory."""
    expected = outline(bundle.config)
    for name in sorted(expected.keys() - inputs.keys()):
        raise GoldenMismatch(f"{bundle.name}: the golden tensors lack {name}")
    for name in sorted(inputs.keys() - expected.keys()):
        raise GoldenMismatch(f"{bundle.name}: the golden tensors have {name}, which no head reads")
    for name, tensor in inputs.items():
        found, wanted = _form(tensor), _form(expected[name])
        if found != wanted:
            raise GoldenMismatch(f"{bundle.name}: golden {name} is {found}; allowed is {wanted}")
    count = TEXTS if bundle.config.model.text is not None else 0
    lengths = [len(text) for text in bundle.golden_texts]
    if len(lengths) != count or max(lengths, default=0) > LONGEST_TEXT:
        raise GoldenMismatch(
            f"{bundle.name}: golden texts of {lengths[: TEXTS + 1]} characters; allowed are "
            f"{count} of at most {LONGEST_TEXT}"
        )


def _form(tensor: Tensor) -> str:
    """Type and shape, such as `uint8[3, 48, 64, 3]`."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _run(
    predictor: Predictor, inputs: Mapping[str, Tensor], texts: tuple[str, ...]
) -> dict[str, NDArray[np.float32]]:
    """Every head's outputs, by name, none rounded to pixels; of large ones a single example."""
    images = list(inputs["input/images"].numpy())
    model, learnt = predictor.model, predictor.config.training.learnt
    outputs = _of_images(predictor, images, inputs, texts)
    if model.video is not None and learnt("video"):
        clip = [inputs["input/clip"].numpy()]
        if learnt("video.pool"):
            outputs["clip_pooled"] = predictor.embed_clips(clip, "pooled")
        outputs["clip_tokens"] = predictor.embed_clips(clip, "tokens")
        outputs["clip_importance"] = predictor.clip_importance(clip)[0]
        if model.video_decoder is not None and learnt("video_decoder"):
            filled = predictor.fill_clips(clip, inputs["input/clip_mask"])
            outputs["filled_clips"] = np.nan_to_num(filled.error)
            outputs["painted_clips"] = _array(filled.painted)
    if model.fusion is not None and learnt("fusion.token_head"):
        ids = [predictor.encode(text).ids for text in texts[:1]]
        shown = images[:1] if learnt("fusion.from_image") else None
        outputs["filled_texts"] = predictor.fill_texts(ids, shown).probabilities
    acts = learnt("fusion.action_head", "fusion.actions.embed") and model.fusion is not None
    if predictor.config.actions is not None and acts:
        actions, hidden = inputs["input/actions"].numpy(), inputs["input/action_mask"]
        shown = images[:2] if learnt("fusion.from_image") else None
        told = texts[:2] if learnt("fusion.from_text") else None
        outputs["filled_actions"] = predictor.fill_actions(actions, hidden, shown, told)
        if predictor.config.actions.state_names and learnt("fusion.actions.embed_state"):
            outputs["filled_actions_in_state"] = predictor.fill_actions(
                actions, hidden, states=inputs["input/states"].numpy()
            )
    if model.latent_action is not None and learnt("latent_action"):
        decodes = learnt("latent_action.action_decoder")
        decode = decodes and model.latent_action.action_decoder is not None
        paints = model.latent_action.config.target == "pixels"
        latent = predictor.latent_actions(images[:-1], images[1:], decode, predict_frames=paints)
        outputs["latent_action"] = latent.vectors
        if latent.predicted is not None:
            outputs["predicted_frames"] = _array(latent.predicted)
        if latent.actions is not None:
            outputs["decoded_actions"] = latent.actions
    if model.world_model is not None and learnt("world_model", *predictor.rollout_reads):
        outputs |= _rolled_out(predictor, model.world_model, images, inputs)
    return outputs


def _rolled_out(
    predictor: Predictor,
    world: WorldModel,
    images: list[NDArray[np.uint8]],
    inputs: Mapping[str, Tensor],
) -> dict[str, NDArray[np.float32]]:
    """One rollout after the first pictures, towards the last one."""
    decodes = world.decoder is not None and predictor.config.training.learnt("world_model.decoder")
    vectors = _embedded(
        predictor, partial(predictor.embed_images, vector=world.config.latents), images
    )
    seen, goal = vectors[None, : min(SEEN, world.config.history)], vectors[-1:]
    past, actions = (
        inputs[f"input/{name}"].numpy()[None] if world.action_width else None
        for name in ("world_past", "world_actions")
    )
    rolled = predictor.rollout(RolloutRequest(seen, ROLLED, past, actions, goal, decodes))
    outputs = {"rolled_out": rolled.latents[:, -1]}
    if rolled.distances is not None:
        outputs["rolled_out_distances"] = rolled.distances
    if rolled.painted is not None:
        outputs["rolled_out_frames"] = _array(rolled.painted[:, -1])
    return outputs


def _of_images(
    predictor: Predictor,
    images: list[NDArray[np.uint8]],
    inputs: Mapping[str, Tensor],
    texts: tuple[str, ...],
) -> dict[str, NDArray[np.float32]]:
    """What is said of single pictures and of texts beside them."""
    model, learnt = predictor.model, predictor.config.training.learnt
    outputs: dict[str, NDArray[np.float32]] = {}
    if learnt("vision", "vision.pool"):
        outputs["pooled"] = _embedded(
            predictor, partial(predictor.embed_images, vector="pooled"), images
        )
    if learnt("vision"):
        outputs["tokens"] = predictor.embed_images(images[:1], "tokens")
        outputs["importance"] = predictor.image_importance(images[:1])[0]
    if model.joint is not None and learnt("joint"):
        image = _embedded(predictor, partial(predictor.embed_images, vector="joint"), images)
        text = _embedded(predictor, predictor.embed_texts, texts)
        outputs["joint_image"], outputs["joint_text"] = image, text
        outputs["logits"] = predictor.logits(image @ text.T)
    if model.pixel_decoder is not None and learnt("pixel_decoder"):
        hidden = inputs["input/image_mask"]
        filled = predictor.fill_images(images, hidden)
        outputs["filled_images"] = np.nan_to_num(filled.error)
        outputs["painted_images"] = _array(filled.painted[:1])
        if model.pixel_decoder.config.text_context and learnt("pixel_decoder.from_text"):
            told = predictor.fill_images(images[:1], hidden[:1], texts[:1])
            outputs["filled_images_told"] = np.nan_to_num(told.error)
    return outputs


def _embedded(
    predictor: Predictor,
    embed: Callable[[Sequence[_Item]], NDArray[np.float32]],
    items: Sequence[_Item],
) -> NDArray[np.float32]:
    """Vectors of items, so many at once as graphs take at most: these are to prove themselves."""
    most = predictor.lane.most if predictor.lane else len(items)
    parts = [items[first : first + most] for first in range(0, len(items), most)]
    return np.concatenate([embed(part) for part in parts])


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()


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
