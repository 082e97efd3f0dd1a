"""What several losses do to what they share: lengths of their gradients, and angles between them.

Letters: K objectives, P shared numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tectum_train.distributed import all_sum, world_size

__all__ = ["cosines", "lengths", "reached", "reached_alone", "task_gradients"]


def task_gradients(losses: Sequence[Tensor], shared: Sequence[nn.Parameter]) -> Tensor:
    """Each loss's gradient on the shared parameters, averaged over ranks: float[K, P].

    The graph stays for the descent itself. A loss that does not reach them has gradient 0.
    """
    rows = []
    for loss in losses:
        if not loss.requires_grad:
            rows.append(torch.cat([torch.zeros_like(one).reshape(-1) for one in shared]))
            continue
        with torch.autocast(loss.device.type, enabled=False):  # which reaches into backward passes
            found = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    (torch.zeros_like(one) if part is None else part).reshape(-1)
                    for one, part in zip(shared, found, strict=True)
                ]
            )
        )
    gradients = torch.stack(rows)
    if world_size() > 1:
        dist.all_reduce(gradients)
        gradients /= world_size()
    return gradients


def reached(loss: Tensor) -> set[int]:
    """The `id` of all that has a gradient of this loss, found in its graph without one."""
    found, waiting = set[int](), [loss.grad_fn]
    # Nodes are kept, or another one might come to have the same identity.
    seen = {*waiting}
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if (leaf := getattr(node, "variable", None)) is not None:
            found.add(id(leaf))
        more = {one for one, _ in node.next_functions} - seen
        seen |= more
        waiting += more
    return found


def reached_alone(
    reaches: Sequence[set[int]], parameters: Sequence[nn.Parameter]
) -> list[set[int]]:
    """What one loss alone reaches, on any rank, of each of K losses.

    Args:
        reaches: of K losses, the `id` of what each of them reaches on this rank.
        parameters: the same ones on all ranks, one or more.
    """
    flags = torch.tensor([[float(id(one) in reach) for one in parameters] for reach in reaches])
    by_whom = all_sum(flags.to(parameters[0].device)).cpu() > 0
    alone = by_whom & (by_whom.sum(dim=0) == 1)
    return [
        {id(one) for one, its in zip(parameters, row, strict=True) if its} for row in alone.tolist()
    ]


def lengths(gradients: Tensor) -> Tensor:
    """float[K, P] to float[K]."""
    return gradients.norm(dim=1)


def cosines(gradients: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The cosine of every pair under `first~second`; below 0, the two pull apart.

    A pair of which one has no gradient is left out.
    """
    size = lengths(gradients)
    return {
        f"{names[i]}~{names[j]}": gradients[i] @ gradients[j] / (size[i] * size[j])
        for i, j in combinations(range(len(names)), 2)
        if size[i] > 0 and size[j] > 0
    }
