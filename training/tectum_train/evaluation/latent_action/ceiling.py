"""The supervised ceiling of latent actions: the same inverse dynamics, told the answer.

Trained from scratch on the hand's displacement, with a linear head on what inverse dynamics
says before the bottleneck. What it reaches is what this architecture and these pixels could give;
how much of it fits through the bottleneck is not asked. Beside it the same network with the
later frame withheld: what the earlier one alone tells whoever is taught to look for it.

Taught by the labels of a few episodes alone, it is what learning from pixels comes to. It sees
them as they were recorded: what augmentation would give it is not asked. For how many steps was
chosen by the held-out episodes that it is judged on, which is to its advantage.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from tectum_core.architecture import ModelConfig
from tectum_core.model import PerceptionModel
from tectum_train.evaluation.measuring.context import Context, model_input
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.pairs import Pairs, draw_pairs
from tectum_train.evaluation.measuring.probes import r_squared

__all__ = ["HOW_TAUGHT", "HOW_TAUGHT_FEW", "Supervised", "measure_ceiling"]

_ALONE = "supervised network, o_t alone"
_BATCH, _LR = 128, 1e-3
_STEPS = 1200
_FEW_STEPS = 250
"""For a tenth of the labels and fewer, which it has then learnt by heart: half as many again add a
hundredth to what it tells of held-out episodes (latent-action-small, seed 0)."""
HOW_TAUGHT = "the network unaugmented"
HOW_TAUGHT_FEW = f"{HOW_TAUGHT}, its steps chosen by the held-out episodes"
"""What is to be known of its numbers, for the report."""
_TRAIN_PAIRS, _TEST_PAIRS = 40_000, 4_000
_COMPARED = 64
"""Frames of each side by which pairs of one data set are told from another's."""


class Supervised:
    """Networks that are taught the displacement, each trained when it is first asked for, and once.

    Args:
        model: their shape, which predicts latent actions; None: that of the bundle under test.
        kept: a JSON file of what they came to, for later evaluations too; None: there is none.
    """

    def __init__(self, model: ModelConfig | None = None, kept: Path | None = None) -> None:
        self._model, self._kept = model, kept
        told = {} if kept is None or not kept.exists() else json.loads(kept.read_text("utf-8"))
        self._found: dict[str, list[float]] = dict(told)

    def whole(self, context: Context) -> NDArray[np.float64]:
        """R² of each axis [3], taught by every labelled pair."""
        return self._explained(context, *_pairs(context), _STEPS)

    def alone(self, context: Context) -> NDArray[np.float64]:
        """The same with the later frame withheld."""
        train, test = _pairs(context)
        return self._explained(context, train.still(), test.still(), _STEPS)

    def few(self, context: Context, episodes: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same, taught by the pairs of these training episodes alone."""
        train, test = _pairs(context)
        own = train.at(np.flatnonzero(np.isin(train.episode, episodes)))
        return self._explained(context, own, test, _FEW_STEPS)

    def _explained(
        self, context: Context, train: Pairs, test: Pairs, steps: int
    ) -> NDArray[np.float64]:
        model = self._model or context.predictor.config.model
        key = _digest(context, model, train, test, steps)
        if key not in self._found:
            told = r_squared(_fit_and_predict(context, model, train, test, steps), test.moved)
            self._found[key] = told.tolist()
            self._keep()
        return np.array(self._found[key])

    def _keep(self) -> None:
        """All of it or nothing; of two that write at once, one trains again what the other had."""
        if self._kept is not None:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            draft = self._kept.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(self._found, indent=1) + "\n", encoding="utf-8")
            draft.replace(self._kept)


def measure_ceiling(context: Context, supervised: Supervised) -> list[Measure]:
    """R² of the displacement from the inverse dynamics trained on it."""
    if context.predictor.config.model.latent_action is None:
        return []
    both, alone = supervised.whole(context), supervised.alone(context)
    return [
        Measure(
            "supervised ceiling → hand in plane, R²",
            float(both[:2].mean()),
            {_ALONE: float(alone[:2].mean())},
            on=HOW_TAUGHT,
        ),
        Measure("supervised ceiling → hand, depth, R²", float(both[2]), {_ALONE: float(alone[2])}),
    ]


def _digest(context: Context, model: ModelConfig, train: Pairs, test: Pairs, steps: int) -> str:
    """Of all that a network's number depends on; of the frames, some of those of each side."""
    digest = hashlib.sha256(model.model_dump_json().encode())
    digest.update(context.predictor.config.images.model_dump_json().encode())
    digest.update(f"{context.seed} {steps} {_BATCH} {_LR}".encode())
    for pairs in (train, test):
        for told in (pairs.first, pairs.second, pairs.moved):
            digest.update(np.ascontiguousarray(told).tobytes())
        some = np.linspace(0, len(pairs) - 1, min(_COMPARED, len(pairs))).astype(np.int64)
        digest.update(pairs.at(some).later.tobytes())
    return digest.hexdigest()


def _pairs(context: Context) -> tuple[Pairs, Pairs]:
    """Training and test pairs; the latter are those of the latent actions."""
    return (
        draw_pairs(context, context.train, _TRAIN_PAIRS, "training pairs"),
        draw_pairs(context, context.test, _TEST_PAIRS, "test pairs"),
    )


def _fit_and_predict(
    context: Context, model: ModelConfig, train: Pairs, test: Pairs, steps: int
) -> NDArray[np.float64]:
    """The displacement of `test` [m, 3], metres, by a network trained on `train`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed_of("supervised network"))
        network = PerceptionModel(model)
        return _trained(context, network, train, test, steps)


def _trained(
    context: Context, network: PerceptionModel, train: Pairs, test: Pairs, steps: int
) -> NDArray[np.float64]:
    module, device = network.latent_action, context.predictor.device
    if module is None:
        raise ValueError("a network of this shape predicts no latent actions")
    spread = train.moved.std(axis=0)
    targets = torch.from_numpy((train.moved / spread).astype(np.float32)).to(device)
    dynamics = module.dynamics
    head = nn.Linear(dynamics.tokens * dynamics.width, 3).to(device)
    network.to(device)
    trained = [*dynamics.parameters(), *network.vision.parameters(), *head.parameters()]
    adam = torch.optim.AdamW(trained, lr=_LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, _LR, total_steps=steps)

    def read(pairs: Pairs, index: np.ndarray) -> torch.Tensor:
        chosen = pairs.at(index)
        before, after = (
            model_input(context.predictor, frames) for frames in (chosen.earlier, chosen.later)
        )
        trunk = None
        if module.config.reads_trunk:
            trunk = (network.vision(before).tokens, network.vision(after).tokens)
        said = module.say(module.frames(before), module.frames(after), trunk)
        found: torch.Tensor = head(said.flatten(1))
        return found

    draw = context.generator("supervised batches")
    for _ in range(steps):
        index = draw.integers(len(train), size=_BATCH)
        loss = F.mse_loss(read(train, index), targets[index])
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        schedule.step()
    with torch.inference_mode():
        parts = [
            read(test, np.arange(start, min(start + _BATCH, len(test))))
            for start in range(0, len(test), _BATCH)
        ]
    predicted: NDArray[np.float64] = torch.cat(parts).double().cpu().numpy() * spread
    return predicted
