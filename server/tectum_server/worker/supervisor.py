"""The worker's first process: starts a front and an engine, keeps them alive, ends them in order.

Holds neither grpc nor torch. An engine that dies is replaced, under the front's living
connections, by one with what served last; the front's death ends the worker. SIGTERM or
Ctrl-C drains: the front finishes what it accepted, then the engine stops, and the worker
exits 0; what is not finished within `drain_timeout` is told to go elsewhere, and the worker's
end is an error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from tectum_server.listening import cannot_listen
from tectum_server.worker.metrics import forget_process, serve_metrics, share_metrics
from tectum_server.worker.settings import WorkerSettings

__all__ = ["CannotServe", "Supervisor", "expose_metrics", "not_finished"]

_log = logging.getLogger(__name__)
_RESTART_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
_STABLE_SECONDS = 30.0
_KILL_AFTER = 5.0

_ALLOCATION = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""glibc's settings for the engine, unless the operator has others. It keeps what a batch needed for
the next one: else every batch gives back its activations and takes them again page by page."""

_LONGEST_SOCKET = 100
"""Bytes in a Unix socket's path; Linux takes 107, others a few less."""


_TOLD_OF_DROPPED = 200
"""Bytes of a line that was too long, for the log."""


class CannotServe(RuntimeError):
    """The worker could not start, or not finish what it had accepted; says why and what to do."""


class Supervisor:
    """A worker of several processes.

    Args:
        settings: the worker's.
        on_ready: called with the gRPC port once a model serves.
    """

    def __init__(self, settings: WorkerSettings, on_ready: Callable[[int], None]) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._stop = asyncio.Event()
        self._engine: asyncio.subprocess.Process | None = None
        self._served_once = False
        self._served: tuple[str, ...] | None = None
        """What served last, after an admin's changes; the next engine begins with it."""

    def stop(self) -> None:
        """Begin to drain."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until told to stop.

        Raises:
            CannotServe: a port is taken, no model could be loaded, or draining took too long.
        """
        with tempfile.TemporaryDirectory(prefix="tectum-worker-", dir=_temporary()) as folder:
            await self._run(Path(folder))

    async def _run(self, folder: Path) -> None:
        metrics = folder / "metrics"
        metrics.mkdir()
        environment = share_metrics(metrics)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
        expose_metrics(self._settings, None)
        socket_path = folder / "engine.sock"
        front = await self._spawn(
            "tectum_server.worker.front.process",
            {"settings": self._settings.model_dump(mode="json"), "socket": str(socket_path)},
            environment,
        )
        port = await self._port_of(front)
        if port is None:
            return
        keeping = asyncio.create_task(self._keep_engine(socket_path, environment, metrics))
        watching = asyncio.create_task(self._watch(front, port))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({keeping, watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop.set()  # from here on, a child that ends does so because it was told to
            await self._end(front, self._settings.drain_timeout + _KILL_AFTER)
            if self._engine is not None:
                await self._end(self._engine, _KILL_AFTER)
            # Each of them ends by now; so neither's error is lost, whichever came first.
            ended = await asyncio.gather(keeping, watching, stopping, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, BaseException):
                raise outcome
        if front.returncode:
            raise not_finished(self._settings)

    async def _keep_engine(
        self, socket_path: Path, environment: dict[str, str], metrics: Path
    ) -> None:
        """Run the engine, again and again, until told to stop."""
        told = {
            **self._settings.for_engine(),
            "socket": str(socket_path),
            "log_level": self._settings.log_level,
        }
        failures = 0
        while not self._stop.is_set():
            socket_path.unlink(missing_ok=True)  # noqa: ASYNC240 - once a restart
            started = asyncio.get_running_loop().time()
            self._engine = await self._spawn(
                "tectum_server.worker.engine.process",
                {**told, **self._to_load()},
                {**_ALLOCATION, **environment},
            )
            if self._stop.is_set():  # nobody has seen this one
                await self._end(self._engine, _KILL_AFTER)
            why = await self._listen(self._engine)
            code = await self._engine.wait()
            forget_process(self._engine.pid, metrics)
            if self._stop.is_set():
                return
            if not self._served_once:
                raise CannotServe(why or "the engine could not load its models; its log says why")
            lasted = asyncio.get_running_loop().time() - started
            failures = 0 if lasted > _STABLE_SECONDS else failures + 1
            pause = _RESTART_SECONDS[min(failures, len(_RESTART_SECONDS) - 1)]
            about = {"code": code, "reason": why, "restart_in_seconds": pause}
            _log.error("the engine died", extra=about)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    def _to_load(self) -> dict[str, Any]:
        """What an engine begins with: what served last, or else what the settings ask for."""
        asked = self._settings.models
        if self._served is None:
            return {"models": asked, "asked": None}
        return {"models": self._served, "asked": asked}

    async def _listen(self, engine: asyncio.subprocess.Process) -> str:
        """Note what serves until the engine ends; gives why it could not, if it said so."""
        why = ""
        while said := await _hear(engine):
            match said:
                case {"models": list() as models}:
                    self._served = tuple(map(str, models))
                case {"error": str() as why}:
                    pass
        return why

    async def _port_of(self, front: asyncio.subprocess.Process) -> int | None:
        """Where the front listens; None if the end came before it did."""
        said = await _hear(front)
        if "port" not in said:
            with suppress(TimeoutError):  # it ends by itself; a signal meanwhile is only noise
                await asyncio.wait_for(front.wait(), _KILL_AFTER)
            await self._end(front, _KILL_AFTER)
            if self._stop.is_set():
                return None
            why = said.get("error", "the front could not start; its log says why")
            raise CannotServe(str(why))
        return int(str(said["port"]))

    async def _watch(self, front: asyncio.subprocess.Process, port: int) -> None:
        """Say when a model serves; fail if the front ends by itself."""
        if (await _hear(front)).get("ready"):
            self._served_once = True
            self._on_ready(port)
        while await _hear(front):  # nothing more is expected, but a full pipe would stop the front
            pass
        code = await front.wait()
        if not self._stop.is_set():
            raise CannotServe(f"the front ended with code {code}; its log says why")

    async def _spawn(
        self, module: str, told: dict[str, Any], environment: dict[str, str]
    ) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            # A terminal's Ctrl-C is for this process, which ends its children in order.
            start_new_session=True,
        )
        if process.stdin is None:
            raise AssertionError("stdin was asked for")
        process.stdin.write((json.dumps(told) + "\n").encode())
        with suppress(ConnectionError):  # it has ended already, and its end says so
            await process.stdin.drain()
        if process.stdin.is_closing():
            with suppress(ConnectionError):  # why it closes is asked, or asyncio logs it
                await process.stdin.wait_closed()
        return process

    @staticmethod
    async def _end(process: asyncio.subprocess.Process, patience: float) -> None:
        """SIGTERM, and SIGKILL for who does not listen."""
        if process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def not_finished(settings: WorkerSettings) -> CannotServe:
    """The error for calls that draining has not waited for; the front's log says how many."""
    return CannotServe(
        f"calls in flight were not finished within {settings.drain_timeout:g} s and were told to "
        "go elsewhere; TECTUM_DRAIN_TIMEOUT gives them longer"
    )


def expose_metrics(settings: WorkerSettings, registry: CollectorRegistry | None) -> None:
    """Answer scrapes where the settings say, if they do; `registry` as in `serve_metrics`.

    Raises:
        CannotServe: nothing can listen there.
    """
    host, port = settings.metrics_host, settings.metrics_port
    if not port:
        return
    try:
        serve_metrics(host, port, registry)
    except OSError as error:
        what, flag = f"port {port} for metrics", "--metrics-port (0: none)"
        raise CannotServe(str(cannot_listen(what, error, "--metrics-host", flag))) from error


async def _hear(process: asyncio.subprocess.Process) -> dict[str, object]:
    """The next thing the process says; nothing if it has ended."""
    if process.stdout is None:
        raise AssertionError("stdout was asked for")
    while line := await _next_line(process.stdout):
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        # A library's, no word of ours.
        _log.debug("a child wrote", extra={"line": line.decode(errors="replace")})
    return {}


async def _next_line(said: asyncio.StreamReader) -> bytes:
    """The next line that the reader has room for, the last one perhaps cut; nothing at the end.

    A longer one is a library's, no word of ours: it is read to its end and dropped.
    """
    begins, dropped = b"", 0
    while True:
        try:
            line = await said.readuntil()
        except asyncio.LimitOverrunError as error:
            part = await said.readexactly(error.consumed)
            begins, dropped = begins or part[:_TOLD_OF_DROPPED], dropped + len(part)
            continue
        except asyncio.IncompleteReadError as error:
            line = error.partial
        if not dropped:
            return line
        about = {"bytes": dropped + len(line), "begins": begins.decode(errors="replace")}
        _log.warning("a child's line was too long", extra=about)
        begins, dropped = b"", 0


def _temporary() -> str | None:
    """The usual temporary folder, None, unless a Unix socket in it has too long a path."""
    longest = Path(tempfile.gettempdir(), "tectum-worker-xxxxxxxx", "engine.sock")
    return None if len(os.fsencode(longest)) <= _LONGEST_SOCKET else "/tmp"  # noqa: S108
