"""`tectum bench`: what a worker or a gateway makes of a load that is chosen here."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tectum_cli.extras import console, errors, fail, needs, told
from tectum_cli.reaching import ADDRESS, Address, ByTls, Roots, Token, tls_by

if TYPE_CHECKING:
    from tectum_cli.load.driving import Ask, Result
    from tectum_cli.load.traffic import Question

__all__ = ["bench"]

_LONGEST = 3600
"""Seconds to measure at most."""
_FASTEST = 100_000
"""Calls a second at most."""
_PICTURES = 8
"""Different ones, so that no two neighbours are the same."""


def bench(
    worker: Address = ADDRESS,
    gateway: Annotated[
        str,
        typer.Option(
            help="Ask this gateway over REST instead: HOST:PORT, or https://HOST:PORT.",
            metavar="ADDRESS",
        ),
    ] = "",
    token: Token = "",
    by_tls: ByTls = False,
    roots: Roots = None,
    model: Annotated[
        str, typer.Option(help="Model to ask; empty: the default one.", metavar="NAME")
    ] = "",
    rate: Annotated[
        float,
        typer.Option(
            help="Calls a second, whether or not answers come (open loop); 0: see --callers."
        ),
    ] = 0.0,
    pattern: Annotated[
        str, typer.Option(help="How calls of --rate come: poisson or constant.", metavar="WORD")
    ] = "poisson",
    callers: Annotated[
        int,
        typer.Option(
            help="Without --rate: callers, each with one call at a time (closed loop).",
            min=1,
            max=4096,
            metavar="COUNT",
        ),
    ] = 8,
    seconds: Annotated[
        float, typer.Option(help="How long to measure, seconds.", metavar="SECONDS")
    ] = 10.0,
    warmup: Annotated[
        float,
        typer.Option(help="Seconds of the same before, which do not count.", metavar="SECONDS"),
    ] = 1.0,
    ops: Annotated[
        str,
        typer.Option(
            help="What is asked, by share: embed_images=8,embed_texts=2. Also similarity, "
            "reconstruct_image, latent_actions.",
            metavar="SHARES",
        ),
    ] = "embed_images",
    priorities: Annotated[
        str,
        typer.Option(
            help="Priorities, by share: control=1,interactive=80,bulk=19.", metavar="SHARES"
        ),
    ] = "interactive",
    deadlines: Annotated[
        str,
        typer.Option(
            help="Milliseconds until an answer is worthless, for all calls or by priority: "
            "control=50,interactive=500. Empty: the server's own.",
            metavar="TIMES",
        ),
    ] = "",
    size: Annotated[
        str,
        typer.Option(
            help="Of the pictures, pixels: WIDTHxHEIGHT, or the side of a square. Several, by "
            "share of the calls: 224=8,640x480=2.",
            metavar="SIZES",
        ),
    ] = "224",
    encoding: Annotated[
        str,
        typer.Option(
            help="How pictures travel: raw (to a worker), jpeg, png or webp. Empty: raw to a "
            "worker, jpeg to a gateway.",
            metavar="WORD",
        ),
    ] = "",
    batch: Annotated[
        int,
        typer.Option(
            help="Pictures, texts or pairs of frames in one call, at most what the model takes; "
            "similarity has as many of both, reconstruct_image always one.",
            min=1,
            metavar="COUNT",
        ),
    ] = 1,
    most_open: Annotated[
        int,
        typer.Option(
            help="With --rate: calls under way at once; what would be more is not sent.",
            min=1,
            max=100_000,
            metavar="COUNT",
        ),
    ] = 4096,
    seed: Annotated[
        int, typer.Option(help="Of all that is drawn: when, what, and the pictures.", min=0)
    ] = 0,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write all numbers there.", metavar="FILE")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw calls and latencies there, PNG.", metavar="FILE")
    ] = None,
) -> None:
    """Measure what a server makes of a load.

    Prints percentiles, goodput, refusals and where the time went. With --rate, latency counts from
    when a call was meant to be sent. Items a second are those whose answers came within --seconds,
    whenever they were asked for: what more is answered afterwards, or in the warm-up, is no part of
    them. Percentiles and shares are of all calls that were meant to be sent within --seconds.
    Ctrl-C ends it, and reports what was answered until then.
    """
    from tectum_cli.load.arrivals import PATTERNS
    from tectum_cli.load.traffic import CLASSES, Traffic, shares_from, sizes_from, times_from

    with needs("cli"):
        from tectum_cli.load import gateway as rest
        from tectum_cli.load import pictures as made
        from tectum_cli.load import worker as rpc
        from tectum_cli.load.target import OPS, Target
    with _said("--seconds"):
        _within(seconds, 0.1, _LONGEST)
    with _said("--warmup"):
        _within(warmup, 0, _LONGEST)
    with _said("--rate"):
        _within(rate, 0, _FASTEST)
    with _said("--pattern"):
        come = PATTERNS[_one_of(pattern, PATTERNS)]
    with _said("--ops"):
        asked = shares_from(ops, OPS)
    with _said("--priorities"):
        classes = {CLASSES[word]: share for word, share in shares_from(priorities, CLASSES).items()}
    with _said("--deadlines"):
        times = {CLASSES[word]: time for word, time in times_from(deadlines, CLASSES).items()}
    with _said("--size"):
        sizes = sizes_from(size)
    with _said("--encoding"):
        kinds = made.FILES if gateway else made.ENCODINGS
        kind = _one_of(encoding or ("jpeg" if gateway else "raw"), kinds)
    given = [
        [made.encoded(one, kind) for one in made.drawn(width, height, _PICTURES, seed)]
        for width, height in sizes
    ]
    tls = tls_by(by_tls, roots)
    whom = Target(gateway or worker, token, model, given, batch, tuple(asked), tls)
    calls: AbstractAsyncContextManager[tuple[str, Ask]] = (
        rest.gateway_calls(whom) if gateway else rpc.worker_calls(whom)
    )
    span = warmup + seconds
    when = come(rate, span, random.Random(seed)) if rate else None  # noqa: S311 - drawn anew by seed
    traffic = Traffic(asked, classes, times, tuple(sizes.values()))
    dice = random.Random(seed + 1)  # noqa: S311
    with told():
        name, results = asyncio.run(
            _driven(calls, lambda: traffic.draw(dice), when, most_open, callers, span)
        )
    if not any(one.at >= warmup for one in results):
        raise fail("no call was measured: it was ended too soon, or the rate is too low")
    ends = min(span, max(one.at + one.took for one in results))
    seen = ", ".join(f"{width}×{height}" for width, height in sizes)
    console.print(f"{name}, calls of {batch} × {seen} {kind}", highlight=False)
    _report(results, (warmup, ends), whom.counts, as_json, plot)


async def _driven(
    calls: AbstractAsyncContextManager[tuple[str, Ask]],
    draw: Callable[[], Question],
    when: Iterable[float] | None,
    most_open: int,
    callers: int,
    span: float,
) -> tuple[str, list[Result]]:
    """Who was asked, and what came of each call; with a bar at a terminal, else a line."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from tectum_cli.load.driving import closed_loop, open_loop

    columns = TextColumn("{task.fields[open]} calls open"), BarColumn(), TimeRemainingColumn()
    async with calls as (name, ask):
        if not errors.is_terminal:
            errors.print(f"asking {name} for {span:g} s", highlight=False, soft_wrap=True)
        with Progress(
            *columns, console=errors, transient=True, disable=not errors.is_terminal
        ) as bar:
            task = bar.add_task("", total=span, open=0)

            def seen(at: float, count: int) -> None:
                bar.update(task, completed=at, open=count)

            if when is not None:
                return name, await open_loop(when, draw, ask, most_open, seen)
            return name, await closed_loop(draw, ask, callers, span, seen)


def _report(
    results: Sequence[Result],
    measured: tuple[float, float],
    items: Mapping[str, int],
    as_json: Path | None,
    plot: Path | None,
) -> None:
    """Print, and write what is to be written, of what was measured from when to when."""
    from tectum_cli.load import report

    begins, ends = measured
    groups = _by_class(results)
    whole = report.summary(results, ends, items, begins)
    by_class = {word: report.summary(own, ends, items, begins) for word, own in groups.items()}
    for line in report.lines(whole, by_class):
        console.print(line, highlight=False, soft_wrap=True)
    try:
        if as_json is not None:
            numbers = {"all": whole, **by_class}
            plain = {word: report.as_json(one) for word, one in numbers.items()}
            as_json.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        if plot is not None:
            from tectum_cli.load.chart import draw

            draw(results, groups, plot, begins)
    except OSError as error:
        raise fail(f"cannot write {error.filename}: {error.strerror}") from error


def _by_class(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Calls by their priority, the most urgent first."""
    groups: dict[int, list[Result]] = {}
    for one in results:
        groups.setdefault(one.question.priority, []).append(one)
    return {
        members[0].question.priority.name.lower(): members for _, members in sorted(groups.items())
    }


def _within(value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"found {value:g}; allowed: {least:g} to {most:g}")


def _one_of(word: str, words: Iterable[str]) -> str:
    allowed = list(words)
    if word not in allowed:
        raise ValueError(f"found {word!r}; allowed: {', '.join(allowed)}")
    return word


@contextmanager
def _said(flag: str) -> Iterator[None]:
    """Turn what is wrong with a flag's value into typer's words for it."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=flag) from None
