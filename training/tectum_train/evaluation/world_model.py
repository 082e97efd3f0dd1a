"""World models: is what comes next known better than by repeating what was last seen?

Errors are squared differences of normalised latents, as shares of what repeating the last frame
known costs on the mean at the same horizon. Windows lie within their episode: as many frames as
the model looks back on, and as many after them as the longest horizon.

Letters: n windows, H frames of history, F frames ahead, k robot actions between two frames, A
numbers in one, S the model's side, d numbers of a frame's latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from tectum_core.architecture import WorldModelConfig
from tectum_core.outputs import Rollouts
from tectum_core.predictor import Predictor
from tectum_core.preprocess import to_pixels
from tectum_core.rollouts import RolloutRequest
from tectum_train.evaluation import gates
from tectum_train.evaluation.measuring.context import Context, in_batches, of_others, starts
from tectum_train.evaluation.measuring.fits import frame_steps
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.paired import beside

__all__ = ["measure_world_model"]

_WINDOWS, _BATCH = 512, 64
_HORIZONS = (1, 2, 3, 4, 8)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Windows:
    """Frames in a row, and what was done between them."""

    at: NDArray[np.int64]
    """[n, H + F], where the frames stand in the data set."""
    vectors: Floats
    """[n, H + F, …], the trunk's vectors."""
    done: Floats | None
    """[n, (H + F − 1)·k, A], in the robot's units or latent; None: the model reads no actions."""
    known: int
    """H."""
    each: int
    """k; 1 for latent actions."""

    @property
    def ahead(self) -> int:
        """F."""
        return self.at.shape[1] - self.known

    @property
    def past(self) -> Floats | None:
        """[n, (H − 1)·k, A]."""
        return None if self.done is None else self.done[:, : (self.known - 1) * self.each]

    @property
    def future(self) -> Floats | None:
        """[n, F·k, A]."""
        return None if self.done is None else self.done[:, (self.known - 1) * self.each :]


def measure_world_model(context: Context) -> list[Measure]:
    """Errors by horizon, with the true actions and with others'; and whether latents differ."""
    predictor = context.predictor
    config, world = predictor.config.model.world_model, predictor.model.world_model
    if config is None or world is None:
        return []
    windows = _windows(context, config)
    true = _latents(predictor, windows.vectors)
    first = windows.at[:, 0]
    others = of_others(context.test.episode[first], context.generator("others' actions"))
    predicted = _rolled(predictor, windows, windows.future)
    strange = None if windows.future is None else windows.future[others]
    shuffled = None if strange is None else _rolled(predictor, windows, strange)
    last, before = true[:, windows.known - 1], true[:, max(0, windows.known - 2)]
    on, episode = context.counted(windows.at[:, 0], "windows"), context.test.episode[first]
    measures = []
    for horizon in (h for h in _HORIZONS if h <= windows.ahead):
        came = true[:, windows.known - 1 + horizon]
        gone_on = _normalised(predictor, last + horizon * (last - before))
        guesses = {gates.REPEATING: last, gates.EXTRAPOLATION: gone_on}
        if shuffled is not None:
            guesses[gates.OTHER_ACTIONS] = shuffled[:, horizon - 1]
        one = float(_errors(last, came).mean())
        own = _errors(predicted[:, horizon - 1], came) / one
        theirs = {name: _errors(guess, came) / one for name, guess in guesses.items()}
        controls, errors = beside(own, theirs, episode)
        next_ = horizon == 1
        measures.append(
            Measure(
                f"world model, {horizon * config.interval:g} s ahead, error ÷ repeating",
                float(own.mean()),
                controls,
                gates.NEXT_LATENT_RULE if next_ else gates.LATER_LATENT_RULE,
                (gates.next_latent_is_known if next_ else gates.later_latent_is_known)(
                    float(own.mean()), controls, errors
                ),
                on if next_ else "",
                errors=errors,
            )
        )
    measures.append(_spread(context, windows, config))
    if config.decoder is not None and predictor.config.training.learnt("world_model.decoder"):
        measures.append(_painted(context, windows))
    return measures


def _windows(context: Context, config: WorldModelConfig) -> _Windows:
    """Windows drawn evenly over the held-out data, as far ahead as the model is served at most."""
    predictor, samples = context.predictor, context.test
    gap = frame_steps(config, samples.dataset.info.fps)
    ahead = min(config.max_steps, max(_HORIZONS))
    count = config.history + ahead
    found = starts(samples, (count - 1) * gap)
    first = np.sort(context.generator("world model").permutation(found)[:_WINDOWS])
    at = first[:, None] + gap * np.arange(count)
    done: Floats | None = None
    each = config.action_steps or 1
    if config.actions == "real":
        moving = np.arange((count - 1) * gap)
        done = context.actions(samples)[first[:, None] + moving]
    elif config.actions == "latent":
        pairs = [_latent_actions(predictor, samples.frames, *pair) for pair in pairwise(at.T)]
        done = np.stack(pairs, axis=1)
    return _Windows(at, _vectors(context, config, predictor, at), done, config.history, each)


def _vectors(
    context: Context, config: WorldModelConfig, predictor: Predictor, at: NDArray[np.int64]
) -> Floats:
    """The trunk's vectors of frames [n, T], each frame looked at once: [n, T, …]."""
    frames, where = np.unique(at, return_inverse=True)
    found = in_batches(
        lambda pictures: predictor.embed_images(pictures, config.latents),
        context.test.frames,
        frames,
    )
    return found[where.reshape(at.shape)]


def _latent_actions(
    predictor: Predictor,
    frames: NDArray[np.uint8],
    earlier: NDArray[np.int64],
    later: NDArray[np.int64],
) -> Floats:
    """Between frames [n] and [n]: [n, D]."""
    parts = [slice(start, start + _BATCH) for start in range(0, len(earlier), _BATCH)]
    return np.concatenate(
        [
            predictor.latent_actions(list(frames[earlier[p]]), list(frames[later[p]])).vectors
            for p in parts
        ]
    )


@torch.inference_mode()
def _latents(predictor: Predictor, vectors: Floats) -> Floats:
    """The trunk's vectors as the world model knows them: [n, T, N, D]."""
    world = predictor.model.world_model
    if world is None:
        raise ValueError("the bundle has no world model")
    apart = vectors[:, :, None] if world.config.latents == "pooled" else vectors
    parts = (
        torch.from_numpy(apart[start : start + _BATCH]) for start in range(0, len(apart), _BATCH)
    )
    return np.concatenate(
        [world.latents(part.to(predictor.device)).cpu().numpy() for part in parts]
    )


def _request(
    windows: _Windows, part: slice, future: Floats | None, frames: int, *, decode: bool
) -> RolloutRequest:
    return RolloutRequest(
        windows.vectors[part, : windows.known],
        frames,
        None if windows.past is None else windows.past[part],
        None if future is None else future[part, : frames * windows.each],
        decode_frames=decode,
    )


def _rolled(predictor: Predictor, windows: _Windows, future: Floats | None) -> Floats:
    """Predicted latents: [n, F, N, D]."""

    def some(part: slice) -> Rollouts:
        return predictor.rollout(_request(windows, part, future, windows.ahead, decode=False))

    found = np.concatenate([some(part).latents for part in _parts(windows)])
    return found[:, :, None] if found.ndim == 3 else found  # a pooled latent is one of one


def _parts(windows: _Windows) -> list[slice]:
    return [slice(start, start + _BATCH) for start in range(0, len(windows.at), _BATCH)]


def _errors(guess: Floats, came: Floats) -> NDArray[np.float64]:
    """Mean squares of each window: [n, N, D] and [n, N, D] to [n]."""
    apart = np.square(guess - came, dtype=np.float64)
    return np.asarray(apart.reshape(len(apart), -1).mean(axis=1), np.float64)


def _normalised(predictor: Predictor, latents: Floats) -> Floats:
    """As latents are: what goes on in a straight line leaves them, and would be judged by that."""
    world = predictor.model.world_model
    if world is None:
        raise ValueError("the bundle has no world model")
    return world.normalised(torch.from_numpy(latents)).numpy()


def _spread(context: Context, windows: _Windows, config: WorldModelConfig) -> Measure:
    """How much latents differ between windows: nothing is worth predicting once they do not."""
    first = windows.at[:, :1]

    def spread(predictor: Predictor) -> float:
        found = _latents(predictor, _vectors(context, config, predictor, first))
        return float(np.sqrt(found.var(axis=0, dtype=np.float64).mean()))

    controls = {"random init": spread(context.twin), "collapse": 0.0}
    return Measure("world model, spread of latents", spread(context.predictor), controls)


def _painted(context: Context, windows: _Windows) -> Measure:
    """The first frame ahead as it is painted, in the model's input units."""
    predictor = context.predictor
    sums = dict.fromkeys(("predicted", "true", "last"), 0.0)
    frames = context.test.frames
    for part in _parts(windows):
        rolled = predictor.rollout(_request(windows, part, windows.future, 1, decode=True))
        came, last = (
            frames[windows.at[part, windows.known - back]].astype(np.float64) for back in (0, 1)
        )
        if rolled.frames is None:
            raise ValueError("the bundle paints no predicted frames")
        own = _repainted(predictor, windows.vectors[part, windows.known])
        for name, guess in (("predicted", rolled.frames[:, 0]), ("true", own), ("last", last)):
            sums[name] += float(np.square(guess - came).sum())
    return Measure(
        "world model, next frame painted, error ÷ repeating",
        sums["predicted"] / sums["last"],
        {"painted from the true latents": sums["true"] / sums["last"]},
    )


@torch.inference_mode()
def _repainted(predictor: Predictor, vectors: Floats) -> NDArray[np.uint8]:
    """Frames painted from the trunk's own vectors of them: uint8[n, S, S, 3]."""
    world = predictor.model.world_model
    if world is None:
        raise ValueError("the bundle has no world model")
    latents = torch.from_numpy(_latents(predictor, vectors[:, None])[:, 0])
    pixels = to_pixels(world.decode(latents.to(predictor.device)), predictor.config.images)
    return pixels.movedim(1, -1).cpu().numpy()
