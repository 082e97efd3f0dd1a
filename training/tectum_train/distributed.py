"""What ranks know of each other; without a process group there is one rank, and nothing is sent.

A loss that couples samples is computed by every rank for its own rows, against what all ranks have;
gradients of parameters are then averaged over ranks, as data-parallel training does. With `gather`
and `mean_over_ranks` the result is that of one rank with the whole batch.

Letters: W ranks, b samples of one rank, n of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = [
    "all_sum",
    "average_gradients",
    "gather",
    "mean_over_ranks",
    "rank",
    "ring",
    "same_everywhere",
    "world_size",
]


def world_size() -> int:
    """W."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's place among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    """Concatenate over ranks; what any rank's loss owes to a sample returns to that sample."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        ctx.length = len(own)
        every = [torch.empty_like(own) for _ in range(world_size())]
        dist.all_gather(every, own.contiguous())
        return torch.cat(every)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[rank() * ctx.length : (rank() + 1) * ctx.length]


def gather(own: Tensor) -> Tensor:
    """Every rank's samples, in the order of ranks: [b, …] to [n, …], with gradient.

    Every rank must have equally many.
    """
    if world_size() == 1:
        return own
    if own.requires_grad:
        gathered: Tensor = _Gather.apply(own)  # type: ignore[no-untyped-call]
        return gathered
    return _without_gradient(own)


def _without_gradient(own: Tensor) -> Tensor:
    plain = own.to(torch.uint8) if own.dtype == torch.bool else own
    every = [torch.empty_like(plain) for _ in range(world_size())]
    dist.all_gather(every, plain.contiguous())
    return torch.cat(every).to(own.dtype)


class _Shift(torch.autograd.Function):
    """Hand a tensor on to the next rank, and its gradient back."""

    @staticmethod
    def forward(_: Any, own: Tensor) -> Tensor:
        return _exchanged(own, 1)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return _exchanged(gradients[0], -1)


def _exchanged(own: Tensor, steps: int) -> Tensor:
    got = torch.empty_like(own)
    to, source = (rank() + steps) % world_size(), (rank() - steps) % world_size()
    work = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, own.contiguous(), to),
            dist.P2POp(dist.irecv, got, source),
        ]
    )
    for one in work:
        one.wait()
    return got


def ring(own: Tensor) -> Iterable[Tensor]:
    """Every rank's samples, one rank after another beginning with one's own, with gradient.

    Holds two ranks' samples at a time, where `gather` holds all.
    """
    yield own
    for _ in range(world_size() - 1):
        own = _Shift.apply(own)  # type: ignore[no-untyped-call]
        yield own


@torch.no_grad()
def all_sum(own: Tensor) -> Tensor:
    """The sum over ranks, without gradient."""
    total = own.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def mean_over_ranks(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """A rank's share in the mean over all ranks' samples.

    Args:
        values: float[b], one for each sample.
        weight: float[b], how much each counts; None: alike.

    Returns:
        A scalar; averaged over ranks it is the weighted mean over all samples, and 0 if no sample
        counts anywhere.
    """
    weight = torch.ones_like(values) if weight is None else weight.to(values.dtype)
    total = all_sum(weight.sum()).clamp(min=torch.finfo(values.dtype).tiny)
    return (values * weight).sum() * world_size() / total


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over ranks, in one message a type.

    A parameter that some rank's loss did not reach has gradient zero there, as long as all ranks
    ask for the same parameters; one that none of them reached is left without.
    """
    if world_size() == 1:
        return
    reached = [one for one in parameters if one.requires_grad]
    flags = torch.tensor([one.grad is not None for one in reached], dtype=torch.float32)
    flags = all_sum(flags.to(reached[0].device)) if reached else flags
    some = [one for one, flag in zip(reached, flags.tolist(), strict=True) if flag]
    for dtype in {one.dtype for one in some}:
        own = [one for one in some if one.dtype == dtype]
        for one in own:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        flat = torch.cat([one.grad.reshape(-1) for one in own if one.grad is not None])
        dist.all_reduce(flat)
        flat /= world_size()
        for one, part in zip(own, flat.split([one.numel() for one in own]), strict=True):
            one.grad = part.view_as(one).clone()


@torch.no_grad()
def same_everywhere(module: nn.Module) -> None:
    """Give every rank the first one's parameters and buffers."""
    if world_size() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)
