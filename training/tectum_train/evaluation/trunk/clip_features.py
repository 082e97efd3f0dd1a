"""What a frozen clip trunk tells of a clip's task: the probes of pictures, on clips.

A clip's vector is the mean of its tokens, which every training of a clip trunk reaches, where it
may not reach what pools them.

Letters: n clips, T frames, S the model's side, D width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tectum_core.predictor import Predictor
from tectum_train.data.samples import Samples
from tectum_train.evaluation import gates
from tectum_train.evaluation.measuring.context import (
    Context,
    NothingToMeasure,
    second_half,
    starts,
    steps_between,
)
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.pixels import flat_pixels
from tectum_train.evaluation.measuring.probes import Pca
from tectum_train.evaluation.trunk.neighbours import TRUNK, Arms, Features, tasks_told

__all__ = ["measure_clip_features"]

_FITTED, _ASKED, _BATCH = 1024, 768, 64
_COMPONENTS = 256


def measure_clip_features(context: Context) -> list[Measure]:
    """Clip → task family, of clips that end in the second half of an episode.

    Raises:
        NothingToMeasure: no episode is as long as a clip, or all is of one task.
    """
    config = context.predictor.config.model.video
    if config is None:
        return []
    steps = steps_between(config.frame_interval or 0.0, context.test.dataset.info.fps)
    length = steps * (config.frames - 1)

    def chosen(samples: Samples, most: int) -> NDArray[np.int64]:
        found = starts(samples, length)
        found = found[np.isin(found + length, second_half(samples))]
        if not len(found):
            raise NothingToMeasure("no clip ends in the second half of an episode")
        return found[:: -(-len(found) // most)]

    def vectors(predictor: Predictor, samples: Samples, at: NDArray[np.int64]) -> Features:
        parts = list[NDArray[np.float32]]()
        for start in range(0, len(at), _BATCH):
            moments = at[start : start + _BATCH, None] + steps * np.arange(config.frames)
            clips = [samples.frames[one] for one in moments]
            parts.append(predictor.embed_clips(clips, "tokens").mean(axis=1))
        return np.concatenate(parts)

    def ends(samples: Samples, at: NDArray[np.int64]) -> Features:
        first, last = flat_pixels(samples.frames, at), flat_pixels(samples.frames, at + length)
        return np.concatenate([first, last], axis=1)

    fitted_at, asked_at = chosen(context.train, _FITTED), chosen(context.test, _ASKED)

    def features() -> Arms:
        pixels = ends(context.train, fitted_at)
        components = Pca(pixels, _COMPONENTS)
        told = components(pixels), components(ends(context.test, asked_at))
        return {
            TRUNK: [_both(context.predictor)],
            gates.RANDOM_INIT: [_both(twin) for twin in context.twins],
            f"{gates.PIXELS} of its ends": [told],
        }

    def _both(predictor: Predictor) -> tuple[Features, Features]:
        fitted = vectors(predictor, context.train, fitted_at)
        return fitted, vectors(predictor, context.test, asked_at)

    draw = context.generator("episodes with a task's label, of clips")
    return tasks_told(context, "frozen clip trunk", "clips", fitted_at, asked_at, features, draw)
