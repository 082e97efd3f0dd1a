"""A latent action in another scene: does what it paints there move the same way?

What is painted is read by a probe of its own, fitted on true pairs of frames and blind to z, so
that no message which inverse and forward dynamics may have agreed on counts as a motion.

Letters: n pairs, s side of the module's frames, d numbers of what forward dynamics predicts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_core.model import LatentActionModel
from tectum_core.model.bottleneck import latent_width
from tectum_core.predictor import Predictor
from tectum_train.evaluation import gates
from tectum_train.evaluation.measuring.context import Context, model_input, of_others
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.pairs import Pairs
from tectum_train.evaluation.measuring.probes import Pca, fit_ridge

__all__ = ["measure_transfer"]

_TRAIN_PAIRS, _COMPONENTS, _BATCH = 6_000, 256, 256
_FLOATS = 2**28
"""In one array of changes: a gibibyte."""

Changes = NDArray[np.float32]


@torch.inference_mode()
def measure_transfer(context: Context, train: Pairs, test: Pairs) -> list[Measure]:
    """Cosine, in plane, of the motion that z paints in another episode with that of its own pair.

    Beside it stands what anybody could do who keeps as many numbers of a pair as z has: paste its
    difference into the other scene, as far as so many principal components tell it.

    Over the half of the pairs that move more: where nothing moves there is no direction.

    Args:
        context: of a predictor of latent actions.
        train: what the probe is fitted on, as many of them as it takes.
        test: what is measured on.
    """
    predictor, module = context.predictor, context.predictor.model.latent_action
    if module is None:
        return []
    dynamics = _Dynamics(predictor, module)
    far = np.linalg.norm(test.moved[:, :2], axis=1)
    test = test.at(np.flatnonzero(far >= np.median(far)))
    most = max(_COMPONENTS, _FLOATS // dynamics.true(test.at(slice(1))).shape[1])
    count = min(_TRAIN_PAIRS, most, len(train))
    train = train.at(np.linspace(0, len(train) - 1, count).astype(np.int64))
    seen = dynamics.true(train)
    components = Pca(seen, _COMPONENTS)
    fitted = components(seen)
    del seen

    def told(shown: NDArray[np.float64], moved: NDArray[np.float64]) -> float:
        read = fit_ridge(fitted, train.moved[:, :2], shown, train.episode)
        return float(_cosine(read, moved[:, :2]).mean())

    def cosine(change: Changes, moved: NDArray[np.float64]) -> float:
        return told(components(change), moved)

    elsewhere = of_others(test.episode, context.generator("z in another scene"))
    strangers = of_others(test.episode, context.generator("motions of others' z"))
    painted = dynamics.painted(test, test.at(elsewhere))
    value = cosine(painted, test.moved)
    true = components(dynamics.true(test))
    controls = {
        gates.TRUE_FRAMES: told(true, test.moved),
        gates.PASTED: told(_of_width(true, latent_width(module.config.bottleneck)), test.moved),
        gates.OWN_SCENE: cosine(dynamics.painted(test, test), test.moved),
        gates.OTHER_Z: cosine(painted, test.moved[strangers]),
    }
    return [
        Measure(
            "latent action in another scene → same motion in plane, cosine",
            value,
            controls,
            gates.TRANSFER_RULE,
            gates.motion_is_carried_over(value, controls),
            f"{len(test)} pairs of {len(np.unique(test.episode))} episodes",
        )
    ]


def _of_width(coordinates: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """So many of the components [n, k], as if the rest had not changed."""
    return np.where(np.arange(coordinates.shape[1]) < width, coordinates, 0.0)


def _cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of rows [n, 2] each: [n]; 0 where one of them is nothing."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / np.maximum(lengths, 1e-12))


class _Dynamics:
    """What a predictor's module predicts, as changes in rows."""

    def __init__(self, predictor: Predictor, module: LatentActionModel) -> None:
        self._predictor, self._module = predictor, module

    def true(self, pairs: Pairs) -> Changes:
        """How what is predicted truly changes: [n, d]."""

        def changed(part: Pairs) -> Tensor:
            before, after = (
                self._module.target(*self._look(frames)) for frames in (part.earlier, part.later)
            )
            return after - before

        return _rows(changed(part) for part in _parts(pairs))

    def painted(self, told: Pairs, scenes: Pairs) -> Changes:
        """The change that each pair's z paints in the earlier frame of a scene: [n, d]."""

        def changed(part: Pairs, scene: Pairs) -> Tensor:
            frame, tokens = self._look(scene.earlier)
            predicted = self._module.predict(frame, self._said(part), tokens)
            return predicted - self._module.target(frame, tokens)

        return _rows(map(changed, _parts(told), _parts(scenes)))

    def _look(self, frames: NDArray[np.uint8]) -> tuple[Tensor, Tensor | None]:
        """Frames as the module and as the trunk see them; None: nobody asks the trunk."""
        pixels = model_input(self._predictor, frames)
        asked = self._module.config.predicts_from_trunk
        tokens = self._predictor.model.vision(pixels).tokens if asked else None
        return self._module.frames(pixels), tokens

    def _said(self, pairs: Pairs) -> Tensor:
        """Z, float[n, C, E]."""
        (before, one), (after, other) = map(self._look, (pairs.earlier, pairs.later))
        trunk = None if one is None or other is None else (one, other)
        return self._module.infer(before, after, trunk).vectors


def _parts(pairs: Pairs) -> Iterator[Pairs]:
    return (pairs.at(slice(s, s + _BATCH)) for s in range(0, len(pairs), _BATCH))


def _rows(parts: Iterator[Tensor]) -> Changes:
    return np.concatenate([part.float().flatten(1).cpu().numpy() for part in parts])
