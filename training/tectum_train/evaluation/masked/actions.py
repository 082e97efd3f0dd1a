"""Actions: hidden runs filled in, whole chunks predicted, and read off what moved between frames.

Every error is squared, in standard deviations of the actions that training showed, over windows
that lie within their episode: the mean action costs about 1, and padding never counts.

Letters: n windows, T steps, A numbers in an action, P numbers in what the model reads as a state,
k decoded steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from tectum_core.masks import span_mask
from tectum_core.outputs import LatentActions
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ActionScaling
from tectum_train.evaluation import gates
from tectum_train.evaluation.measuring.context import Context, NothingToMeasure, of_others, starts
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.paired import beside

__all__ = ["measure_action_prediction", "measure_decoded_actions", "measure_masked_actions"]

_WINDOWS, _PAIRS, _BATCH = 512, 2048, 128
_MASK_RATIO = 0.55


@dataclass(frozen=True, slots=True)
class _Windows:
    """Sequences of held-out actions, and what can be seen as they begin."""

    index: NDArray[np.int64]
    """[n], the frame at which each begins."""
    actions: NDArray[np.float32]
    """[n, T, A]."""
    frames: NDArray[np.uint8]
    """[n, S, S, 3]."""
    sentences: list[str]
    """Instructions."""
    states: NDArray[np.float32] | None
    """[n, P]; None: the model takes none."""


def measure_masked_actions(context: Context) -> list[Measure]:
    """A hidden run of actions, against interpolation between the visible neighbours."""
    config, scaling = context.predictor.config.model.actions, context.predictor.config.actions
    if config is None or scaling is None:
        return []
    windows = _windows(context, "masked actions")
    generator = Generator().manual_seed(context.seed_of("hidden steps"))
    masks = [span_mask(config.max_steps, _MASK_RATIO, generator) for _ in windows.index]
    mask = torch.stack(masks)
    filled = _filled(context.predictor, windows, windows.actions, mask)
    hidden = mask.numpy()
    straight = [_interpolated(*row) for row in zip(windows.actions, hidden, strict=True)]

    def error(guess: NDArray[np.float32]) -> NDArray[np.float64]:
        return _errors(guess[hidden], windows.actions[hidden], scaling)

    own = error(filled)
    others = {
        gates.INTERPOLATION: error(np.stack(straight)),
        gates.MEAN_ACTION: error(_mean_action(context, windows.actions)),
    }
    episode = np.repeat(context.test.episode[windows.index], hidden.sum(axis=1))
    model, (controls, errors) = float(own.mean()), beside(own, others, episode)
    return [
        Measure(
            "masked actions, squared error in standard deviations",
            model,
            controls,
            gates.HIDDEN_ACTIONS_RULE,
            gates.hidden_actions_are_filled(model, controls, errors),
            context.counted(windows.index, "windows"),
            errors=errors,
        )
    ]


def measure_action_prediction(context: Context) -> list[Measure]:
    """The next actions from a frame, its instruction and, if the model takes one, the state."""
    config, scaling = context.predictor.config.model.actions, context.predictor.config.actions
    if config is None or scaling is None:
        return []
    windows = _windows(context, "action prediction", after_first=True)
    # Nothing of the truth enters, not even where it would not be read.
    nothing = np.zeros_like(windows.actions)
    hidden = torch.ones(windows.actions.shape[:2], dtype=torch.bool)
    last = context.actions(context.test)[windows.index - 1][:, None]

    def error(guess: NDArray[np.float32]) -> NDArray[np.float64]:
        return _errors(guess, windows.actions, scaling)

    own = error(_filled(context.predictor, windows, nothing, hidden))
    blind = _filled(context.predictor, windows, nothing, hidden, pictures=False)
    others = {
        gates.MEAN_ACTION: error(_mean_action(context, windows.actions)),
        gates.LAST_ACTION: error(np.broadcast_to(last, windows.actions.shape)),
        gates.NO_PICTURE: error(blind),
    }
    episode = context.test.episode[windows.index]
    model, (controls, errors) = float(own.mean()), beside(own, others, episode)
    return [
        Measure(
            f"action prediction, {config.max_steps} steps, squared error in standard deviations",
            model,
            controls,
            gates.CHUNK_RULE,
            gates.actions_are_foretold(model, controls, errors),
            context.counted(windows.index, "windows"),
            errors=errors,
        )
    ]


@torch.inference_mode()
def measure_decoded_actions(context: Context) -> list[Measure]:
    """The robot's own actions, decoded from z between two frames."""
    predictor, scaling = context.predictor, context.predictor.config.actions
    module = predictor.model.latent_action
    if module is None or module.action_decoder is None or scaling is None:
        return []
    steps, gap = module.config.decoded_steps, context.pair_steps
    whole = starts(context.test, max(gap, steps - 1))
    index = context.generator("decoded actions").permutation(whole)[:_PAIRS]
    actions = context.actions(context.test)[index[:, None] + np.arange(steps)]
    frames, episode = context.test.frames, context.test.episode
    strangers = of_others(episode[index], context.generator("strangers' z, decoded"))
    pooled: list[NDArray[np.float32]] = []
    found: list[LatentActions] = []
    for start in range(0, len(index), _BATCH):
        chosen = index[start : start + _BATCH]
        earlier, later = list(frames[chosen]), list(frames[chosen + gap])
        found.append(predictor.latent_actions(earlier, later, decode_actions=True))
        pooled.append(predictor.embed_images(earlier, "pooled"))
    z, scene = (
        torch.from_numpy(np.concatenate(parts)).to(predictor.device)
        for parts in ([part.vectors for part in found], pooled)
    )
    decoded = np.concatenate([part.actions for part in found if part.actions is not None])
    swapped = scaling.restore(module.decode_actions(z[torch.from_numpy(strangers)], scene).float())
    own = _errors(decoded, actions, scaling)
    others = {
        gates.MEAN_ACTION: _errors(_mean_action(context, actions), actions, scaling),
        gates.OTHER_Z: _errors(swapped.cpu().numpy(), actions, scaling),
    }
    model, (controls, errors) = float(own.mean()), beside(own, others, episode[index])
    return [
        Measure(
            f"actions decoded from z, {steps} steps, squared error in standard deviations",
            model,
            controls,
            gates.DECODED_RULE,
            gates.actions_are_decoded(model, controls, errors),
            context.counted(index, "pairs"),
            errors=errors,
        )
    ]


def _windows(context: Context, stream: str, *, after_first: bool = False) -> _Windows:
    """Windows drawn evenly from the held-out episodes; some need a step before them."""
    config, test = context.predictor.config.model.actions, context.test
    if config is None:
        raise ValueError("the bundle has no action path")
    whole = starts(test, config.max_steps - 1)
    if after_first:
        whole = whole[test.step[whole] > 0]
        if not len(whole):
            raise NothingToMeasure(f"no episode goes on for {config.max_steps} steps")
    index = context.generator(stream).permutation(whole)[:_WINDOWS]
    states = None
    if config.state_dimensions:
        states = context.shown.read(test, index).numpy()
    return _Windows(
        index,
        context.actions(test)[index[:, None] + np.arange(config.max_steps)],
        test.frames[index],
        [test.instructions[i] for i in test.column("task_index")[index]],
        states,
    )


def _filled(
    predictor: Predictor,
    windows: _Windows,
    actions: NDArray[np.float32],
    hidden: Tensor,
    *,
    pictures: bool = True,
) -> NDArray[np.float32]:
    """What the model makes of hidden steps, [n, T, A], given whatever it learnt to read."""
    learnt = predictor.config.training.learnt
    shown, told = pictures and learnt("fusion.from_image"), learnt("fusion.from_text")
    states = windows.states if learnt("fusion.actions.embed_state") else None
    parts = [slice(start, start + _BATCH) for start in range(0, len(actions), _BATCH)]
    return np.concatenate(
        [
            predictor.fill_actions(
                actions[part],
                hidden[part],
                list(windows.frames[part]) if shown else None,
                windows.sentences[part] if told else None,
                None if states is None else states[part],
            )
            for part in parts
        ]
    )


def _errors(
    guess: NDArray[np.float32], true: NDArray[np.float32], scaling: ActionScaling
) -> NDArray[np.float64]:
    """[n], means over what is behind the first dimension of [n, ..., A]."""
    apart = ((guess - true) / np.array(scaling.standard_deviation)).astype(np.float64)
    return np.asarray(np.square(apart).reshape(len(apart), -1).mean(axis=1), np.float64)


def _mean_action(context: Context, like: NDArray[np.float32]) -> NDArray[np.float32]:
    """The training data's own: a model that saw mirrored actions too has another mean."""
    return np.broadcast_to(context.actions(context.train).mean(axis=0), like.shape)


def _interpolated(actions: NDArray[np.float32], hidden: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Hidden steps on the straight line between visible neighbours; beyond the last, it repeats."""
    seen = np.flatnonzero(~hidden)
    columns = [np.interp(np.arange(len(actions)), seen, column[seen]) for column in actions.T]
    return np.stack(columns, axis=1).astype(np.float32)
