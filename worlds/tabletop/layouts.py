"""Where an object stands, such that test layouts are places training never saw.

The rectangle a family's object may occupy is cut into COLUMNS × ROWS cells. A cell's number is the
layout id. Some cells belong to the test split for good, whatever the seed: so training episodes of
one seed and test episodes of any other are disjoint too. Positions are drawn from the inner part of
a cell, which keeps a gap between the splits.
"""

from dataclasses import dataclass

import numpy as np

from tabletop.families import Family
from tabletop.plan import EpisodeKey, generator

COLUMNS = 5
"""Cells along x."""
ROWS = 3
"""Cells along y."""
TEST_CELLS = frozenset({1, 8, 10})
"""One cell per row; 10 is a corner, so reaching beyond the training range is tested as well."""
MARGIN = 0.1
"""Part of a cell left free on each of its sides; the gap between two splits is twice that."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One place for the object."""

    id: int
    """Number of the cell: row · COLUMNS + column."""
    x: float
    """Metres, world frame; x points to the robot's right."""
    y: float
    """Metres, world frame; y points away from the robot."""


def cells(split: str) -> tuple[int, ...]:
    """The layout ids that belong to a split."""
    everything = range(COLUMNS * ROWS)
    return tuple(cell for cell in everything if (cell in TEST_CELLS) == (split == "test"))


def draw_layout(family: Family, key: EpisodeKey, attempt: int) -> Layout:
    """Choose the cell and the place in it for one attempt at one episode.

    Consecutive episodes of a family take the split's cells in turn, in an order that depends on
    the seed, so that each cell is used equally often; a further attempt takes the next cell.
    """
    order = generator(key.first(), 0, "cells").permutation(cells(key.split))
    cell = int(order[(key.index + attempt) % len(order)])
    row, column = divmod(cell, COLUMNS)
    across, along = generator(key, attempt, "layout").uniform(MARGIN, 1 - MARGIN, size=2)
    low, high = np.array(family.low), np.array(family.high)
    step = (high - low) / (COLUMNS, ROWS)
    x, y = low + step * (column + across, row + along)
    return Layout(cell, float(x), float(y))
