"""The engine process: `python -m tectum_server.worker.engine.process`, started by the supervisor.

Its settings come as one JSON line on standard input, which stays open for as long as
the supervisor lives; its end is this process's end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from tectum_server.logs import set_up_logs
from tectum_server.worker.engine.local import EngineSettings, LocalEngine
from tectum_server.worker.failure import Failure
from tectum_server.worker.lifeline import parent_gone
from tectum_server.worker.link.served import serve_engine
from tectum_server.worker.metrics import EngineMetrics

__all__ = ["main"]

_log = logging.getLogger(__name__)


async def _run(settings: EngineSettings, socket_path: Path) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor decides
    parent_gone(stop)
    engine = LocalEngine(settings, EngineMetrics(CollectorRegistry()))
    serving = loop.create_task(serve_engine(engine, socket_path))
    try:
        await engine.start()
    except Failure as failure:
        _log.error("cannot serve", extra={"reason": str(failure)})
        serving.cancel()
        return 3
    await stop.wait()
    await engine.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return 0


def main() -> int:
    """Run until the supervisor says stop."""
    told = json.loads(sys.stdin.readline())
    set_up_logs("worker.engine", told.pop("log_level"))
    socket_path = Path(told.pop("socket"))
    told["models"] = tuple(told["models"])
    return asyncio.run(_run(EngineSettings(**told), socket_path))


if __name__ == "__main__":
    sys.exit(main())
