"""How the samples of a step are divided, and the gradients of a batch that comes in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from tectum_train.distributed import all_sum, interleaved, world_size
from tectum_train.losses.precision import sum_dtype
from tectum_train.objectives import (
    Averaged,
    Batch,
    Coupled,
    Outcome,
    PartSettings,
    Sums,
    WeightedSum,
    named,
)
from tectum_train.recipe import Recipe, RecipeError
from tectum_train.tasks import ManyTasks

__all__ = ["backward", "division", "indivisible"]

_Context = Callable[[], AbstractContextManager[object]]
_Vectors = dict[str, Tensor]


def division(recipe: Recipe) -> int:
    """How many pieces a rank's samples of a step come in.

    Raises:
        RecipeError: they cannot be divided evenly among ranks, or into micro-batches.
    """
    size, micro, ranks = recipe.schedule.batch_size, recipe.schedule.micro_batch, world_size()
    if size % ranks:
        raise RecipeError(
            f"schedule.batch_size ({size}) is the whole of all ranks, so it must be a multiple of "
            f"their number ({ranks})"
        )
    own = size // ranks
    at_once = micro or own
    if own % at_once:
        among = f" that each of {ranks} ranks has of them" if ranks > 1 else ""
        raise RecipeError(
            f"schedule.micro_batch ({micro}) must divide the step's {own} samples{among}"
        )
    for one in recipe.objectives:
        used = at_once * one.fraction if isinstance(one, PartSettings) else at_once
        if at_once < size and (round(used) < 1 or abs(used - round(used)) > 1e-6):
            raise RecipeError(
                f"objectives.{one.kind}.fraction: of the {at_once} samples that go through the "
                f"model at a time it takes {used:g}, which must be a whole number"
            )
    return own // at_once


def indivisible(objective: WeightedSum | ManyTasks) -> list[str]:
    """Names of objectives that must be given a rank's whole batch."""
    if isinstance(objective, ManyTasks):
        every = [one for _, one in objective.named_parts()]
    else:
        every = [one for _, one in objective.terms()]
    return [one.name for one in every if not isinstance(one, Averaged | Coupled)]


def backward(
    objective: WeightedSum | ManyTasks, batch: Batch, pieces: int, autocast: _Context
) -> Outcome:
    """Add the gradients of a batch's loss to those of the parameters.

    Args:
        objective: what is learnt; where there are several pieces, nothing `indivisible`, and
            weights that look at no loss (`TasksConfig.check_pieces`).
        batch: this rank's samples, a multiple of `pieces`.
        pieces: how many the batch comes in. Memory is that of one; coupled objectives make one
            more forward pass.
        autocast: makes the context of a forward pass.

    Returns:
        The loss, without its graph, and metrics: the whole batch's where a metric is a mean over
        what the loss is one over, a share of such a mean, or made of sums.
    """
    if pieces == 1:
        with autocast():
            whole: Outcome = objective(batch)
        whole.loss.backward()
        return Outcome(whole.loss.detach(), whole.metrics)
    terms = list(objective.terms())
    coupled = [(weight, one) for weight, one in terms if isinstance(one, Coupled)]
    averaged = [(weight, one) for weight, one in terms if isinstance(one, Averaged)]
    states, vectors = _vectors([one for _, one in coupled], batch, pieces, autocast)
    said: dict[str, list[Tensor]] = {}
    weighed: dict[str, list[Tensor]] = {}
    sums: dict[str, Sums] = {}
    for (weight, judge), own in zip(coupled, vectors, strict=True):
        with autocast():
            outcome = judge.judged(own, batch)
        (weight * outcome.loss).backward()
        said |= {key: [value] for key, value in named(judge, outcome).items()}
    # The same ones for counting and for learning, which so hide the same.
    waiting = [_piece(batch, number, pieces) for number in range(pieces)]
    counts = [_shares(one, waiting) for _, one in averaged]
    for number, state in enumerate(states):
        piece = waiting.pop(0)  # what is computed of it shall not outlive it
        ends, gradients = list[Tensor](), list[Tensor | None]()
        if coupled:
            state.restore()
        with autocast():
            # First, as in the pass before: so they draw the same again.
            for (_, one), own in zip(coupled, vectors, strict=True):
                for key, vector in one.features(piece).items():
                    owed = own[key].grad
                    if vector.requires_grad and owed is not None:
                        ends.append(vector)
                        gradients.append(owed[number::pieces])
            for (weight, part), share in zip(averaged, counts, strict=True):
                outcome = part(piece)
                ends.append(outcome.loss * (share[number] * weight / pieces).to(outcome.loss))
                gradients.append(None)
                divisors = {f"{part.name}/{key}": one for key, one in outcome.divisors.items()}
                for key, value in named(part, outcome).items():
                    said.setdefault(key, []).append(value)
                    divisor = divisors.get(key, torch.ones_like(value))
                    weighed.setdefault(key, []).append(share[number].to(divisor) * divisor)
                for key, added in outcome.sums.items():
                    name = f"{part.name}/{key}"
                    sums[name] = sums[name] + added if name in sums else added
        torch.autograd.backward(ends, gradients)
    metrics = {
        key: sums[key].value() if key in sums else _mean(values, weighed.get(key))
        for key, values in said.items()
    }
    losses = [weight * metrics[f"{one.name}/loss"] for weight, one in terms]
    weights = objective.counted() if isinstance(objective, ManyTasks) else {}
    return Outcome(torch.stack(losses).sum(), metrics | weights)


def _piece(batch: Batch, number: int, pieces: int) -> Batch:
    """Every so-many-th sample: the first so many of each piece are together those of the batch."""
    return batch.part(number, len(batch), pieces)


def _shares(part: Averaged, pieces: Sequence[Batch]) -> Tensor:
    """What the loss of each piece counts in the mean over them; 1 where all are alike.

    Stays on the device, which nobody waits for, and is as wide as it has numbers.
    """
    counts = torch.stack([part.counted(piece) for piece in pieces])
    # Of all ranks, over which a piece's loss is a mean already.
    counts = all_sum(counts.to(sum_dtype(counts.device)))
    return counts / counts.mean().clamp(min=1 / len(pieces))


def _mean(values: Sequence[Tensor], weights: Sequence[Tensor] | None) -> Tensor:
    """Their weighted mean, 0 if none has a weight; those without may be anything."""
    said = torch.stack(list(values))
    if weights is None:
        return said.mean()
    weight = torch.stack(list(weights)).to(said.dtype)
    total = weight.sum().clamp(min=torch.finfo(said.dtype).tiny)
    return (said.where(weight > 0, 0) * weight).sum() / total


def _vectors(
    coupled: Sequence[Coupled], batch: Batch, pieces: int, autocast: _Context
) -> tuple[list[_RandomState], list[_Vectors]]:
    """Each objective's vectors of the whole batch, as leaves; and where randomness stood before."""
    states, found = list[_RandomState](), [list[_Vectors]() for _ in coupled]
    for number in range(pieces):
        piece = _piece(batch, number, pieces)
        states.append(_RandomState(batch.earlier.device))
        with torch.no_grad(), autocast():
            for one, own in zip(coupled, found, strict=True):
                own.append(one.features(piece))
    return states, [
        {
            key: interleaved(torch.cat([vectors[key] for vectors in own]), pieces).requires_grad_()
            for key in own[0]
        }
        for own in found
    ]


class _RandomState:
    """Where torch's global generators stand."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._host = torch.get_rng_state()
        self._gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Let them stand there again."""
        torch.set_rng_state(self._host)
        if self._gpu is not None:
            torch.cuda.set_rng_state(self._gpu, self._device)
