"""Projections that objectives put on the trunk's vectors, and that no bundle keeps."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

__all__ = ["perceptron"]


def perceptron(width: int, hidden: int, out: int, layers: int = 2) -> nn.Sequential:
    """Linear maps with LayerNorm and GELU between: float[…, width] to float[…, out].

    LayerNorm where the papers have BatchNorm: it is the same on every rank, and a momentum encoder
    cannot cheat through a batch's statistics (MoCo's reason to shuffle them).
    """
    widths = [width, *[hidden] * (layers - 1)]
    steps: list[nn.Module] = []
    for before, after in pairwise(widths):
        steps += [nn.Linear(before, after), nn.LayerNorm(after), nn.GELU()]
    return nn.Sequential(*steps, nn.Linear(widths[-1], out))
