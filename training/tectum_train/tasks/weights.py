"""How much each of several losses counts: one small module a scheme.

They see losses and, if they ask for them, lengths of gradients; they know no objective and no
model. Their state (what they learn, and what they remember of losses) belongs to a checkpoint.

Letters: K objectives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import assert_never

import torch
from torch import Tensor, nn

from tectum_train.distributed import all_sum, world_size
from tectum_train.tasks.settings import (
    DwaWeights,
    FixedWeights,
    GradNormWeights,
    ImportanceWeights,
    UncertaintyWeights,
    WeightingConfig,
)
from tectum_train.tasks.units import FirstLosses

__all__ = ["Dwa", "Fixed", "GradNorm", "Uncertainty", "Weighting", "weighting_for"]


class Weighting(nn.Module, ABC):
    """Losses in, their weighted sum out."""

    @abstractmethod
    def weights(self) -> Tensor:
        """float[K], what each loss is multiplied by now; detached."""

    def total(self, losses: Tensor, active: Tensor, heard: Tensor) -> Tensor:  # noqa: ARG002
        """What is descended.

        Args:
            losses: float[K], with their graph.
            active: bool[K], False for what does not run in this step; its loss is 0.
            heard: bool[K], whose loss says what the objective costs; nothing is learnt of others'
                weights. Alike on all ranks.

        Returns:
            A scalar.
        """
        return (losses * self.weights() * active).sum()

    def observe(self, losses: Tensor, heard: Tensor) -> None:
        """Hear what a step found.

        Args:
            losses: float[K], detached.
            heard: bool[K], as for `total`.
        """

    def wants_gradients(self) -> bool:
        """Whether `balance` is to be told of this step's gradients."""
        return False

    def balance(self, losses: Tensor, lengths: Tensor) -> None:
        """Hear how hard each loss pulls, in a step in which all of them run.

        Args:
            losses: float[K], detached.
            lengths: float[K] of the unweighted losses' gradients on what is shared, averaged over
                ranks.
        """


class Fixed(Weighting):
    """The same weights at every step."""

    given: Tensor

    def __init__(self, given: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("given", torch.tensor(given), persistent=False)

    def weights(self) -> Tensor:
        """As given."""
        return self.given


class Uncertainty(Weighting):
    """Σ wᵢ (Lᵢ / (2 exp sᵢ) + sᵢ / 2), each s learnt; at its best, exp s is the loss itself.

    What is given, w, is a factor of the whole: of the loss alone, s would learn to undo it.

    Source: Kendall et al. (arXiv:1705.07115), as LibMTL writes it; the factor is ours.
    """

    def __init__(self, given: Sequence[float], config: UncertaintyWeights) -> None:
        super().__init__()
        self.given: Tensor
        self.register_buffer("given", torch.tensor(given), persistent=False)
        # One parameter each: what has no turn has no gradient, and an optimiser leaves it alone.
        self.log_variances = nn.ParameterList(torch.tensor(config.initial) for _ in given)
        self.lr_scale = config.lr_scale

    def weights(self) -> Tensor:
        """1 / (2 exp s), times what is given."""
        return self.given * (-torch.stack([*self.log_variances]).detach()).exp() / 2

    def total(self, losses: Tensor, active: Tensor, heard: Tensor) -> Tensor:
        """What s costs is part of it: else every weight would go to 0.

        Of a loss that is not heard s has no gradient: one of 0 would say that all is learnt.
        """
        counts = losses * self.weights() * active
        each = zip(losses, self.given, self.log_variances, heard.tolist(), strict=True)
        terms = [
            given * (loss * (-spread).exp() + spread) / 2 if hears else count
            for (loss, given, spread, hears), count in zip(each, counts, strict=True)
        ]
        return torch.stack(terms).sum()


class GradNorm(Weighting):
    """Weights learnt so that gradients' lengths follow how far each loss has come.

    The length wᵢ gᵢ of a weighted gradient is to be their mean times cᵢ rᵢ^α, where rᵢ is Lᵢ /
    Lᵢ(0) over its mean, and cᵢ what is given over its own: how hard each is to pull beside the
    others. Weights begin at c. The derivative of Σ |wᵢ gᵢ − target| is known, so no second
    derivative is taken. Weights are kept at a mean of 1. Unlike the paper's, the descent is on
    their logarithms and in units of the mean length: weights stay above 0 without a clamp, and a
    step means the same however long gradients are. Who has no gradient on what is shared in a step
    is not balanced in it, and keeps its weight. L(0) is the mean of the first ten steps' losses: a
    single batch that happens to be easy would tell for the whole run.

    Source: GradNorm (arXiv:1711.02257), algorithm 1.
    """

    learnt: Tensor
    turn: Tensor

    def __init__(self, given: Sequence[float], config: GradNormWeights) -> None:
        super().__init__()
        self.config = config
        count = len(given)
        self.given: Tensor
        self.register_buffer("given", torch.tensor(given), persistent=False)
        self.register_buffer("learnt", self.given / self.given.mean())
        self.first = FirstLosses(count)
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))

    def weights(self) -> Tensor:
        """What was learnt."""
        return self.learnt

    def observe(self, losses: Tensor, heard: Tensor) -> None:
        """Keep what each loss was at first."""
        self.turn += 1
        self.first.hear(_mean_over_ranks(losses), heard)

    def wants_gradients(self) -> bool:
        """Every so many steps."""
        return int(self.turn) % self.config.every == 0

    def balance(self, losses: Tensor, lengths: Tensor) -> None:
        """One step of the weights' own descent."""
        losses = _mean_over_ranks(losses)
        come = losses / self.first.means(losses)
        # Who does not pull at what is shared has no part in it: it would gain all others' weight.
        pulls = lengths > 0
        count = pulls.sum().clamp(min=1)

        def middle(values: Tensor) -> Tensor:
            return (torch.where(pulls, values, 0.0).sum() / count).clamp(min=1e-12)

        rate = come / middle(come)
        share = self.given / middle(self.given)
        pulled = lengths * self.weights()
        mean = middle(pulled)
        slope = (pulled - mean * share * rate**self.config.alpha).sign() * pulled / mean
        moved = self.learnt * (-self.config.lr * slope).exp()
        # Their own mean stays what it was.
        moved = moved * middle(self.learnt) / middle(moved)
        self.learnt = torch.where(pulls, moved, self.learnt)


class Dwa(Weighting):
    """K softmax(r / T), r being the ratio of the last two windows' mean losses.

    Without two windows yet, all weigh alike.

    Source: Liu et al. (arXiv:1803.10704), equation 7.
    """

    sums: Tensor
    counts: Tensor
    means: Tensor
    turn: Tensor

    def __init__(self, given: Sequence[float], config: DwaWeights, epoch: int) -> None:
        super().__init__()
        self.window = config.window or epoch
        self.temperature = config.temperature
        count = len(given)
        self.given: Tensor
        self.register_buffer("given", torch.tensor(given), persistent=False)
        self.register_buffer("sums", torch.zeros(count))
        self.register_buffer("counts", torch.zeros(count))
        self.register_buffer("means", torch.full((2, count), float("nan")))
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))

    def weights(self) -> Tensor:
        """What the last two windows say, times what is given."""
        older, newer = self.means
        if bool(self.means.isnan().any()):
            return self.given.clone()
        ratio = newer / older.clamp(min=1e-12)
        return self.given * len(ratio) * (ratio / self.temperature).softmax(dim=0)

    def observe(self, losses: Tensor, heard: Tensor) -> None:
        """Add to the window, and begin another one when it is full."""
        self.sums += _mean_over_ranks(losses) * heard
        self.counts += heard
        self.turn += 1
        if int(self.turn) % self.window == 0:
            found = self.sums / self.counts
            # What was not heard in this window is as it was.
            self.means = torch.stack([self.means[1], found.where(self.counts > 0, self.means[1])])
            self.sums, self.counts = torch.zeros_like(self.sums), torch.zeros_like(self.counts)


def weighting_for(config: WeightingConfig, given: Sequence[float], epoch: int) -> Weighting:
    """The scheme that `config` describes.

    Args:
        config: of the recipe.
        given: K factors, the objectives' own.
        epoch: steps in which every sample comes once.
    """
    match config:
        case FixedWeights():
            return Fixed(given)
        case ImportanceWeights():
            mean = sum(given) / len(given)
            return Fixed([one / mean for one in given])
        case UncertaintyWeights():
            return Uncertainty(given, config)
        case GradNormWeights():
            return GradNorm(given, config)
        case DwaWeights():
            return Dwa(given, config, epoch)
        case _:
            assert_never(config)


def _mean_over_ranks(losses: Tensor) -> Tensor:
    return all_sum(losses) / world_size()
