"""Masked images: is what was hidden filled in from what was seen?

Against what needs no understanding: predicting zero, the mean patch, another image's context; a
shuffled instruction, and none.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from tectum_core.masks import random_mask, visible_indices
from tectum_core.model import patchify
from tectum_train.evaluation import gates
from tectum_train.evaluation.measuring.context import Context, model_input, of_others
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.paired import beside

__all__ = ["measure_masked_images", "measure_told_images"]

_FRAMES, _BATCH = 1024, 128


def _chosen(context: Context, count: int, stream: str) -> NDArray[np.int64]:
    """Held-out frames, drawn once for each purpose."""
    return context.generator(stream).permutation(len(context.test))[:count]


@torch.inference_mode()
def measure_masked_images(context: Context) -> list[Measure]:
    """MAE's masked loss as a share of predicting zero."""
    model, device = context.predictor.model, context.predictor.device
    if model.pixel_decoder is None:
        return []
    decoder, size = model.pixel_decoder, model.vision.config.patch_size
    count = model.vision.config.patches
    generator = Generator().manual_seed(context.seed_of("hidden patches"))

    def target(frames: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = model_input(context.predictor, frames)
        return pixels, decoder.target(patchify(pixels, size)).values

    index = _chosen(context, _FRAMES, "masked images")
    order = of_others(context.test.episode[index], context.generator("other contexts"))
    strangers = index[order]
    draw = context.generator("mean patch").permutation(len(context.train))[:_FRAMES]
    _, train = target(context.train.frames[np.sort(draw)])
    mean_patch = train.mean(dim=0)
    sums = dict.fromkeys(("model", "zero", "mean", "other"), 0.0)
    for start in range(0, len(index), _BATCH):
        part = slice(start, start + _BATCH)
        pixels, true = target(context.test.frames[index[part]])
        ratio = decoder.config.mask_ratio
        masks = [random_mask(count, ratio, generator) for _ in range(len(pixels))]
        hidden = torch.stack(masks)
        keep, hidden = visible_indices(hidden).to(device), hidden.to(device)
        guess = decoder(model.vision(pixels, keep).tokens, keep).values
        swapped, _ = target(context.test.frames[strangers[part]])
        other = decoder(model.vision(swapped, keep).tokens, keep).values
        for name, predicted in (
            ("model", guess),
            ("zero", torch.zeros_like(true)),
            ("mean", mean_patch.expand_as(true)),
            ("other", other),
        ):
            sums[name] += float((predicted - true).square().mean(dim=-1)[hidden].sum())
    relative = {name: value / sums["zero"] for name, value in sums.items()}
    controls = {
        gates.MEAN_PATCH: relative["mean"],
        gates.OTHER_CONTEXT: relative["other"],
    }
    return [
        Measure(
            "masked image, error ÷ predicting zero",
            relative["model"],
            controls,
            gates.IMAGE_RULE,
            gates.image_is_filled(relative["model"], controls),
            context.counted(index, "frames"),
        )
    ]


@torch.inference_mode()
def measure_told_images(context: Context) -> list[Measure]:
    """What the instruction tells of hidden patches: the same ones with it, another task's, none.

    Errors are squared, in the decoder's units: 1 is predicting zero where patches are normalised.
    """
    predictor = context.predictor
    vision, decoder = predictor.config.model.vision, predictor.config.model.pixel_decoder
    if decoder is None:
        return []
    index = _chosen(context, _FRAMES, "told images")
    generator = Generator().manual_seed(context.seed_of("told images' hidden patches"))
    masks = [random_mask(vision.patches, decoder.mask_ratio, generator) for _ in index]
    hidden, frames = torch.stack(masks), context.test.frames[index]
    sentences = [context.test.instructions[i] for i in context.test.column("task_index")[index]]
    strangers = of_others(
        context.families(context.test)[index], context.generator("shuffled instructions")
    )

    def errors(texts: list[str] | None) -> NDArray[np.float64]:
        """[n], of each frame's hidden patches."""
        parts = [slice(start, start + _BATCH) for start in range(0, len(index), _BATCH)]
        filled = [
            predictor.fill_images(
                list(frames[part]), hidden[part], None if texts is None else texts[part]
            )
            for part in parts
        ]
        return np.nanmean(np.concatenate([one.error for one in filled]).astype(np.float64), axis=1)

    told = errors(sentences)
    others = {
        gates.OTHER_WORDS: errors([sentences[i] for i in strangers]),
        gates.NO_WORDS: errors(None),
    }
    # Episodes of one sentence are told the same.
    controls, apart = beside(told, others, context.test.tasks(None)[index])
    error = float(told.mean())
    return [
        Measure(
            "masked image told its instruction, squared error",
            error,
            controls,
            gates.IMAGE_TOLD_RULE,
            gates.instruction_helps(error, controls, apart),
            context.counted(index, "frames"),
            errors=apart,
        )
    ]
