"""What several losses do to what they share: lengths of their gradients, and angles between them.

Letters: K objectives, P shared numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tectum_train.distributed import world_size

__all__ = ["cosines", "lengths", "task_gradients"]


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
