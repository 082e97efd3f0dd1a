"""What ranks know of each other; without a process group there is one rank, and nothing is sent.

A loss that couples samples is computed by every rank for its own rows, against what all ranks have;
gradients of parameters are then averaged over ranks, as data-parallel training does. With `gather`
and `mean_over_ranks` the result is that of one rank with the whole batch.

Letters: W ranks, b samples of one rank, n of all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from statistics import fmean
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "all_sum",
    "anywhere",
    "average_gradients",
    "gather",
    "interleaved",
    "joined",
    "launched_as",
    "mean_over_ranks",
    "means",
    "own_samples",
    "rank",
    "ring",
    "same_everywhere",
    "sum_over_ranks",
    "together",
    "world_size",
]

_LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""Variables that every launcher sets."""
_PATIENCE = timedelta(days=1)
"""For a rank that decodes a data set first; that one has died is the launcher's to notice."""


def launched_as() -> int:
    """The rank that a launcher (torchrun) gave this process; 0 without one."""
    return int(os.environ["RANK"]) if os.environ.keys() >= _LAUNCHED else 0


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Meet the ranks that a launcher started beside this one (torchrun), if one did.

    Args:
        device: what each computes on; `cuda` is one GPU for each rank of a machine.

    Yields:
        This rank's device.

    Raises:
        ValueError: there are not as many GPUs, or all shall take the same.
    """
    if not os.environ.keys() >= _LAUNCHED:
        yield device
        return
    chosen = torch.device(device)
    if chosen.type == "cuda":
        place, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if ":" in device or place >= there:
            raise ValueError(
                f"{device!r} is not enough for the ranks of this machine: each takes a GPU of its "
                f"own, of which there are {there}; say 'cuda', and start as many"
            )
        device = f"cuda:{place}"
        torch.cuda.set_device(place)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """W."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's place among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def own_samples() -> slice:
    """Which of a step's samples are this rank's: every W-th.

    So the first so many of each rank's are, together, the first so many of them all.
    """
    return slice(rank(), None, world_size())


def interleaved(parts: Tensor, count: int) -> Tensor:
    """Parts in a row, each of them every `count`-th sample, in the order of samples: [n, …]."""
    return parts.unflatten(0, (count, -1)).transpose(0, 1).flatten(0, 1)


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


class _Sum(torch.autograd.Function):
    """Add over ranks; what any rank's loss owes to the sum is owed to every rank's part of it."""

    @staticmethod
    def forward(_: Any, own: Tensor) -> Tensor:
        return all_sum(own)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return all_sum(gradients[0].contiguous())


def sum_over_ranks(own: Tensor) -> Tensor:
    """The sum over ranks, with gradient; `all_sum` is without."""
    if world_size() == 1:
        return own
    total: Tensor = _Sum.apply(own)  # type: ignore[no-untyped-call]
    return total


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


def anywhere(flag: bool, device: str | torch.device) -> bool:
    """Whether it is so on any rank; all get the same answer."""
    return bool(all_sum(torch.tensor(float(flag), device=device)))


def together() -> None:
    """Wait until every rank has come here."""
    if world_size() > 1:
        dist.barrier()


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
    total = all_sum(weight.sum())
    # Where none counts, values and gradients are multiplied by 0, and divided by nothing.
    return (values * (weight * (world_size() / torch.where(total > 0, total, 1)))).sum()


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
    # In the order in which they appear: a set's order is each process's own.
    for dtype in dict.fromkeys(one.dtype for one in some):
        own = [one for one in some if one.dtype == dtype]
        for one in own:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        flat = torch.cat([one.grad.reshape(-1) for one in own if one.grad is not None])
        dist.all_reduce(flat)
        flat /= world_size()
        for one, part in zip(own, flat.split([one.numel() for one in own]), strict=True):
            one.grad = part.view_as(one).clone()


def means(values: Mapping[str, float], device: str | torch.device) -> dict[str, float]:
    """Each number's mean over the ranks that have one of its name."""
    if world_size() == 1:
        return dict(values)
    # Names may differ between ranks, and what ranks send each other may not.
    text = torch.tensor(list(json.dumps(dict(values)).encode()), dtype=torch.uint8, device=device)
    lengths = gather(torch.tensor([len(text)], device=device)).tolist()
    rows = gather(F.pad(text, (0, max(lengths) - len(text)))[None]).tolist()
    every = [json.loads(bytes(row[:n])) for row, n in zip(rows, lengths, strict=True)]
    names = dict.fromkeys(name for one in every for name in one)
    return {name: fmean(one[name] for one in every if name in one) for name in names}


@torch.no_grad()
def same_everywhere(module: nn.Module) -> None:
    """Give every rank the first one's parameters and buffers."""
    if world_size() == 1:
        return
    tensors = module.state_dict(keep_vars=True).values()
    for tensor in {id(one): one for one in tensors}.values():  # some have several names
        dist.broadcast(tensor.data, 0)
