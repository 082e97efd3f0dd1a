"""The supervised ceiling of latent actions: the same inverse dynamics, told the answer.

Trained from scratch on the hand's displacement, with a linear head on what inverse dynamics
says before the bottleneck. What it reaches is what this architecture and these pixels could give;
how much of it fits through the bottleneck is not asked.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tectum_core.model import PerceptionModel
from tectum_train.evaluation.context import Context, model_input
from tectum_train.evaluation.latent import Pairs, draw_pairs
from tectum_train.evaluation.measure import Measure
from tectum_train.evaluation.probes import r_squared

__all__ = ["measure_ceiling"]

_STEPS, _BATCH, _LR = 1200, 128, 1e-3
_TRAIN_PAIRS, _TEST_PAIRS = 40_000, 4_000


def measure_ceiling(context: Context) -> list[Measure]:
    """R² of the displacement from the inverse dynamics trained on it."""
    config = context.predictor.config.model
    if config.latent_action is None:
        return []
    train = draw_pairs(context, context.train, _TRAIN_PAIRS, 10)
    test = draw_pairs(context, context.test, _TEST_PAIRS, 11)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        network = PerceptionModel(config)
        scores = r_squared(_fit_and_predict(context, network, train, test), test.moved)
    return [
        Measure("supervised ceiling → hand in plane, R²", float(scores[:2].mean())),
        Measure("… depth, supervised", float(scores[2])),
    ]


def _fit_and_predict(
    context: Context, network: PerceptionModel, train: Pairs, test: Pairs
) -> np.ndarray:
    module, device = network.latent_action, context.predictor.device
    if module is None:
        raise ValueError("the bundle predicts no latent actions")
    spread = train.moved.std(axis=0)
    targets = torch.from_numpy((train.moved / spread).astype(np.float32)).to(device)
    dynamics = module.dynamics
    head = nn.Linear(dynamics.tokens * dynamics.width, 3).to(device)
    network.to(device)
    trained = [*dynamics.parameters(), *network.vision.parameters(), *head.parameters()]
    adam = torch.optim.AdamW(trained, lr=_LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, _LR, total_steps=_STEPS)

    def read(pairs: Pairs, index: np.ndarray) -> torch.Tensor:
        before, after = (
            model_input(context.predictor, frames[index]) for frames in (pairs.earlier, pairs.later)
        )
        trunk = None
        if module.config.reads_trunk:
            trunk = (network.vision(before).tokens, network.vision(after).tokens)
        said = dynamics.say(module.frames(before), module.frames(after), trunk)
        found: torch.Tensor = head(said.flatten(1))
        return found

    draw = np.random.default_rng([context.seed, 12])
    for _ in range(_STEPS):
        index = draw.integers(len(train.earlier), size=_BATCH)
        loss = F.mse_loss(read(train, index), targets[index])
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        schedule.step()
    with torch.inference_mode():
        parts = [
            read(test, np.arange(start, min(start + _BATCH, len(test.earlier))))
            for start in range(0, len(test.earlier), _BATCH)
        ]
    return torch.cat(parts).double().cpu().numpy() * spread
