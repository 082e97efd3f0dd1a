"""`tectum bench`: what a worker or a gateway makes of a load that is chosen here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tectum_cli.extras import console, fail, needs, told
from tectum_cli.reaching import ADDRESS, Address, ByTls, Roots, Token, tls_by

if TYPE_CHECKING:
    from tectum_cli.load.driving import Ask

__all__ = ["bench"]

_LONGEST = 3600
"""Seconds to measure at most."""
_FASTEST = 100_000
"""Calls a second at most."""
_MOST_STREAMS, _FASTEST_CAMERA, _LONGEST_LIFE = 4096, 1000.0, 60_000.0
"""Streams, their frames a second, and milliseconds that a frame stays useful, at most."""
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
    streams: Annotated[
        int,
        typer.Option(
            help="Instead of calls: robots, each with a live stream to the worker.",
            min=0,
            max=_MOST_STREAMS,
            metavar="COUNT",
        ),
    ] = 0,
    fps: Annotated[
        float,
        typer.Option(
            help="Frames a second that each of --streams captures; a frame has a latent action if "
            "another lies the model's interval before it."
        ),
    ] = 30.0,
    lifespan: Annotated[
        float,
        typer.Option(
            help="Milliseconds that a frame of --streams stays useful. 0: the server's own.",
            metavar="MS",
        ),
    ] = 0.0,
    connections: Annotated[
        int,
        typer.Option(
            help="To the worker, which take turns. One stays with one of the worker's fronts "
            "(--fronts), and the system spreads them, not evenly if they are few. 0: one, and one "
            "for each of --streams. A gateway has one for each open call.",
            min=0,
            max=_MOST_STREAMS,
            metavar="COUNT",
        ),
    ] = 0,
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
            help="What is asked, by share: embed_images=8,embed_texts=2. Also embed_clips, "
            "similarity, reconstruct_image, reconstruct_clip, reconstruct_text, "
            "reconstruct_actions, latent_actions, and rollout, of one frame and as far as the "
            "model predicts. Of streams: embed_images, latent_actions, or both of each frame.",
            metavar="SHARES",
        ),
    ] = "embed_images",
    priorities: Annotated[
        str,
        typer.Option(
            help="Priorities, by share: control=1,interactive=80,bulk=19. Empty: interactive; of "
            "streams control.",
            metavar="SHARES",
        ),
    ] = "",
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
            help="Pictures, texts, clips, pairs of frames or candidates of a rollout in one call, "
            "at most what the model takes; similarity has as many of both, what is reconstructed "
            "is always one.",
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
    With --streams: how often each robot was answered, how old answers were as they came, and what
    became of the frames that were captured within --seconds.
    Ctrl-C ends it, and reports what was answered until then.
    """
    from tectum_cli.load.arrivals import PATTERNS
    from tectum_cli.load.traffic import CLASSES, Traffic, shares_from, sizes_from, times_from

    with needs("cli"):
        from tectum_cli.load import gateway as rest
        from tectum_cli.load import pictures as made
        from tectum_cli.load import worker as rpc
        from tectum_cli.load.robots import robots_of
        from tectum_cli.load.running import drive_calls, drive_robots, report_calls, report_robots
        from tectum_cli.load.target import OPS, STREAMED, Target
    with _said("--seconds"):
        _within(seconds, 0.1, _LONGEST)
    with _said("--warmup"):
        _within(warmup, 0, _LONGEST)
    with _said("--rate"):
        _within(rate, 0, _FASTEST)
    with _said("--pattern"):
        come = PATTERNS[_one_of(pattern, PATTERNS)]
    with _said("--fps"):
        _within(fps, 0.01, _FASTEST_CAMERA)
    with _said("--lifespan"):
        _within(lifespan, 0, _LONGEST_LIFE)
    with _said("--ops"):
        asked = shares_from(ops, OPS)
    if streams:
        calls_alone = {"--gateway": gateway, "--rate": rate, "--deadlines": deadlines}
        calls_alone |= {"--batch": batch > 1}
        _check_streams(calls_alone, asked, STREAMED)
    with _said("--priorities"):
        words = priorities or ("control" if streams else "interactive")
        classes = {CLASSES[word]: share for word, share in shares_from(words, CLASSES).items()}
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
    several = connections or (streams or 1)
    tls = tls_by(by_tls, roots)
    whom = Target(gateway or worker, token, model, given, batch, tuple(asked), tls, several)
    span, many = warmup + seconds, tuple(sizes.values())
    traffic, dice = Traffic(asked, classes, times, many), random.Random(seed + 1)  # noqa: S311
    seen = ", ".join(f"{width}×{height}" for width, height in sizes)
    if streams:
        fleet = robots_of(streams, fps, lifespan, traffic, dice, whom)
        with told():
            name = asyncio.run(drive_robots(whom, fleet, span))
        last = max((one.heard or one.at for robot in fleet for one in robot.frames), default=0.0)
        if last <= warmup:
            why = ", ".join(sorted({robot.ended for robot in fleet if robot.ended}))
            raise fail(f"no frame was measured: {why or 'it was ended too soon'}")
        console.print(f"{name}, {streams} streams of {seen} {kind}", highlight=False)
        report_robots(fleet, (warmup, min(span, last)), whom.ops, as_json, plot)
        return
    calls: AbstractAsyncContextManager[tuple[str, Ask]] = (
        rest.gateway_calls(whom) if gateway else rpc.worker_calls(whom)
    )
    when = come(rate, span, random.Random(seed)) if rate else None  # noqa: S311 - drawn anew by seed
    draw = partial(traffic.draw, dice)
    with told():
        name, results = asyncio.run(drive_calls(calls, draw, when, most_open, callers, span))
    if not any(one.at >= warmup for one in results):
        raise fail("no call was measured: it was ended too soon, or the rate is too low")
    ends = min(span, max(one.at + one.took for one in results))
    console.print(f"{name}, calls of {batch} × {seen} {kind}", highlight=False)
    report_calls(results, (warmup, ends), whom.counts, as_json, plot)


def _check_streams(calls: Mapping[str, object], ops: Iterable[str], allowed: Sequence[str]) -> None:
    """Let pass what streams can be asked for.

    Args:
        calls: what is only said of calls, by its flag; empty where it is not said.
        ops: what is asked.
        allowed: what may be.
    """
    for flag, value in calls.items():
        with _said(flag):
            if value:
                raise ValueError("found with --streams; allowed: one of them")
    with _said("--ops"):
        for op in ops:
            if op not in allowed:
                raise ValueError(f"found {op!r} with --streams; allowed: {', '.join(allowed)}")


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
