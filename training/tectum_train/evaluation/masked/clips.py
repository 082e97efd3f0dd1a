"""Masked clips: is what was hidden filled in from what was seen?

Against what needs no understanding: predicting zero, the mean tubelet, another clip's context, and
copying. Under a tube mask no frame shows what is hidden, so what can be copied is the nearest
visible tubelet: of the same place in the nearest step where it is to be seen, else of the nearest
place. Copying the hidden place from the neighbouring step all the same, which the model cannot, is
told beside it and is no gate: of what stands still it makes a perfect copy.

Letters: n clips, T frames, S the model's side, N tubelets, X numbers in a tubelet.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from tectum_core.masks import random_mask, tube_mask, visible_indices
from tectum_core.model import patchify
from tectum_core.model.vision import take
from tectum_train.data.samples import Samples
from tectum_train.evaluation import gates
from tectum_train.evaluation.measuring.context import (
    Context,
    model_input,
    of_others,
    starts,
    steps_between,
)
from tectum_train.evaluation.measuring.measure import Measure

__all__ = ["measure_masked_clips", "nearest_visible", "steps_between"]

_CLIPS, _BATCH = 512, 32


@torch.inference_mode()
def measure_masked_clips(context: Context) -> list[Measure]:
    """VideoMAE's masked loss as a share of predicting zero, under tube masks.

    Raises:
        NothingToMeasure: no episode is as long as a clip, or no frames are as far apart as its.
    """
    model, device = context.predictor.model, context.predictor.device
    trunk, decoder = model.video, model.video_decoder
    if trunk is None or decoder is None:
        return []
    shape = trunk.config
    steps = steps_between(shape.frame_interval or 0.0, context.test.dataset.info.fps)
    length = steps * (shape.frames - 1)
    generator = Generator().manual_seed(context.seed_of("hidden tubelets"))

    def chosen(samples: Samples, stream: str) -> NDArray[np.int64]:
        found = starts(samples, length)
        return found[context.generator(stream).permutation(len(found))[:_CLIPS]]

    def target(samples: Samples, start: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """float[n, 3, T, S, S], and what is to be said of each tubelet, float[n, N, X]."""
        at = start[:, None] + steps * np.arange(shape.frames)
        pixels = model_input(context.predictor, samples.frames[at.reshape(-1)])
        clips = pixels.unflatten(0, at.shape).transpose(1, 2)
        patches = patchify(clips, shape.patch_size, shape.tubelet_frames)
        return clips, decoder.target(patches).values

    train = chosen(context.train, "mean tubelet")
    mean = torch.zeros((), device=device)
    for start in range(0, len(train), _BATCH):
        _, values = target(context.train, train[start : start + _BATCH])
        mean = mean + values.sum(dim=0) / len(train)
    index = chosen(context.test, "masked clips")
    strangers = index[of_others(context.test.episode[index], context.generator("other clips"))]
    names = ("model", "zero", "mean", "other", "visible", "neighbour")
    sums = dict.fromkeys(names, 0.0)
    for start in range(0, len(index), _BATCH):
        part = slice(start, start + _BATCH)
        clips, true = target(context.test, index[part])
        places, ratio = shape.grid**2, decoder.config.mask_ratio
        frames = [random_mask(places, ratio, generator) for _ in range(len(clips))]
        hidden = torch.stack([tube_mask(shape.steps, frame) for frame in frames])
        copied = nearest_visible(hidden, shape.steps, shape.grid).to(device)
        keep, hidden = visible_indices(hidden).to(device), hidden.to(device)
        swapped, _ = target(context.test, strangers[part])
        for name, said in (
            ("model", decoder(trunk(clips, keep).tokens, keep).values),
            ("zero", torch.zeros_like(true)),
            ("mean", mean.expand_as(true)),
            ("other", decoder(trunk(swapped, keep).tokens, keep).values),
            ("visible", take(true, copied)),
            ("neighbour", _neighbour(true, shape.steps)),
        ):
            sums[name] += float((said.float() - true).square().mean(dim=-1)[hidden].sum())
    relative = {name: value / sums["zero"] for name, value in sums.items()}
    controls = {
        gates.MEAN_TUBELET: relative["mean"],
        gates.OTHER_CLIP: relative["other"],
        gates.COPY_VISIBLE: relative["visible"],
        gates.COPY_HIDDEN: relative["neighbour"],
    }
    return [
        Measure(
            "masked clip, error ÷ predicting zero",
            relative["model"],
            controls,
            gates.CLIP_RULE,
            gates.clip_is_filled(relative["model"], controls),
            context.counted(index, "clips"),
        )
    ]


def nearest_visible(hidden: Tensor, steps: int, grid: int) -> Tensor:
    """Which visible tubelet lies nearest to each: by place first, then by time.

    Args:
        hidden: bool[n, N], oldest first, something visible in each row.
        steps: along time.
        grid: along a side; N = steps·grid².

    Returns:
        int64[n, N]; a visible one's own place. Of several as near, the first.
    """
    step, row, column = torch.meshgrid(
        torch.arange(steps), torch.arange(grid), torch.arange(grid), indexing="ij"
    )
    step, row, column = (one.flatten() for one in (step, row, column))
    apart = (row[:, None] - row).square() + (column[:, None] - column).square()
    # No distance in time is as much as one step to the side.
    cost = (apart * steps + (step[:, None] - step).abs()).float()
    return torch.stack([cost.masked_fill(one[None], torch.inf).argmin(dim=1) for one in hidden])


def _neighbour(tubelets: Tensor, steps: int) -> Tensor:
    """What each place of float[n, N, X] holds a step before; in the first step, a step after."""
    by_step = tubelets.unflatten(1, (steps, -1))
    if steps == 1:
        return tubelets
    return torch.cat([by_step[:, 1:2], by_step[:, :-1]], dim=1).flatten(1, 2)
