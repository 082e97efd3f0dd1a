"""Arrivals played back: what the table says of them."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from replay import Limits, capacity, invented, main, played
from tectum_server.worker.engine.policy.cost import Cost
from tectum_server.worker.engine.replay.recording import Framed, Recorder
from tectum_server.worker.jobs import Priority

COST = Cost(3.0, 4.0)


def limits(max_block_ms: int | None = None, kept_share: float = 0.05) -> Limits:
    return Limits(max_block_ms, 32, 256, kept_share)


def test_invented_arrivals_come_at_so_many_times_the_capacity() -> None:
    arrivals = invented(COST, limits(), 2.0, 60, seed=0)

    assert len(arrivals) == pytest.approx(2 * 60 * capacity(COST, limits()), rel=0.03)
    assert all(a.at_ms <= b.at_ms for a, b in itertools.pairwise(arrivals))
    control = sum(one.priority == Priority.CONTROL for one in arrivals)
    assert control == pytest.approx(0.01 * len(arrivals), rel=0.3)


@pytest.mark.parametrize("max_block_ms", [None, 20, 40])
@pytest.mark.parametrize("load", [1.5, 10.0])
def test_an_engine_that_too_much_comes_to_does_what_it_can_in_time(
    load: float, max_block_ms: int | None
) -> None:
    limit = limits(max_block_ms)
    arrivals = invented(COST, limit, load, 8, seed=1)

    told = played(arrivals, {"invented": COST}, limit).calls

    good = sum(one.in_time for one in told) / 8
    assert good >= 0.95 * capacity(COST, limit)
    # The very first has met a large batch, which is formed while none is expected.
    control = [one for one in told if one.arrival.priority == Priority.CONTROL][1:]
    assert sum(one.in_time for one in control) >= 0.97 * len(control)


def table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *given: str) -> str:
    monkeypatch.setattr(sys, "argv", ["replay.py", *given])
    main()
    return capsys.readouterr().out


def test_a_recording_is_played_by_what_its_batches_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "arrivals.jsonl"
    recorder = Recorder(path)
    for at_ms in (100, 110, 1100):
        recorder.came(at_ms, ["a"], Priority.INTERACTIVE, 50)
    recorder.ran("a", 1, 45.0)
    recorder.close()

    told = table(monkeypatch, capsys, str(path), "--max-block-ms", "none", "10")

    # The second waits for the first, and would be answered after 80 ms.
    heading, _, *rows = [line.split(" | ") for line in told.splitlines()]
    place = heading.index("INTERACTIVE in time")
    assert [row[0] for row in rows] == ["| recorded", "| recorded"]
    assert [row[place] for row in rows] == ["0.6667", "0.6667"]


def test_a_recorded_stream_is_played_as_a_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "arrivals.jsonl"
    recorder = Recorder(path)
    robot = recorder.stream("robot")
    for number, at_ms in enumerate(range(0, 1001, 100)):
        frame = Framed(robot, at_ms - 55, at_ms)
        recorder.came(at_ms, ["a"], Priority.CONTROL, 500, number=number, frame=frame)
    recorder.came(1000, ["a"], Priority.INTERACTIVE, 500)
    recorder.ran("a", 1, 45.0)
    recorder.close()

    told = table(monkeypatch, capsys, str(path))

    heading, _, row = [line.split(" | ") for line in told.splitlines()]
    found = dict(zip(heading, row, strict=True))
    assert (found["requests"], found["streams"]) == ("1", "1")
    assert found["each answered/s"] == "11.00–11.00"
    assert float(found["age p99 ms"]) == 45


def test_a_file_that_is_no_recording_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy milk\n")

    with pytest.raises(SystemExit):
        table(monkeypatch, capsys, str(path))

    assert f"{path}, line 1: " in capsys.readouterr().err


def test_either_a_recording_or_invented_arrivals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in ([], ["--invent", "arrivals.jsonl"]):
        with pytest.raises(SystemExit):
            table(monkeypatch, capsys, *given)
        assert "either a recording or --invent" in capsys.readouterr().err
