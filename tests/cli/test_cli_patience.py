"""`tectum embed` and a worker that is busy or away: it waits, and loses nothing if that is vain."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.bundles import picture
from tests.cli.running import Running, invoke
from tests.client.fake_errors import R
from tests.client.fake_worker import FakeWorker

from tectum import DeadlineExceeded, Overloaded, TectumError, Unavailable
from tectum_cli import patience
from tectum_cli.patience import Patience

NAMES = ("a.png", "b.png", "c.png", "d.png")


class Tiring(FakeWorker):
    """Is gone after so many answers."""

    answers = 2

    def call(self, rpc: str, request: Any, context: Any) -> Any:
        if len(self.seen) >= self.answers:
            self.orders.refusals = [grpc.StatusCode.UNAVAILABLE]
        return super().call(rpc, request, context)


@pytest.fixture
def fake() -> Iterator[FakeWorker]:
    """A worker that refuses what it is told to refuse."""
    with FakeWorker() as worker:
        yield worker


@pytest.fixture
def tiring() -> Iterator[Tiring]:
    """A worker that answers twice."""
    with Tiring() as worker:
        yield worker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures."""
    (tmp_path / "media").mkdir()
    for seed, name in enumerate(NAMES):
        Image.fromarray(picture(seed)).save(tmp_path / "media" / name)
    return tmp_path / "media"


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_SHORTEST", 0.01)
    monkeypatch.setattr(patience, "_LONGEST", 0.02)


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def names(path: Path) -> list[str]:
    """The pictures that have a vector."""
    return [Path(row["path"]).name for row in rows(path) if row["vector"]]


# ---------------------------------------------------------------- waiting


def test_a_worker_that_is_busy_or_restarts_is_waited_for(
    fake: FakeWorker, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    for reason in (
        R.ERROR_REASON_QUEUE_FULL, R.ERROR_REASON_DEADLINE_UNREACHABLE,
        R.ERROR_REASON_ENGINE_UNAVAILABLE, R.ERROR_REASON_DRAINING,
    ):  # fmt: skip
        fake.refuse(reason, times=3, retry_after=0.01)
    fake.orders.refusals.append(grpc.StatusCode.UNAVAILABLE)

    result = invoke("embed", folder, "--worker", fake.address, "--out", out)

    assert result.exit_code == 0, result.output
    assert names(out) == [*NAMES]
    assert len(fake.seen) == 14


def test_a_request_of_too_many_pictures_is_made_in_halves(
    fake: FakeWorker, folder: Path, tmp_path: Path
) -> None:
    violations = [("images", "found 4; allowed: at most 3")]
    fake.refuse(R.ERROR_REASON_TOO_MANY_ITEMS, violations=violations)

    result = invoke("embed", folder, "--worker", fake.address, "--out", tmp_path / "out.parquet")

    assert result.exit_code == 0, result.output
    assert names(tmp_path / "out.parquet") == [*NAMES]
    assert [len(seen.request.images) for seen in fake.seen] == [4, 2, 2]


def failing(*errors: TectumError) -> Callable[[], str]:
    """A call that fails so first."""
    left = list(errors)

    def ask() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    return ask


def test_why_it_waits_is_told_and_that_it_does_no_more() -> None:
    told: list[str] = []

    answer = Patience(10, told.append).wait_for(failing(Overloaded("full", retry_after=0.0)))

    assert (answer, told) == ("answer", ["full", ""])


@pytest.mark.parametrize("error", [Unavailable("gone"), DeadlineExceeded("too late")])
def test_a_worker_is_waited_for_only_once_it_was_reached(error: TectumError) -> None:
    waiting = Patience(10, lambda _: None)

    with pytest.raises(type(error)):
        waiting.wait_for(failing(error))
    waiting.wait_for(failing())

    assert waiting.wait_for(failing(error, error)) == "answer"


def test_pauses_grow_to_a_longest_and_are_never_shorter_than_the_worker_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, pauses = 0.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    monkeypatch.setattr(patience, "_SHORTEST", 1.0)
    monkeypatch.setattr(patience, "_LONGEST", 30.0)
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    errors = [Overloaded("full", retry_after=after) for after in (3.0, *[0.1] * 99)]

    with pytest.raises(Overloaded):
        Patience(100, lambda _: None).wait_for(failing(*errors))

    assert pauses == [3, 2, 4, 8, 16, 30, 30, 7], "the last one ends with the patience"


# ---------------------------------------------------------------- giving up


def test_what_was_written_before_the_worker_went_is_kept(
    tiring: Tiring, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    given = ["embed", folder, "--worker", tiring.address, "--out", out, "--batch", 1]

    result = invoke(*given, "--patience", 0.05)

    part = tmp_path / "out.parquet.part"
    assert result.exit_code == 1
    assert names(part) == ["a.png", "b.png"]
    assert "the call failed with UNAVAILABLE" in result.stderr
    assert f"the 2 rows so far are in {part}\n" in result.stderr
    assert "waiting for the worker" in result.stderr
    assert sorted(tmp_path.iterdir()) == [folder, part]


def test_what_an_earlier_run_left_is_not_written_over(
    tiring: Tiring, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    given = ["embed", folder, "--worker", tiring.address, "--out", out, "--batch", 1]

    for answers in (3, 6):
        tiring.answers = answers
        invoke(*given, "--patience", 0)

    assert [names(tmp_path / name) for name in ("out.parquet.part", "out.parquet.part1")] == [
        ["a.png", "b.png", "c.png"],
        ["a.png", "b.png"],
    ]


def test_whoever_waits_asks_before_each_try_whether_to_go_on() -> None:
    asked: list[str] = []

    def heed() -> None:
        asked.append("heeded")
        if len(asked) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Patience(100, lambda _: None, heed).wait_for(
            failing(*[Overloaded("full", retry_after=0.0)] * 9)
        )

    assert len(asked) == 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_ends_it_keeps_what_was_written(
    number: signal.Signals, tiring: Tiring, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    given = [folder, "--worker", tiring.address, "--out", out, "--batch", 1]

    with Running("embed", *given, folder=tmp_path) as running:
        running.until(lambda: len(tiring.seen) > 2)
        running.interrupt(number)

        assert running.ended() == 130, running.output
    assert names(tmp_path / "out.parquet.part") == ["a.png", "b.png"]
    assert f"the 2 rows so far are in {out}.part" in running.output
    assert "Traceback" not in running.output
