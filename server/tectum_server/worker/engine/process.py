"""The engine process: `python -m tectum_server.worker.engine.process`, started by the supervisor.

Its settings come as one JSON line on standard input, which stays open for as long as
the supervisor lives; its end is this process's end. On standard output it says a line
whenever other models serve, and why it cannot serve, if it cannot; once it serves, every second
that its event loop turns.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from tectum_server.lifeline import end_with_stdin
from tectum_server.logs import set_up_logs
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.narrowing import see_only
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.failure import Failure
from tectum_server.worker.link.beating import beat
from tectum_server.worker.link.served import serve_engine
from tectum_server.worker.metrics import EngineMetrics
from tectum_server.worker.supervised import BEAT_SECONDS, beats, say, settle, told

__all__ = ["main"]

_FAILED = 1
"""Exit code after a fault of its own; the supervisor starts another."""
_CANNOT = 3
"""Exit code if it cannot serve what it was asked to."""


@dataclass(slots=True)
class _Start:
    """What this process took until it served, all that it imports and loads included."""

    begun: float | None
    """Monotonic seconds, which on one machine are the same to all; None: nobody said."""
    seconds: float | None = None

    def end(self) -> None:
        """It serves, if it did not already."""
        if self.begun is not None and self.seconds is None:
            self.seconds = time.monotonic() - self.begun


async def _run(settings: EngineSettings, socket_path: Path, start: _Start) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor decides
    end_with_stdin()
    stopping = loop.create_task(stop.wait())
    try:
        engine = LocalEngine(settings, EngineMetrics(CollectorRegistry()))
        engine.on_change(lambda: _tell(engine, start))  # before the fronts are told
        serving = loop.create_task(serve_engine(engine, socket_path, lambda: start.seconds))
        starting = loop.create_task(engine.start())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            os._exit(0)  # the thread that loads cannot be interrupted, and nobody is served yet
        await starting
    except (Failure, ValueError, OSError) as error:
        say({"error": str(error)})
        return _CANNOT
    beating = loop.create_task(beat(beats, BEAT_SECONDS))
    failing = loop.create_task(engine.failed())
    await asyncio.wait({failing, serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving  # raises what ended it
    if failing.done():
        return _FAILED  # its log says why
    await engine.close()
    serving.cancel()
    beating.cancel()
    await asyncio.gather(serving, beating, return_exceptions=True)
    return 0


def _tell(engine: LocalEngine, start: _Start) -> None:
    """Tell the supervisor what a new engine is to begin with."""
    if engine.wanted:
        start.end()
        say({"models": engine.wanted})


def main() -> int:
    """Run until the supervisor says stop."""
    settle()
    given = told()
    set_up_logs("worker.engine", given.pop("log_level"))
    socket_path = Path(given.pop("socket"))
    start = _Start(given.pop("begun", None))
    given["models"] = tuple(given["models"])
    given["asked"] = None if given["asked"] is None else tuple(given["asked"])
    settings = EngineSettings(**given)
    try:
        settings = replace(settings, device=see_only(settings.device))
    except ValueError as error:
        say({"error": str(error)})
        return _CANNOT
    code = asyncio.run(_run(settings, socket_path, start))
    if code == _FAILED:  # a thread that is stuck would have the interpreter wait for it
        logging.shutdown()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
