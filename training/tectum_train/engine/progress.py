"""What a person sees of a run, and what is kept: a bar, metrics.jsonl, TensorBoard.

Where no terminal is, there are no bars: plain lines say what is going on, a few a minute.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from torch.utils.tensorboard import SummaryWriter

__all__ = ["RunProgress", "Teller", "say", "telling"]

_WINDOW = 20
_EVERY_SECONDS, _EVERY_SHARE = 30.0, 0.05


def say(console: Console, line: str) -> None:
    """One line as it is, however long."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Pace:
    """When a line is due: each 5 % of the way, and after 30 s without one."""

    def __init__(self, done: int = 0) -> None:
        self._done, self._at = done, time.monotonic()

    def due(self, done: int, total: int) -> bool:
        """Whether one is due now, which then counts as written; the last step always is."""
        now = time.monotonic()
        far = done - self._done >= _EVERY_SHARE * total
        if done < total and not far and now - self._at < _EVERY_SECONDS:
            return False
        self._done, self._at = done, now
        return True


class Teller:
    """Says what is being done: beside a spinner, or in lines where there is no terminal."""

    def __init__(self, console: Console, status: Status | None) -> None:
        self._console = console
        self._status = status
        self._pace, self._done = _Pace(), 0

    def __call__(self, what: str) -> None:
        """Something else has begun."""
        if self._status is None:
            say(self._console, what)
        else:
            self._status.update(escape(what))

    def decoding(self, done: int, total: int) -> None:
        """So many of the data set's frames are decoded."""
        if done <= self._done:
            self._pace = _Pace()  # of another split
        self._done = done
        if self._status is not None or self._pace.due(done, total):
            self(f"decoding frames once: {done} of {total}")


@contextmanager
def telling(console: Console, what: str) -> Iterator[Teller]:
    """A teller that says `what` first."""
    if console.is_terminal:
        with console.status(escape(what)) as status:
            yield Teller(console, status)
    else:
        say(console, what)
        yield Teller(console, None)


class RunProgress:
    """Shows and records a run; use as a context.

    Args:
        folder: where metrics.jsonl and TensorBoard's files go.
        total: steps in all.
        done: steps done before, when resuming; what was recorded of later ones is dropped.
        batch_size: samples a step.
        console: where to show; None: standard error.
    """

    def __init__(
        self, folder: Path, total: int, done: int, batch_size: int, console: Console | None = None
    ) -> None:
        self._console = console or Console(stderr=True)
        self._batch_size, self._total = batch_size, total
        self._pace = _Pace(done)
        self._times: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._file = _reopened(folder / "metrics.jsonl", done)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TextColumn("{task.fields[speed]:.0f} img/s"),
            TextColumn("data {task.fields[wait]:.0f} %"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(
            "training", total=total, completed=done, loss=float("nan"), speed=0.0, wait=0.0
        )
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._file.close()
        self._board.close()

    def step(self, step: int, loss: float, waited: float) -> None:
        """One step is done.

        Args:
            step: its number, from 0.
            loss: what was descended.
            waited: seconds it waited for data.
        """
        now = time.perf_counter()
        took, self._began = now - self._began, now
        self._times.append((took, waited))
        total = sum(taken for taken, _ in self._times)
        speed, wait = self._pace_of_data()
        self._bar.update(self._task, completed=step + 1, loss=loss, speed=speed, wait=wait)
        if not self._console.is_terminal and self._pace.due(step + 1, self._total):
            left = round((self._total - step - 1) * total / len(self._times))
            say(
                self._console,
                f"step {step + 1} of {self._total}: loss {loss:.3f}, "
                f"{speed:.0f} img/s, data {wait:.0f} %, eta {timedelta(seconds=left)}",
            )

    def saved(self, step: int, path: Path) -> None:
        """A checkpoint of the state after `step` steps is written; a bar goes on without a word."""
        if not self._console.is_terminal:
            say(self._console, f"saved after step {step} in {path}")

    def record(self, step: int, metrics: dict[str, float]) -> None:
        """Keep scalars, and how fast it goes, in metrics.jsonl and TensorBoard.

        One that is not finite is null in metrics.jsonl, for JSON has no such number: it was told,
        and is none. It ends no run; a gradient that is not finite does (`take_step`).
        """
        if self._times:
            speed, wait = self._pace_of_data()
            metrics = {**metrics, "images_per_second": speed, "data_wait_percent": wait}
        told = {name: one if math.isfinite(one) else None for name, one in metrics.items()}
        self._file.write(json.dumps({"step": step, **told}, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def _pace_of_data(self) -> tuple[float, float]:
        """Images a second, and percent of the time that was waited for them, of late."""
        total = sum(taken for taken, _ in self._times)
        waited = sum(waiting for _, waiting in self._times)
        return self._batch_size * len(self._times) / total, 100 * waited / total


def _reopened(path: Path, done: int) -> TextIO:
    """The file, for appending, with the lines of steps up to `done`: the others come again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        # A run that was killed may have left half a line, of a step that comes again too.
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= done]
        draft = path.with_suffix(".writing")
        draft.write_text("".join(kept), encoding="utf-8")
        draft.replace(path)
    return path.open("a", encoding="utf-8")
