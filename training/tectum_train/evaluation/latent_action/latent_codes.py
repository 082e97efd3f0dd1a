"""Codes of latent actions: does the codebook live?

Letters: n pairs, C codes of one, K of the codebook.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_core.model.bottleneck import codebook_size
from tectum_core.predictor import Predictor
from tectum_train.evaluation import gates
from tectum_train.evaluation.measuring.context import Context
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.pairs import Pairs
from tectum_train.losses.codes import code_uses, perplexity

__all__ = ["measure_latent_codes"]

_BATCH = 256


def measure_latent_codes(context: Context, pairs: Pairs) -> list[Measure]:
    """How many codes held-out pairs have, and how evenly; of a continuous latent nothing."""
    module = context.predictor.model.latent_action
    size = 0 if module is None else codebook_size(module.config.bottleneck)
    if not size:
        return []
    uses, strange = (_uses(one, pairs, size) for one in (context.predictor, context.twin))
    said = int(uses.sum())
    used, varied = _in_use(uses), float(perplexity(uses))
    whole = gates.codes_to_fill(size, said)
    return [
        Measure(
            f"latent action, codes in use of {size}",
            used,
            {gates.RANDOM_INIT: _in_use(strange), gates.TO_FILL: whole},
            gates.LATENT_CODES_RULE,
            gates.latent_codes_are_used(used, whole),
            f"{said} codes of {len(np.unique(pairs.episode))} episodes",
        ),
        Measure(
            "latent action, perplexity of its codes",
            varied,
            {gates.RANDOM_INIT: float(perplexity(strange)), gates.TO_FILL: whole},
            gates.LATENT_PERPLEXITY_RULE,
            gates.latent_codes_are_varied(varied, whole),
        ),
    ]


def _in_use(uses: Tensor) -> float:
    """Codes that have at least a tenth of what each would have if all were alike."""
    return float((uses >= 0.1 * uses.mean()).logical_and(uses > 0).sum())


def _uses(predictor: Predictor, pairs: Pairs, size: int) -> Tensor:
    """How often each code is said: float32[K]."""
    total = torch.zeros(size)
    for start in range(0, len(pairs), _BATCH):
        part = pairs.at(slice(start, start + _BATCH))
        codes: NDArray[np.int64] | None = predictor.latent_actions(
            list(part.earlier), list(part.later)
        ).codes
        if codes is not None:
            total += code_uses(torch.from_numpy(codes), size)
    return total
