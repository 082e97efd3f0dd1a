"""What a person sees of a run, and what is kept: a bar, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.utils.tensorboard import SummaryWriter

__all__ = ["RunProgress"]

_WINDOW = 20


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
        self._batch_size = batch_size
        self._times: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._file = _reopened(folder / "metrics.jsonl", done)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done)
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
            console=console or Console(stderr=True),
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

    def step(self, step: int, metrics: dict[str, float], waited: float, record: bool) -> None:
        """One step is done.

        Args:
            step: its number, from 0.
            metrics: scalars by name, the loss under "loss".
            waited: seconds it waited for data.
            record: whether to keep its metrics.
        """
        now = time.perf_counter()
        took, self._began = now - self._began, now
        self._times.append((took, waited))
        total = sum(taken for taken, _ in self._times)
        speed = self._batch_size * len(self._times) / total
        wait = 100 * sum(waiting for _, waiting in self._times) / total
        self._bar.update(
            self._task, completed=step + 1, loss=metrics["loss"], speed=speed, wait=wait
        )
        if record:
            self.record(
                step + 1, {**metrics, "images_per_second": speed, "data_wait_percent": wait}
            )

    def record(self, step: int, metrics: dict[str, float]) -> None:
        """Keep scalars in metrics.jsonl and TensorBoard."""
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)


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
