"""Which elements are hidden: random, block, span, tube, importance, explicit.

Pure draws over element indices, for training and for serving's Reconstruct alike. Every
mask hides exactly `hidden_count(...)` elements and is a pure function of its generator.

Letters: N elements, a grid has rows × columns of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

__all__ = [
    "block_mask",
    "explicit_mask",
    "hidden_count",
    "importance_mask",
    "random_mask",
    "span_mask",
    "tube_mask",
    "visible_indices",
]


def hidden_count(elements: int, ratio: float) -> int:
    """How many of N elements a ratio hides: the nearest number that leaves one hidden and one seen.

    Raises:
        ValueError: fewer than two elements, or a ratio outside (0, 1).
    """
    if elements < 2:
        raise ValueError(f"masking needs at least 2 elements, found {elements}")
    if not 0 < ratio < 1:
        raise ValueError(f"a mask ratio lies between 0 and 1, found {ratio}")
    return min(max(round(elements * ratio), 1), elements - 1)


def random_mask(elements: int, ratio: float, generator: Generator) -> Tensor:
    """bool[N], each element alike."""
    order = torch.randperm(elements, generator=generator)
    return _hide(order[: hidden_count(elements, ratio)], elements)


def span_mask(elements: int, ratio: float, generator: Generator) -> Tensor:
    """bool[N], one run of neighbours: what interpolation cannot fill in."""
    count = hidden_count(elements, ratio)
    start = int(torch.randint(elements - count + 1, (), generator=generator))
    return _hide(torch.arange(start, start + count), elements)


def block_mask(rows: int, columns: int, ratio: float, generator: Generator) -> Tensor:
    """bool[rows·columns], rectangles that touch, grown until the ratio is met.

    Rectangles have an area of at least 1/12 of the grid and an aspect ratio of 0.3 to 1/0.3.
    The last is cut to fit, from the cells that touch what is hidden outwards, so that the
    whole stays connected.

    Source: BEiT (arXiv:2106.08254), algorithm 1.
    """
    wanted = hidden_count(rows * columns, ratio)
    hidden: set[tuple[int, int]] = set()
    while len(hidden) < wanted:
        block = _rectangle(rows, columns, wanted - len(hidden), generator)
        touching = not hidden or any(_neighbours(cell) & hidden or cell in hidden for cell in block)
        if touching:
            _grow(hidden, block, wanted)
    cells = [row * columns + column for row, column in sorted(hidden)]
    return _hide(torch.tensor(cells), rows * columns)


def tube_mask(steps: int, frame: Tensor) -> Tensor:
    """The same patches in every step: bool[N] of one step to bool[steps·N].

    Source: VideoMAE, arXiv:2203.12602.
    """
    return frame.repeat(steps)


def importance_mask(scores: Tensor, ratio: float) -> Tensor:
    """Hide what scores highest: float[N] to bool[N]; ties go to the lower index."""
    order = scores.argsort(descending=True, stable=True)
    return _hide(order[: hidden_count(len(scores), ratio)].cpu(), len(scores))


def explicit_mask(hidden: Sequence[int], elements: int) -> Tensor:
    """bool[N] with exactly these hidden.

    Raises:
        ValueError: an index outside 0..N-1 or given twice, none at all, or all of them.
    """
    if not hidden or len(hidden) >= elements:
        raise ValueError(
            f"1 to {elements - 1} of {elements} elements can be hidden, found {len(hidden)}"
        )
    beyond = [index for index in hidden if not 0 <= index < elements]
    if beyond:
        raise ValueError(f"index {beyond[0]} lies outside 0..{elements - 1}")
    if len(set(hidden)) != len(hidden):
        raise ValueError("an index is given twice")
    return _hide(torch.tensor(list(hidden)), elements)


def visible_indices(hidden: Tensor) -> Tensor:
    """Places of what is seen: bool[B, N], equally many in each row, to int64[B, K], ascending.

    Raises:
        ValueError: rows hide different numbers of elements.
    """
    counts = (~hidden).sum(dim=1)
    if not bool((counts == counts[0]).all()):
        raise ValueError("rows of one batch must hide equally many elements")
    # A stable sort puts the visible (False) first, in order.
    return hidden.int().argsort(dim=1, stable=True)[:, : int(counts[0])]


def _hide(indices: Tensor, elements: int) -> Tensor:
    mask = torch.zeros(elements, dtype=torch.bool)
    mask[indices] = True
    return mask


def _rectangle(rows: int, columns: int, room: int, generator: Generator) -> list[tuple[int, int]]:
    smallest = max(1, rows * columns // 12)
    area = smallest + float(torch.rand((), generator=generator)) * max(room - smallest, 0)
    log_aspect = (2 * float(torch.rand((), generator=generator)) - 1) * 1.204  # ±ln(1/0.3)
    aspect = 2.718281828459045**log_aspect
    height = min(max(round((area * aspect) ** 0.5), 1), rows)
    width = min(max(round((area / aspect) ** 0.5), 1), columns)
    top = int(torch.randint(rows - height + 1, (), generator=generator))
    left = int(torch.randint(columns - width + 1, (), generator=generator))
    return [(top + row, left + column) for row in range(height) for column in range(width)]


def _neighbours(cell: tuple[int, int]) -> set[tuple[int, int]]:
    row, column = cell
    return {(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)}


def _grow(hidden: set[tuple[int, int]], block: list[tuple[int, int]], wanted: int) -> None:
    """Add the block's cells one by one, each touching what is already hidden."""
    waiting = [cell for cell in block if cell not in hidden]
    while waiting and len(hidden) < wanted:
        cell = next((cell for cell in waiting if not hidden or _neighbours(cell) & hidden), None)
        if cell is None:
            return
        waiting.remove(cell)
        hidden.add(cell)
