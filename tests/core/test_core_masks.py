"""Laws of masks: exact counts, connected blocks, equal seeds hide equal elements."""

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Generator, Tensor

from tectum_core.masks import (
    _grow,
    block_mask,
    explicit_mask,
    hidden_count,
    hinted_mask,
    random_mask,
    span_mask,
    tube_mask,
    visible_indices,
)

RATIO = st.floats(0.001, 0.999)
SEED = st.integers(0, 2**64 - 1)
SIDE = st.integers(1, 9)
Cell = tuple[int, int]


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def places(mask: Tensor) -> list[int]:
    return [int(place) for place in mask.nonzero().flatten()]


# ---------------------------------------------------------------- how many


@given(st.integers(2, 500), RATIO)
def test_a_ratio_hides_the_nearest_count_that_leaves_one_of_each(
    elements: int, ratio: float
) -> None:
    count = hidden_count(elements, ratio)

    assert 1 <= count <= elements - 1
    assert abs(count - elements * ratio) <= 1


@pytest.mark.parametrize(
    ("elements", "ratio", "count"), [(196, 0.75, 147), (16, 0.9, 14), (2, 0.999, 1), (3, 0.01, 1)]
)
def test_counts_by_example(elements: int, ratio: float, count: int) -> None:
    assert hidden_count(elements, ratio) == count


@pytest.mark.parametrize(
    ("elements", "ratio", "words"),
    [
        (1, 0.5, "at least 2 elements, found 1"),
        (9, 0.0, "between 0 and 1, found 0"),
        (9, 1.0, "between 0 and 1, found 1"),
        (9, float("nan"), "between 0 and 1, found nan"),
    ],
)
def test_what_cannot_be_masked_is_refused(elements: int, ratio: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        hidden_count(elements, ratio)


# ---------------------------------------------------------------- draws


@given(st.integers(2, 80), RATIO, SEED)
def test_random_and_span_masks_hide_exactly_the_count(
    elements: int, ratio: float, seed: int
) -> None:
    for draw in (random_mask, span_mask):
        mask = draw(elements, ratio, seeded(seed))
        assert mask.shape == (elements,)
        assert mask.dtype == torch.bool
        assert int(mask.sum()) == hidden_count(elements, ratio)
        assert torch.equal(mask, draw(elements, ratio, seeded(seed)))


@given(st.integers(2, 80), RATIO, SEED)
def test_a_span_is_one_run(elements: int, ratio: float, seed: int) -> None:
    hidden = places(span_mask(elements, ratio, seeded(seed)))

    assert hidden == list(range(hidden[0], hidden[0] + len(hidden)))


@given(SIDE, SIDE, RATIO, SEED)
@example(37, 37, 0.999, 1)  # more than rectangles fill
def test_a_block_mask_hides_exactly_the_count_and_is_connected(
    rows: int, columns: int, ratio: float, seed: int
) -> None:
    if rows * columns < 2:
        rows = 2
    mask = block_mask(rows, columns, ratio, seeded(seed))

    hidden = {divmod(place, columns) for place in places(mask)}
    assert mask.shape == (rows * columns,)
    assert len(hidden) == hidden_count(rows * columns, ratio)
    assert reachable(hidden) == hidden
    assert torch.equal(mask, block_mask(rows, columns, ratio, seeded(seed)))


def reachable(cells: set[Cell]) -> set[Cell]:
    """What can be walked to from one of the cells, over edges."""
    found: set[Cell] = set()
    border = {min(cells)}
    while border:
        found |= border
        border = set[Cell]().union(*map(beside, border)) & (cells - found)
    return found


def beside(cell: Cell) -> set[Cell]:
    row, column = cell
    return {(row + down, column + right) for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0))}


GRIDS = {
    (4, 5, 0.5, 1): "##### ####. .#... .....",
    (6, 6, 0.75, 7): ".###.. ###### ###### ###### ####.. ##....",
    (7, 7, 0.4, 3): ".##..#. .#####. ...###. ..####. ...##.. ..###.. .......",
    (3, 12, 0.6, 2**63 + 5): "...#######.. ...########. ...#######..",
}


@pytest.mark.parametrize(("rows", "columns", "ratio", "seed"), GRIDS)
def test_a_seed_draws_the_blocks_it_always_has(
    rows: int, columns: int, ratio: float, seed: int
) -> None:
    grid = block_mask(rows, columns, ratio, seeded(seed)).view(rows, columns)

    drawn = " ".join("".join(".#"[cell] for cell in row) for row in grid.int().tolist())
    assert drawn == GRIDS[rows, columns, ratio, seed]


@given(st.data(), SIDE, SIDE)
def test_what_grows_takes_the_earliest_cell_that_touches(
    data: st.DataObject, rows: int, columns: int
) -> None:
    order = data.draw(st.permutations([divmod(i, columns) for i in range(rows * columns)]))
    covered = set(order[: data.draw(st.integers(0, 1))])
    room = data.draw(st.integers(0, rows * columns - len(covered)))
    hidden = np.zeros((rows, columns), np.bool_)
    for cell in covered:
        hidden[cell] = True

    _grow(hidden, order, room)

    for _ in range(room):  # the same by looking through all that is left, each time
        left = [cell for cell in order if cell not in covered]
        covered.add(next((cell for cell in left if beside(cell) & covered), left[0]))
    assert {(row, column) for row, column in np.argwhere(hidden).tolist()} == covered


@pytest.mark.parametrize("ratio", [0.3, 0.75, 0.95, 0.999])
@pytest.mark.parametrize("side", [14, 37, 64])
def test_a_block_mask_takes_work_in_proportion_to_its_grid(side: int, ratio: float) -> None:
    for seed in range(5):
        draw = partial(block_mask, side, side, ratio, seeded(seed))
        # A few for each rectangle, and two for each cell of the last.
        assert calls(draw) <= side**2 + 1000


def calls(work: Callable[[], object]) -> int:
    """How many calls of Python functions it takes: its time, but alike on every machine."""
    counted = 0

    def count(_frame: FrameType, event: str, _of: object) -> None:
        nonlocal counted
        counted += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return counted


@pytest.mark.parametrize("draw", [random_mask, span_mask])
def test_every_element_is_hidden_under_some_seed(draw: object) -> None:
    assert callable(draw)
    ever = torch.stack([draw(9, 0.3, seeded(seed)) for seed in range(200)]).any(0)

    assert bool(ever.all())


def test_a_random_mask_prefers_no_element() -> None:
    share = torch.stack([random_mask(10, 0.5, seeded(s)) for s in range(2000)]).float().mean(0)

    assert float((share - 0.5).abs().max()) < 0.06  # 5 standard deviations


def test_different_seeds_hide_different_elements() -> None:
    masks = {tuple(places(random_mask(30, 0.5, seeded(seed)))) for seed in range(20)}

    assert len(masks) == 20


# ---------------------------------------------------------------- the rest


@given(st.integers(1, 5), st.lists(st.booleans(), min_size=1, max_size=12))
def test_a_tube_is_the_same_in_every_step(steps: int, frame: list[bool]) -> None:
    tube = tube_mask(steps, torch.tensor(frame)).view(steps, len(frame))

    assert all(row.tolist() == frame for row in tube)


SCORES = st.lists(st.floats(0, 1, width=16), min_size=2, max_size=30)
HINT = st.floats(0, 1)


@given(SCORES, RATIO, HINT, SEED)
def test_a_hinted_mask_hides_exactly_the_count(
    scores: list[float], ratio: float, hint: float, seed: int
) -> None:
    mask = hinted_mask(torch.tensor(scores), ratio, hint, seeded(seed))

    assert mask.shape == (len(scores),)
    assert int(mask.sum()) == hidden_count(len(scores), ratio)
    assert torch.equal(mask, hinted_mask(torch.tensor(scores), ratio, hint, seeded(seed)))


@given(SCORES, RATIO, HINT, SEED)
def test_but_for_hints_nothing_shown_scores_above_what_is_hidden(
    scores: list[float], ratio: float, hint: float, seed: int
) -> None:
    hidden = places(hinted_mask(torch.tensor(scores), ratio, hint, seeded(seed)))

    shown = sorted(score for place, score in enumerate(scores) if place not in hidden)
    hints = round(len(shown) * hint)
    above = [score for score in shown if score > min(scores[place] for place in hidden)]
    assert len(above) <= hints


def test_a_hint_may_be_anything_and_all_hints_are_a_random_mask() -> None:
    scores = torch.arange(10.0)

    masks = [hinted_mask(scores, 0.5, 0.4, seeded(seed)) for seed in range(2000)]
    even = torch.stack([hinted_mask(scores, 0.5, 1.0, seeded(s)) for s in range(2000)])

    shown = 1 - torch.stack(masks).float().mean(0)
    assert float(shown[-1]) == pytest.approx(0.2, abs=0.045)  # two of ten; 5 standard deviations
    assert float(shown[0]) == 1
    assert float((even.float().mean(0) - 0.5).abs().max()) < 0.06


@given(st.data(), st.integers(2, 40))
def test_an_explicit_mask_hides_what_is_listed_in_any_order(
    data: st.DataObject, elements: int
) -> None:
    listed = data.draw(
        st.lists(st.integers(0, elements - 1), unique=True, min_size=1, max_size=elements - 1)
    )

    assert places(explicit_mask(listed, elements)) == sorted(listed)


@pytest.mark.parametrize(
    ("hidden", "words"),
    [
        ([], "1 to 4 of 5 elements can be hidden, found 0"),
        ([0, 1, 2, 3, 4], "1 to 4 of 5 elements can be hidden, found 5"),
        ([5], "index 5 lies outside 0..4"),
        ([-1], "index -1 lies outside 0..4"),
        ([2, 2], "an index is given twice"),
    ],
)
def test_an_explicit_mask_that_cannot_be_is_refused(hidden: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        explicit_mask(hidden, 5)


@given(st.data(), st.integers(1, 4), st.integers(2, 12))
def test_visible_indices_are_what_the_mask_leaves_ascending(
    data: st.DataObject, batch: int, elements: int
) -> None:
    count = data.draw(st.integers(1, elements - 1))
    rows = [
        explicit_mask(data.draw(st.permutations(range(elements)))[:count], elements)
        for _ in range(batch)
    ]
    hidden = torch.stack(rows)

    keep = visible_indices(hidden)

    assert keep.shape == (batch, elements - count)
    assert bool((keep.diff(dim=1) > 0).all())
    assert torch.equal(~torch.zeros_like(hidden).scatter(1, keep, True), hidden)


def test_rows_that_hide_different_counts_share_no_batch() -> None:
    with pytest.raises(ValueError, match="equally many"):
        visible_indices(torch.tensor([[True, False], [True, True]]))
