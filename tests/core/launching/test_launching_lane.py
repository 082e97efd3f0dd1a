"""A batch's way over a device, on one that is as late as it may be."""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.late_device import LateDevice, as_device
from torch import Tensor

from tectum_core.launching import Flight, Lane, Program, graph_sizes
from tectum_core.launching import lane as lane_module
from tectum_core.launching.lane import Row

MOST = 6
Answers = np.ndarray


def twice(rows: Tensor) -> Tensor:
    return rows.float() * 2 + 1


def worded(rows: Tensor) -> Tensor:
    """Looked up, so that a row of what is no number of a word is a fault of the device."""
    return torch.arange(100.0)[rows]


def summed(rows: Tensor) -> Tensor:
    return rows.float().sum(dim=(1, 2)).unsqueeze(1)


SMALL = Program("small", torch.arange(3), twice)
LARGE = Program("large", torch.arange(10, dtype=torch.uint8).view(5, 2), summed)
WORDS = Program("words", torch.arange(3), worded)
WIDE = Program("wide", torch.arange(40, dtype=torch.uint8).view(5, 8), summed)


def rows_of(program: Program, count: int, seed: int, device_rows: int = 0) -> list[Row]:
    """So many, the last ones of which are on the device."""
    drawn = np.random.default_rng(seed).integers(0, 100, (count, *program.example.shape))
    rows = list(drawn.astype(program.example.numpy().dtype))
    here = count - min(device_rows, count)
    return [*rows[:here], *map(torch.from_numpy, rows[here:])]


def expected(program: Program, rows: Sequence[Row]) -> Answers:
    return program.forward(torch.stack([torch.as_tensor(row) for row in rows])).numpy()


def lane_of(late: LateDevice, *programs: Program, most: int = MOST) -> Lane:
    return Lane(as_device(late), programs or (SMALL, LARGE), graph_sizes(most), "some@v1")


def launched(lane: Lane, program: Program, rows: Sequence[Row]) -> Flight:
    flight = lane.launch(program.name, rows)
    assert flight is not None
    return flight


# ---------------------------------------------------------------- answers

BATCH = st.tuples(
    st.sampled_from([SMALL, LARGE]), st.integers(1, MOST), st.integers(0, MOST), st.randoms()
)


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(BATCH, min_size=1, max_size=8), seed=st.integers(0, 2**16))
def test_whatever_is_under_way_each_batch_is_answered_from_its_own_rows(
    batches: list[tuple[Program, int, int, object]], seed: int
) -> None:
    lane = lane_of(LateDevice(seed))
    under_way: list[tuple[Flight, Answers]] = []

    for number, (program, count, there, mix) in enumerate(batches):
        rows = rows_of(program, count, number, there)
        mix.shuffle(rows)  # type: ignore[attr-defined]
        under_way.append((launched(lane, program, rows), expected(program, rows)))
        if len(under_way) == 2:
            flight, wanted = under_way.pop(0)
            np.testing.assert_array_equal(flight.result(), wanted)

    for flight, wanted in under_way:
        np.testing.assert_array_equal(flight.result(), wanted)


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.tuples(st.booleans(), st.integers(1, MOST)), min_size=2, max_size=8),
    there=st.integers(0, MOST),
    seed=st.integers(0, 2**16),
)
def test_no_program_reads_what_another_one_was_given(
    batches: list[tuple[bool, int]], there: int, seed: int
) -> None:
    lane = lane_of(LateDevice(seed), WORDS, WIDE)

    for number, (reads, count) in enumerate(batches):
        program = WORDS if reads else WIDE
        rows = rows_of(program, count, number, there)
        found = launched(lane, program, rows).result()

        np.testing.assert_array_equal(found, expected(program, rows))


@given(seed=st.integers(0, 2**16))
def test_what_was_launched_last_may_be_fetched_first(seed: int) -> None:
    lane = lane_of(LateDevice(seed))
    rows = [rows_of(SMALL, 4, 0), rows_of(SMALL, 5, 1)]

    first, second = (launched(lane, SMALL, some) for some in rows)

    np.testing.assert_array_equal(second.result(), expected(SMALL, rows[1]))
    np.testing.assert_array_equal(first.result(), expected(SMALL, rows[0]))


def test_an_answer_stays_what_it_is_when_its_memory_is_used_again() -> None:
    lane = lane_of(LateDevice())
    rows = rows_of(SMALL, 3, 0)
    answer = launched(lane, SMALL, rows).result()

    for seed in range(1, 4):
        launched(lane, SMALL, rows_of(SMALL, 6, seed)).result()

    np.testing.assert_array_equal(answer, expected(SMALL, rows))


def test_rows_may_change_once_they_were_launched() -> None:
    lane = lane_of(LateDevice())
    rows = rows_of(LARGE, 3, 0)
    wanted = expected(LARGE, rows)

    flight = launched(lane, LARGE, rows)
    for row in rows:
        assert isinstance(row, np.ndarray)
        row[:] = 0

    np.testing.assert_array_equal(flight.result(), wanted)


# ---------------------------------------------------------------- waiting


def test_launching_waits_for_nothing() -> None:
    late = LateDevice()
    lane = lane_of(late)
    before = late.done

    flights = [launched(lane, SMALL, rows_of(SMALL, 2, seed)) for seed in range(2)]

    assert late.done == before
    for flight in flights:
        flight.result()
    assert late.done > before


def test_a_third_batch_waits_until_one_was_fetched() -> None:
    lane = lane_of(LateDevice())
    rows = [rows_of(SMALL, 2, seed) for seed in range(3)]
    flights = [launched(lane, SMALL, some) for some in rows[:2]]
    third: list[Flight] = []
    waiting = threading.Thread(target=lambda: third.append(launched(lane, SMALL, rows[2])))
    waiting.start()
    assert not third

    answers = [flight.result() for flight in flights]
    waiting.join()

    answers.append(third[0].result())
    for some, answer in zip(rows, answers, strict=True):
        np.testing.assert_array_equal(answer, expected(SMALL, some))


# ---------------------------------------------------------------- graphs and memory


@given(most=st.integers(1, 600))
def test_less_than_a_third_of_any_batch_is_padding(most: int) -> None:
    sizes = graph_sizes(most)

    assert sizes == sorted(set(sizes))
    assert sizes[-1] == most
    for count in range(1, most + 1):
        size = min(size for size in sizes if size >= count)
        assert (size - count) / size < 1 / 3


def test_every_size_of_every_program_is_recorded_and_one_graph_computes_a_batch() -> None:
    late = LateDevice()
    lane = lane_of(late)
    before = late.replays

    launched(lane, LARGE, rows_of(LARGE, 5, 0)).result()

    assert late.pools[0].recorded == 2 * len(graph_sizes(MOST))
    assert late.replays == before + 1


def test_no_batch_takes_memory_that_was_not_there_before() -> None:
    late = LateDevice()
    lane = lane_of(late)
    held = late.held

    for seed in range(6):
        launched(lane, LARGE, rows_of(LARGE, 1 + seed, seed)).result()

    inputs, outputs = MOST * SMALL.row_bytes, MOST * 4 * 3  # of each the larger program's
    assert late.held == held == 5 * (inputs + outputs)  # one of both, and two slots on two sides
    assert lane.memory == 3 * (inputs + outputs) + late.pools[0].memory


def test_more_than_the_largest_batch_and_what_is_unknown_are_not_taken() -> None:
    lane = lane_of(LateDevice())

    assert lane.launch("small", rows_of(SMALL, MOST + 1, 0)) is None
    assert lane.launch("small", []) is None
    assert lane.launch("other", rows_of(SMALL, 1, 0)) is None


# ---------------------------------------------------------------- what goes wrong


def test_what_cannot_be_recorded_is_left_out_alone_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def stubborn(rows: Tensor) -> Tensor:
        if len(rows) == 4:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return twice(rows)

    lane = lane_of(LateDevice(), Program("stubborn", SMALL.example, stubborn), LARGE)

    assert lane.names == ("large",)
    assert lane.without == {
        "stubborn": "RuntimeError: operation not permitted when stream is capturing"
    }
    assert not lane.takes("stubborn", 1)
    assert [record.__dict__["operation"] for record in caplog.records] == ["stubborn"]
    rows = rows_of(LARGE, 3, 0)
    np.testing.assert_array_equal(launched(lane, LARGE, rows).result(), expected(LARGE, rows))


def test_what_does_not_even_run_is_left_out_before_it_is_recorded() -> None:
    def broken(rows: Tensor) -> Tensor:
        raise ImportError("no such module")

    late = LateDevice()
    lane = lane_of(late, Program("broken", SMALL.example, broken))

    assert lane.names == ()
    assert late.pools[0].recorded == 0


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_a_graph_that_answers_otherwise_than_its_work_is_left_out(factor: float) -> None:
    late = LateDevice()
    lane_answers: list[Tensor] = []

    def spoilt(rows: Tensor) -> Tensor:
        return twice(rows)

    late.spoil = lambda: [answer.mul_(factor) for answer in lane_answers]
    original = late.memory

    def memory(count: int) -> Tensor:
        made = original(count)
        if count:
            lane_answers[:] = [made[: count // 4 * 4].view(torch.float32)]
        return made

    late.memory = memory  # type: ignore[method-assign]
    lane = lane_of(late, Program("spoilt", SMALL.example, spoilt))

    assert lane.names == ()
    assert lane.without["spoilt"].startswith("ArithmeticError: a graph for 6 answers with a cosine")


def test_a_row_of_another_shape_is_refused_and_costs_no_slot() -> None:
    lane = lane_of(LateDevice())

    for _ in range(3):
        with pytest.raises(ValueError, match=r"small takes rows of \(3,\), not \(4,\)"):
            lane.launch("small", [np.arange(3), np.arange(4)])

    rows = rows_of(SMALL, 2, 0)
    np.testing.assert_array_equal(launched(lane, SMALL, rows).result(), expected(SMALL, rows))


def test_a_device_that_fails_is_told_to_who_fetches() -> None:
    late = LateDevice()
    lane = lane_of(late)
    flight = launched(lane, SMALL, rows_of(SMALL, 2, 0))

    late.failure = torch.AcceleratorError("device-side assert triggered")

    with pytest.raises(torch.AcceleratorError):
        flight.result()


@pytest.mark.parametrize("step", ["shown", "recorded"])
def test_a_device_that_is_lost_while_it_records_is_not_a_programs_fault(step: str) -> None:
    late, failure = LateDevice(), torch.AcceleratorError("device-side assert triggered")

    def lose(rows: Tensor | None = None) -> Tensor:
        late.failure = failure
        raise failure

    program = Program("loses", SMALL.example, lose) if step == "shown" else SMALL
    if step == "recorded":
        late.before_capture = lose

    with pytest.raises(torch.AcceleratorError):
        lane_of(late, program)

    assert late.pools[0].closed


def test_an_error_of_a_device_that_goes_on_is_a_programs(caplog: pytest.LogCaptureFixture) -> None:
    def refused(rows: Tensor) -> Tensor:
        raise torch.AcceleratorError("CUDA error: invalid configuration argument")

    lane = lane_of(LateDevice(), Program("refused", SMALL.example, refused), LARGE)

    assert lane.names == ("large",)


# ---------------------------------------------------------------- the end


def test_closing_frees_all_memory_and_graphs_and_nothing_begins_any_more() -> None:
    late = LateDevice()
    lane = lane_of(late)
    launched(lane, SMALL, rows_of(SMALL, 2, 0)).result()

    lane.close()
    lane.close()
    gc.collect()

    assert late.held == 0
    assert late.pools[0].closed
    assert lane.memory == 0
    assert lane.launch("small", rows_of(SMALL, 2, 0)) is None


def test_what_is_under_way_is_fetched_before_its_graph_is_freed() -> None:
    late = LateDevice()
    lane = lane_of(late)
    rows = rows_of(SMALL, 2, 0)
    flight = launched(lane, SMALL, rows)
    closing = threading.Thread(target=lane.close)
    closing.start()
    assert not late.pools[0].closed

    answer = flight.result()
    closing.join()

    np.testing.assert_array_equal(answer, expected(SMALL, rows))
    assert late.pools[0].closed


def test_what_nobody_fetches_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "_PATIENCE", 0.01)
    late = LateDevice()
    lane = lane_of(late)
    launched(lane, SMALL, rows_of(SMALL, 2, 0))

    with pytest.raises(TimeoutError, match="a batch of some@v1 was launched and not fetched"):
        lane.close()

    assert not late.pools[0].closed


# ---------------------------------------------------------------- the device that tests have


def test_the_late_device_shows_a_wait_that_is_missing() -> None:
    def seen(seed: int, waits: bool) -> int:
        late = LateDevice(seed)
        box = [0]
        late.upload.run(lambda: box.__setitem__(0, 1))
        if waits:
            late.compute.after(late.upload.mark())
        found: list[int] = []
        late.compute.run(lambda: found.append(box[0]))
        late.compute.mark().wait()
        return found[0]

    assert {seen(seed, waits=True) for seed in range(20)} == {1}
    assert {seen(seed, waits=False) for seed in range(20)} == {0, 1}
