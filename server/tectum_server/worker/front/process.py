"""A front process: `python -m tectum_server.worker.front.process`, started by the supervisor.

Its settings come as one JSON line on standard input, which stays open for as long as
the supervisor lives. On standard output it says one line: the port, or why it has none.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from tectum_server.lifeline import end_with_stdin
from tectum_server.logs import set_up_logs
from tectum_server.worker.front.server import Front
from tectum_server.worker.link.remote import RemoteEngine
from tectum_server.worker.settings import WorkerSettings
from tectum_server.worker.supervised import say, told

__all__ = ["main"]


async def _run(settings: WorkerSettings, socket_path: Path) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor decides
    end_with_stdin()
    engine = RemoteEngine(
        socket_path, settings.request_memory_bytes, settings.response_memory_bytes
    )
    try:
        front = Front(settings, engine, CollectorRegistry())
        port = await front.start()
    except (ValueError, OSError) as error:  # the port is taken, or a file is not as it should be
        say({"error": str(error)})
        return 4
    engine.start()
    say({"port": port})
    ready, stopping = loop.create_task(front.ready()), loop.create_task(stop.wait())
    await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        say({"ready": True})
    ready.cancel()
    await stopping
    given_up = await front.stop()
    await engine.close()
    return 5 if given_up else 0


def main() -> int:
    """Run until the supervisor says stop."""
    given = told()
    settings = WorkerSettings.model_validate_json(json.dumps(given["settings"]))
    set_up_logs("worker.front", settings.log_level)
    return asyncio.run(_run(settings, Path(given["socket"])))


if __name__ == "__main__":
    sys.exit(main())
