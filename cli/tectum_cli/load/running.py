"""A load is driven, with a bar at a terminal, and what came of it is printed and written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tectum import Priority
from tectum_cli.extras import console, errors, fail
from tectum_cli.load import report
from tectum_cli.load.driving import Ask, Result, closed_loop, open_loop
from tectum_cli.load.fleet import fleet_lines, fleet_summary
from tectum_cli.load.robots import Robot, drive
from tectum_cli.load.target import Target
from tectum_cli.load.traffic import Question
from tectum_cli.load.worker import connected

__all__ = ["Span", "drive_calls", "drive_robots", "report_calls", "report_robots"]

Span = tuple[float, float]
"""What is measured, seconds from the beginning: from the end of the warm-up to the end."""


async def drive_calls(
    calls: AbstractAsyncContextManager[tuple[str, Ask]],
    draw: Callable[[], Question],
    when: Iterable[float] | None,
    most_open: int,
    callers: int,
    span: float,
) -> tuple[str, list[Result]]:
    """Ask, in an open loop if it is said when.

    Returns:
        Who was asked, and what came of each call.
    """
    async with calls as (name, ask):
        with _shown(name, "calls", span) as seen:
            if when is not None:
                return name, await open_loop(when, draw, ask, most_open, seen)
            return name, await closed_loop(draw, ask, callers, span, seen)


async def drive_robots(target: Target, robots: Sequence[Robot], span: float) -> str:
    """Stream; gives who was asked."""
    async with connected(target) as (clients, model):
        name = f"{model.name}@{model.version}"
        with _shown(name, "streams", span) as seen:
            await drive(robots, clients, span, seen)
        return name


@contextmanager
def _shown(name: str, what: str, span: float) -> Iterator[Callable[[float, int], None]]:
    """A bar at a terminal, else a line; gives whom to tell how far it is and how many are open."""
    if not errors.is_terminal:
        errors.print(f"asking {name} for {span:g} s", highlight=False, soft_wrap=True)
    columns = TextColumn(f"{{task.fields[open]}} {what} open"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("", total=span, open=0)
        yield lambda at, count: bar.update(task, completed=at, open=count)


def report_calls(
    results: Sequence[Result],
    measured: Span,
    items: Mapping[str, int],
    as_json: Path | None,
    plot: Path | None,
) -> None:
    """Print, and write what is to be written.

    Args:
        results: of all calls, warm-up included.
        measured: when.
        items: of a call, by what it asks.
        as_json: file for the numbers. None: none.
        plot: file for a picture. None: none.

    Raises:
        Exit: a file cannot be written.
    """
    begins, ends = measured
    groups = _by_class(results, lambda one: one.question.priority)
    whole = report.summary(results, ends, items, begins)
    by_class = {word: report.summary(own, ends, items, begins) for word, own in groups.items()}
    _print(report.lines(whole, by_class))
    with _writing():
        _write(as_json, {"all": whole, **by_class})
        if plot is not None:
            from tectum_cli.load.chart import draw

            draw(results, groups, plot, begins)


def report_robots(
    robots: Sequence[Robot],
    measured: Span,
    ops: Sequence[str],
    as_json: Path | None,
    plot: Path | None,
) -> None:
    """The same of robots, whose streams asked for `ops`."""
    begins, ends = measured
    groups = _by_class(robots, lambda one: one.priority)
    whole = fleet_summary(robots, ends, begins)
    by_class = {word: fleet_summary(own, ends, begins) for word, own in groups.items()}
    _print(fleet_lines(whole, by_class, paired="latent_actions" in ops))
    with _writing():
        _write(as_json, {"all": whole, **by_class})
        if plot is not None:
            from tectum_cli.load.chart import draw_frames

            draw_frames(groups, plot, ends, begins)


_Member = TypeVar("_Member")


def _by_class(
    members: Iterable[_Member], priority: Callable[[_Member], Priority]
) -> dict[str, list[_Member]]:
    """Those of each priority by its name, the most urgent first."""
    groups: dict[Priority, list[_Member]] = {}
    for one in members:
        groups.setdefault(priority(one), []).append(one)
    return {found.name.lower(): own for found, own in sorted(groups.items())}


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _write(path: Path | None, numbers: Mapping[str, object]) -> None:
    if path is not None:
        plain = {word: report.as_json(one) for word, one in numbers.items()}
        path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _writing() -> Iterator[None]:
    """Say which file cannot be written, if one cannot."""
    try:
        yield
    except OSError as error:
        raise fail(f"cannot write {error.filename}: {error.strerror}") from error
