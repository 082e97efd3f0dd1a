"""What waiting items will take, against batches counted out one by one."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.cost import Cost
from tectum_server.worker.engine.policy.pace import Pace, overlapped

COSTS: dict[Hashable, Cost] = {"a": Cost(3, 2, least=0.5), "b": Cost(0, 7)}


def counted(keys: dict[Hashable, int], max_batch: int, limit_ms: float | None) -> float:
    """The largest batches that are allowed, one by one."""
    total = 0.0
    for key, left in keys.items():
        cost = COSTS.get(key)
        while cost is not None and left > 0:
            allowed = [
                size
                for size in range(1, max_batch + 1)
                if size == 1 or limit_ms is None or cost.of(size) <= limit_ms
            ]
            size = min(max(allowed), left)
            total += cost.of(size)
            left -= size
    return total


@given(
    st.dictionaries(st.sampled_from(["a", "b", "unknown"]), st.integers(1, 40)),
    st.integers(1, 9),
    st.none() | st.integers(1, 40),
)
def test_it_is_the_largest_batches_one_by_one(
    keys: dict[Hashable, int], max_batch: int, limit_ms: int | None
) -> None:
    pace = Pace(COSTS.get, max_batch, limit_ms)

    assert pace.usual(keys) == pytest.approx(counted(keys, max_batch, limit_ms))
    own: dict[Hashable, int] = {key: count for key, count in keys.items() if key == "a"}
    assert pace.best(own) == pytest.approx(pace.usual(own) / 2)


def test_a_line_of_one_batch_takes_what_that_takes() -> None:
    assert Pace(COSTS.get, 4).queued({"a": 4, "b": 1}, "a") == 3 + 4 * 2 + 7


def test_a_longer_one_is_filled_up_and_takes_a_tenth_more() -> None:
    assert Pace(COSTS.get, 4).queued({"a": 5, "b": 1}, "a") == pytest.approx(
        1.1 * (2 * 3 + 8 * 2 + 7)
    )


def test_of_an_unknown_key_there_is_nothing_to_say() -> None:
    assert Pace(COSTS.get, 4).queued({"unknown": 50}, "unknown") == 0


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 20))
def test_two_stages_beside_each_other_take_what_items_of_one_size_take(
    first_ms: int, then_ms: int, items: int
) -> None:
    prepared_ms = done_ms = 0
    for _ in range(items):
        prepared_ms += first_ms
        done_ms = max(done_ms, prepared_ms) + then_ms

    told = overlapped(items * first_ms, items * then_ms, items)

    assert told == pytest.approx(done_ms)
