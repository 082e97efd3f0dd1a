"""What is shown of a run: lines at a steady pace where there is no terminal, else a bar."""

from __future__ import annotations

import io
import json
import math
import time
from pathlib import Path

import pytest
from rich.console import Console

from tectum_train.engine.progress import RunProgress, telling


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, by hand."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def run(folder: Path, clock: list[float], steps: int, seconds: float, *, bar: bool) -> str:
    """What a run of so many steps writes, each of which takes so long."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=bar, width=120)
    with RunProgress(folder, steps, 0, 8, console) as progress:
        for step in range(steps):
            clock[0] += seconds
            progress.step(step, 1.5, 0.25 * seconds)
        progress.saved(steps, folder)
    return out.getvalue()


def test_a_line_comes_with_every_twentieth_of_the_way(tmp_path: Path, clock: list[float]) -> None:
    lines = run(tmp_path, clock, 200, 0.5, bar=False).splitlines()

    assert lines[0] == "step 10 of 200: loss 1.500, 16 img/s, data 25 %, eta 0:01:35"
    assert [int(line.split()[1]) for line in lines[:-1]] == list(range(10, 201, 10))
    assert lines[-1] == f"saved after step 200 in {tmp_path}"


def test_a_line_comes_at_least_every_thirty_seconds(tmp_path: Path, clock: list[float]) -> None:
    lines = run(tmp_path, clock, 80, 20, bar=False).splitlines()

    assert [int(line.split()[1]) for line in lines[:3]] == [2, 4, 6]


def test_a_terminal_gets_a_bar_and_no_lines(tmp_path: Path, clock: list[float]) -> None:
    shown = run(tmp_path, clock, 40, 1, bar=True)

    assert "40/40" in shown
    assert "step 2 of 40" not in shown
    assert "saved" not in shown


def test_decoding_is_told_now_and_then_of_each_split(clock: list[float]) -> None:
    out = io.StringIO()
    with telling(Console(file=out), "reading [both]") as tell:
        for _ in range(2):
            for done in range(1, 101):
                tell.decoding(done, 100)

    lines = out.getvalue().splitlines()
    assert lines[0] == "reading [both]"
    assert lines[1:] == 2 * [
        f"decoding frames once: {done} of 100" for done in [*range(5, 96, 5), 100]
    ]


def test_what_is_no_number_is_null_in_what_is_kept(tmp_path: Path, clock: list[float]) -> None:
    def refused(found: str) -> None:
        raise AssertionError(f"{found} is no JSON")

    told = {"loss": 1.5, "nan": math.nan, "high": math.inf, "low": -math.inf}

    with RunProgress(tmp_path, 1, 0, 8, Console(file=io.StringIO())) as progress:
        progress.record(1, told)

    line = json.loads((tmp_path / "metrics.jsonl").read_text("utf-8"), parse_constant=refused)
    assert line == {"step": 1, "loss": 1.5, "nan": None, "high": None, "low": None}
