"""A front process: `python -m tectum_server.worker.front.process`, started by the supervisor.

Its settings come as one JSON line on standard input, which stays open for as long as
the supervisor lives. On standard output it says the port, or why it has none, and then that a
model serves.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry

from tectum_server.lifeline import end_with_stdin
from tectum_server.logs import set_up_logs
from tectum_server.worker.front.server import Front
from tectum_server.worker.link.engines import Engines
from tectum_server.worker.link.remote import RemoteEngine
from tectum_server.worker.settings import WorkerSettings
from tectum_server.worker.supervised import UNFINISHED, say, settle, told

__all__ = ["main"]

_LINK_SECONDS = 2.0


async def _run(
    settings: WorkerSettings, sockets: Sequence[Path], port: int | None, shared: str
) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor decides
    end_with_stdin()
    joins = port is not None and settings.fronts > 1
    if port is not None:
        settings = settings.model_copy(update={"port": port})
    requests, responses = settings.request_memory_bytes, settings.response_memory_bytes
    engines = [RemoteEngine(socket, requests, responses) for socket in sockets]
    try:
        joined = Engines(engines, watched=settings.watch > 0)
        front = Front(settings, joined, CollectorRegistry(), shared)
        for engine in engines:
            engine.start()
        if joins:  # the system gives it connections at once, which others could serve
            await _linked(joined)
        port = await front.start(joins)
    except (ValueError, OSError) as error:  # the port is taken, or a file is not as it should be
        say({"error": str(error)})
        return 4
    say({"port": port})
    ready, stopping = loop.create_task(front.ready()), loop.create_task(stop.wait())
    await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        say({"ready": True})
    ready.cancel()
    await stopping
    given_up = await front.stop()
    await asyncio.gather(*(engine.close() for engine in engines))
    return UNFINISHED if given_up else 0


async def _linked(engines: Engines) -> None:
    """Wait until they say what they serve, for a while: there may be none at the moment."""
    linked = asyncio.Event()
    engines.on_change(linked.set)
    if not engines.models:
        with suppress(TimeoutError):
            await asyncio.wait_for(linked.wait(), _LINK_SECONDS)
    engines.off_change(linked.set)


def main() -> int:
    """Run until the supervisor says stop."""
    settle()
    given = told()
    settings = WorkerSettings.model_validate_json(json.dumps(given["settings"]))
    set_up_logs("worker.front", settings.log_level)
    sockets = [Path(socket) for socket in given["sockets"]]
    return asyncio.run(_run(settings, sockets, given["port"], given["shared"]))


if __name__ == "__main__":
    sys.exit(main())
