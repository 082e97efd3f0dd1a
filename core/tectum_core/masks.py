"""Which elements are hidden: random, block, span, tube, by score with or without hints, explicit.

Pure draws over element indices, for training and for serving's Reconstruct alike. Every
mask hides exactly `hidden_count(...)` elements and is a pure function of its generator.

Letters: N elements, a grid has rows × columns of them.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

__all__ = [
    "block_mask",
    "explicit_mask",
    "hidden_count",
    "hinted_mask",
    "random_mask",
    "span_mask",
    "tube_mask",
    "visible_indices",
]

_Cell = tuple[int, int]
"""Row and column in a grid."""
_MOST_DRAWS = 128
"""Rectangles tried. Ratios up to 0.9 need fewer; beyond, most fall on what is hidden already."""


class _Block(NamedTuple):
    """A rectangle of a grid; the last row and column are not in it."""

    top: int
    left: int
    bottom: int
    right: int

    def cells(self) -> Iterator[_Cell]:
        """Row by row."""
        return itertools.product(range(self.top, self.bottom), range(self.left, self.right))


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
    whole stays connected. What `_MOST_DRAWS` rectangles leave, cells in random order fill likewise.

    Source: BEiT (arXiv:2106.08254), algorithm 1, whose rectangles need not touch.
    """
    wanted = hidden_count(rows * columns, ratio)
    hidden = np.zeros((rows, columns), np.bool_)
    room = wanted
    for _ in range(_MOST_DRAWS):
        block = _rectangle(rows, columns, room, generator)
        if room == wanted or _touches(hidden, block):
            room -= _hide_block(hidden, block, room)
        if not room:
            break
    else:
        order = torch.randperm(rows * columns, generator=generator).tolist()
        _grow(hidden, [divmod(cell, columns) for cell in order], room)
    return torch.from_numpy(hidden.reshape(-1))


def tube_mask(steps: int, frame: Tensor) -> Tensor:
    """The same patches in every step: bool[N] of one step to bool[steps·N].

    Source: VideoMAE, arXiv:2203.12602.
    """
    return frame.repeat(steps)


def hinted_mask(scores: Tensor, ratio: float, hint: float, generator: Generator) -> Tensor:
    """Hide what scores highest, but for hints: float[N] to bool[N]; ties fall by chance.

    Args:
        scores: how much each element matters.
        ratio: share hidden.
        hint: share of what is shown that is drawn from all elements alike; the rest is what scores
            least. 0 shows no more than that, 1 is a random mask.
        generator: of the draws.

    Source: AttMask-Hint (arXiv:2203.12719), which draws hints from what scores highest alone.
    """
    elements = len(scores)
    count = hidden_count(elements, ratio)
    order = torch.randperm(elements, generator=generator)
    # The draw's first are the hints; among equals of the others, the draw's later are hidden.
    others = order[round((elements - count) * hint) :]
    ranked = others[scores.cpu()[others].argsort(stable=True)]
    return _hide(ranked[len(ranked) - count :], elements)


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


def _rectangle(rows: int, columns: int, room: int, generator: Generator) -> _Block:
    smallest = max(1, rows * columns // 12)
    area = smallest + float(torch.rand((), generator=generator)) * max(room - smallest, 0)
    log_aspect = (2 * float(torch.rand((), generator=generator)) - 1) * 1.204  # ±ln(1/0.3)
    aspect = 2.718281828459045**log_aspect
    height = min(max(round((area * aspect) ** 0.5), 1), rows)
    width = min(max(round((area / aspect) ** 0.5), 1), columns)
    top = int(torch.randint(rows - height + 1, (), generator=generator))
    left = int(torch.randint(columns - width + 1, (), generator=generator))
    return _Block(top, left, top + height, left + width)


def _touches(hidden: NDArray[np.bool_], block: _Block) -> bool:
    """Whether a block covers, or has as a neighbour, anything of bool[rows, columns]."""
    taller = hidden[max(block.top - 1, 0) : block.bottom + 1, block.left : block.right]
    wider = hidden[block.top : block.bottom, max(block.left - 1, 0) : block.right + 1]
    return bool(taller.any()) or bool(wider.any())


def _hide_block(hidden: NDArray[np.bool_], block: _Block, room: int) -> int:
    """Hide a block that touches what is hidden, or as much of it as there is room for.

    Returns:
        How many more cells are hidden now.
    """
    inside = hidden[block.top : block.bottom, block.left : block.right]
    fresh = inside.size - int(np.count_nonzero(inside))
    if fresh > room:
        _grow(hidden, list(block.cells()), room)
        return room
    inside[:] = True
    return fresh


def _grow(hidden: NDArray[np.bool_], cells: Sequence[_Cell], room: int) -> None:
    """Hide so many more of the cells, each touching what is hidden by then, the earliest first.

    Args:
        hidden: bool[rows, columns], changed in place.
        cells: connected, if need be through what is hidden, which they touch.
        room: at most as many as there are cells to hide.
    """
    covered = {(row, column) for row, column in np.argwhere(hidden).tolist()}
    waiting = {cell: place for place, cell in enumerate(cells) if cell not in covered}
    # Each cell joins the border once, when it first touches something: linear but for the heap.
    border = [waiting.pop(cell) for cell in cells if cell in waiting and _beside(cell) & covered]
    if not covered:
        border = [waiting.pop(cells[0])]
    heapq.heapify(border)
    for _ in range(room):
        cell = cells[heapq.heappop(border)]
        hidden[cell] = True
        for neighbour in _beside(cell) & waiting.keys():
            heapq.heappush(border, waiting.pop(neighbour))


def _beside(cell: _Cell) -> set[_Cell]:
    row, column = cell
    return {(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)}
