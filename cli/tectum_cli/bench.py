"""`tectum bench`: how fast a worker answers, from so many callers at once."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer

from tectum_cli.extras import console, fail, told

__all__ = ["bench"]

_LONGEST = 3600
"""Seconds to measure at most."""


def bench(
    worker: Annotated[
        str,
        typer.Option(envvar="TECTUM_WORKER", help="The worker, HOST:PORT.", metavar="ADDRESS"),
    ] = "127.0.0.1:50051",
    token: Annotated[
        str,
        typer.Option(
            envvar="TECTUM_TOKEN", help="Bearer token, if the worker wants one.", metavar="TEXT"
        ),
    ] = "",
    callers: Annotated[
        int, typer.Option(help="Callers, each with one call at a time.", min=1, metavar="COUNT")
    ] = 8,
    seconds: Annotated[
        float, typer.Option(help="How long to measure, seconds.", metavar="SECONDS")
    ] = 10.0,
    size: Annotated[
        int, typer.Option(help="Side of the random pictures, pixels.", min=8, metavar="PIXELS")
    ] = 224,
    batch: Annotated[
        int,
        typer.Option(
            help="Pictures in one call, at most what the worker takes.", min=1, metavar="COUNT"
        ),
    ] = 1,
) -> None:
    """Measure how fast a worker answers.

    Embeds random raw pictures in a closed loop; prints throughput, latency, and where the time
    went, for the worker's default model.
    """
    if not 0 < seconds <= _LONGEST:
        allowed = f"found {seconds:g}; allowed: above 0, at most {_LONGEST}"
        raise typer.BadParameter(allowed, param_hint="--seconds")
    with told():
        found = asyncio.run(_measure(worker, token, callers, seconds, size, batch))
    model, took, latencies, refused, sizes, queue, compute = found
    if not latencies:
        raise fail(f"no call was answered; {refused} were refused")
    ordered = sorted(latencies)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000

    console.print(
        f"{model}, calls of {batch} × {size}×{size} pixels\n"
        f"{len(latencies) * batch / took:.1f} images/s from {callers} callers, {refused} refused\n"
        f"latency ms: p50 {at(0.5):.1f}, p90 {at(0.9):.1f}, p99 {at(0.99):.1f}\n"
        f"mean batch {sum(sizes) / len(sizes):.1f}, queue {1000 * sum(queue) / len(queue):.1f} ms, "
        f"compute {1000 * sum(compute) / len(compute):.1f} ms",
        highlight=False,
    )


async def _measure(
    worker: str, token: str, callers: int, seconds: float, size: int, batch: int
) -> tuple[str, float, list[float], int, list[int], list[float], list[float]]:
    import numpy as np

    from tectum import AsyncClient, Overloaded

    latencies: list[float] = []
    sizes: list[int] = []
    queue: list[float] = []
    compute: list[float] = []
    refused = 0
    async with AsyncClient(worker, token=token or None, retries=0) as client:
        most = (await client.get_model()).limits.max_items  # connects, and fails early
        if batch > most:
            raise fail(f"--batch: found {batch}; allowed: 1 to {most}, the most this worker takes")
        pictures = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
        info = (await client.embed_images(pictures)).info
        started = time.perf_counter()

        async def call() -> None:
            nonlocal refused
            while time.perf_counter() - started < seconds:
                began = time.perf_counter()
                try:
                    answer = await client.embed_images(pictures)
                except Overloaded as error:
                    refused += 1
                    await asyncio.sleep(error.retry_after or 0.01)
                    continue
                latencies.append(time.perf_counter() - began)
                sizes.append(answer.info.timings.batch_size)
                queue.append(answer.info.timings.queue)
                compute.append(answer.info.timings.compute)

        await asyncio.gather(*(call() for _ in range(callers)))
        took = time.perf_counter() - started
    return f"{info.model}@{info.version}", took, latencies, refused, sizes, queue, compute
