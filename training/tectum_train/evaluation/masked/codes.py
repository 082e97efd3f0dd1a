"""Codes of pictures: does the codebook live, do pictures survive it, and are codes understood?

Both need what a bundle has not, a tokenizer or BEiT's head: they are measured at the end of the
run that trained them.

Letters: n frames, S the model's side, N patches, X numbers in a patch, K codes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from tectum_core.masks import block_mask
from tectum_core.model import patchify
from tectum_train.data.samples import Samples
from tectum_train.evaluation import gates
from tectum_train.evaluation.measuring.context import Context, model_input, of_others
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.paired import beside
from tectum_train.image_tokenizer import ImageTokenizer
from tectum_train.losses.codes import code_uses, perplexity, usage

__all__ = ["CodeGuesser", "measure_image_codes", "measure_masked_codes"]

_FRAMES, _BATCH, _HIDDEN = 1024, 128, 0.4


class CodeGuesser(Protocol):
    """What BEiT is, as far as it is measured."""

    tokenizer: ImageTokenizer
    """Whose codes are guessed."""

    def codes(self, pixels: Tensor) -> Tensor:
        """float[n, 3, S, S] to int64[n, N]."""

    def logits(self, pixels: Tensor, hidden: Tensor) -> Tensor:
        """float[n, 3, S, S] and bool[n, N] to float[n, N, K]."""


def _pixels(
    context: Context, samples: Samples, index: NDArray[np.int64]
) -> Iterator[tuple[slice, Tensor]]:
    """Frames in batches, and which of the index each batch has."""
    for start in range(0, len(index), _BATCH):
        part = slice(start, start + _BATCH)
        yield part, model_input(context.predictor, samples.frames[index[part]])


def _chosen(context: Context, samples: Samples, stream: str) -> NDArray[np.int64]:
    return context.generator(stream).permutation(len(samples))[:_FRAMES]


@torch.inference_mode()
def measure_image_codes(context: Context, tokenizer: ImageTokenizer) -> list[Measure]:
    """Usage and perplexity of the codebook on held-out frames, and what painting them loses."""
    size, patch = len(tokenizer.codebook), tokenizer.encoder.config.patch_size
    train = _chosen(context, context.train, "mean picture")
    mean = torch.zeros((), device=context.predictor.device)
    for _, pixels in _pixels(context, context.train, train):
        mean = mean + patchify(pixels, patch).sum(dim=0) / len(train)
    index = _chosen(context, context.test, "image codes")
    strangers = index[of_others(context.test.episode[index], context.generator("other codes"))]
    uses = torch.zeros(size)
    sums = dict.fromkeys(("own", "other", "mean"), 0.0)
    for part, pixels in _pixels(context, context.test, index):
        codes, true = tokenizer.codes(pixels), patchify(pixels, patch)
        uses += code_uses(codes, size).cpu()
        swapped = model_input(context.predictor, context.test.frames[strangers[part]])
        for name, said in (
            ("own", tokenizer.decode(tokenizer.codebook.of(codes))),
            ("other", tokenizer.decode(tokenizer.codebook.of(tokenizer.codes(swapped)))),
            ("mean", mean),
        ):
            sums[name] += float((said - true).square().sum())
    lively, painted = float(perplexity(uses)), sums["own"] / sums["mean"]
    return [
        Measure(
            f"image codes, share of {size} in use",
            float(usage(uses)),
            {},
            gates.USAGE_RULE,
            gates.codes_are_used(float(usage(uses))),
            context.counted(index, "frames"),
        ),
        Measure(
            "image codes, perplexity",
            lively,
            {gates.ALL_ALIKE: float(size)},
            gates.PERPLEXITY_RULE,
            gates.codes_are_varied(lively, size),
        ),
        Measure(
            "image codes, painted picture's error ÷ mean patch of each place",
            painted,
            {gates.OTHER_CODES: sums["other"] / sums["mean"]},
            gates.PAINTED_RULE,
            gates.codes_are_painted(painted),
        ),
    ]


@torch.inference_mode()
def measure_masked_codes(context: Context, guesser: CodeGuesser) -> list[Measure]:
    """How often the code of a hidden patch is guessed, block masks over 0.4 of each frame.

    Beside the commonest code of the training frames and the same guess in another frame's context.
    """
    size = guesser.tokenizer.shape.codes
    grid = guesser.tokenizer.encoder.config.grid
    train = _chosen(context, context.train, "commonest code")
    uses = torch.zeros(size)
    for _, pixels in _pixels(context, context.train, train):
        uses += code_uses(guesser.codes(pixels), size).cpu()
    index = _chosen(context, context.test, "masked codes")
    strangers = index[of_others(context.test.episode[index], context.generator("other frames"))]
    generator = Generator().manual_seed(context.seed_of("hidden codes"))
    hits: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    episode = list[NDArray[np.int64]]()
    for part, pixels in _pixels(context, context.test, index):
        blocks = [block_mask(grid, grid, _HIDDEN, generator) for _ in range(len(pixels))]
        hidden = torch.stack(blocks).to(pixels.device)
        codes = guesser.codes(pixels)[hidden]
        swapped = model_input(context.predictor, context.test.frames[strangers[part]])
        episode.append(np.repeat(context.test.episode[index[part]], hidden.sum(dim=1).tolist()))
        for name, said in (
            ("model", guesser.logits(pixels, hidden).argmax(dim=-1)[hidden]),
            ("majority", torch.full_like(codes, int(uses.argmax()))),
            ("other", guesser.logits(swapped, hidden).argmax(dim=-1)[hidden]),
        ):
            hits[name].append((said == codes).double().cpu().numpy())
    right = {name: np.concatenate(parts) for name, parts in hits.items()}
    others = {gates.COMMONEST_CODE: right["majority"], gates.OTHER_CONTEXT: right["other"]}
    controls, errors = beside(right["model"], others, np.concatenate(episode))
    accuracy = float(right["model"].mean())
    return [
        Measure(
            "masked code, accuracy",
            accuracy,
            controls,
            gates.CODE_RULE,
            gates.code_is_guessed(accuracy, controls, errors),
            context.counted(index, "frames"),
            errors=errors,
        )
    ]
