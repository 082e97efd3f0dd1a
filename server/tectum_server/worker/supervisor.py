"""The worker's first process: starts fronts and engines, keeps them alive, ends them in order.

Holds neither grpc nor torch. An engine that dies is replaced, under the fronts' living
connections, by one with what served last; a front that dies is replaced on the same port, before
engines that have lost nothing. SIGTERM or Ctrl-C drains: the fronts finish what they accepted,
then the engines stop, and the worker exits 0; what is not finished within `drain_timeout` is told
to go elsewhere, and the worker's end is an error.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from tectum_server.listening import cannot_listen
from tectum_server.worker.children import KILL_AFTER, end, end_if_lost, hear, spawn
from tectum_server.worker.metrics import forget_process, serve_metrics, share_metrics
from tectum_server.worker.pulse import Pulse
from tectum_server.worker.settings import WorkerSettings
from tectum_server.worker.shared_names import beginning, sweep
from tectum_server.worker.supervised import BEAT_SECONDS, UNFINISHED

__all__ = ["CannotServe", "Supervisor", "expose_metrics", "not_finished"]

_log = logging.getLogger(__name__)
_FRONT = "tectum_server.worker.front.process"
_ENGINE = "tectum_server.worker.engine.process"
_RESTART_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
_STABLE_SECONDS = 30.0
_FEWEST_BEATS = 3
"""That an engine may miss, however short its batches are."""

_ALLOCATION = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""glibc's settings for an engine, unless the operator has others. It keeps what a batch needed for
the next one: else every batch gives back its activations and takes them again page by page."""

_LONGEST_SOCKET = 100
"""Bytes in a Unix socket's path; Linux takes 107, others a few less."""


class CannotServe(RuntimeError):
    """The worker could not start, or not finish what it had accepted; says why and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class _Child:
    """A process that is kept alive."""

    name: str
    module: str
    """What runs in it."""
    told: Callable[[], dict[str, Any]]
    """What one that begins now is told."""
    after: asyncio.Event
    """What the first of them waits for."""
    shared: str = ""
    """How its shared memory is called; empty: it makes none."""


class Supervisor:
    """A worker of several processes.

    Args:
        settings: the worker's.
        on_ready: called with the gRPC port once every front and every engine serves.
    """

    def __init__(self, settings: WorkerSettings, on_ready: Callable[[int], None]) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._living: dict[str, Process] = {}
        self._awaited = {*_names("front", settings.fronts), *_names("engine", settings.engines)}
        """Who has never served."""
        self._stop = asyncio.Event()
        self._begun = asyncio.Event()
        self._listens = asyncio.Event()
        """A front has the port: other fronts join it there, and engines have somebody to serve."""
        self._serves = asyncio.Event()
        """An engine has the models: what it has tried and compiled, others find in the cache."""
        self._port: int | None = None
        self._served: dict[str, tuple[str, ...]] = {}
        """What each engine served last, after an admin's changes."""

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
        expose_metrics(self._settings, metrics)
        fronts, engines = self._children(folder)
        keeping = [asyncio.create_task(self._keep(child, metrics)) for child in fronts + engines]
        stopping = asyncio.create_task(self._stop.wait())
        self._begun.set()
        try:
            await asyncio.wait({*keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop.set()  # from here on, a child that ends does so because it was told to
            self._listens.set()
            self._serves.set()
            ended = await self._end(fronts, self._settings.drain_timeout + KILL_AFTER)
            await self._end(engines, KILL_AFTER)
            # Each of them ends by now; so no error is lost, whichever came first.
            outcomes = await asyncio.gather(*keeping, stopping, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        for front in ended:
            self._judge(front)

    def _judge(self, front: Process) -> None:
        """Let pass a front that ended as it was told to.

        Raises:
            CannotServe: it left calls unfinished, or did not end by itself.
        """
        if front.returncode == UNFINISHED:
            raise not_finished(self._settings)
        # SIGTERM: it was told before it had begun to listen to that.
        if front.returncode not in (0, -signal.SIGTERM):
            code = front.returncode
            raise CannotServe(f"a front ended with code {code} as it drained; its log says why")

    def _children(self, folder: Path) -> tuple[list[_Child], list[_Child]]:
        """Fronts and engines; the first of each before the others."""
        names = _names("engine", self._settings.engines)
        sockets = [folder / f"{name}.sock" for name in names]
        after = [self._listens] + [self._serves] * (len(names) - 1)
        engines = [
            _Child(
                name, _ENGINE, partial(self._tell_engine, number, sockets[number]), after[number]
            )
            for number, name in enumerate(names)
        ]
        fronts = list[_Child]()
        for name in _names("front", self._settings.fronts):
            begins, first = beginning(), not fronts
            tell = partial(self._tell_front, sockets, begins)
            begun = self._begun if first else self._listens
            fronts.append(_Child(name, _FRONT, tell, begun, begins))
        return fronts, engines

    def _tell_front(self, sockets: Sequence[Path], begins: str) -> dict[str, Any]:
        return {
            "settings": self._settings.model_dump(mode="json"),
            "sockets": [str(socket) for socket in sockets],
            "port": self._port,
            "shared": begins,
        }

    def _tell_engine(self, number: int, socket: Path) -> dict[str, Any]:
        """What to begin with: what others serve, or served last; else what was asked for."""
        asked, names = self._settings.models, _names("engine", self._settings.engines)
        own = names.pop(number)
        others = [name for name in names if name in self._living]
        told = [self._served[name] for name in [*others, own, *names] if name in self._served]
        again = {"models": told[0], "asked": asked} if told else {"models": asked, "asked": None}
        return {
            **self._settings.for_engine(number),
            **again,
            "socket": str(socket),
            "begun": time.monotonic(),
            "log_level": self._settings.log_level,
        }

    async def _keep(self, child: _Child, metrics: Path) -> None:
        """Run a child, again and again, until told to stop.

        Raises:
            CannotServe: it ended before it had ever served.
        """
        failures, loop = 0, asyncio.get_running_loop()
        await child.after.wait()
        while not self._stop.is_set():
            started, code = loop.time(), 0
            try:
                process = await self._start(child, metrics)
                why = await self._listen(child.name, process)
                code = await process.wait()
                self._forget(child, process, metrics)
            except OSError as error:  # the system has no process to give
                why = f"it cannot be started: {error}"
            if self._stop.is_set():
                return
            if child.name in self._awaited:
                raise CannotServe(why or f"the {child.name} could not start; its log says why")
            failures = 0 if loop.time() - started > _STABLE_SECONDS else failures + 1
            pause = _RESTART_SECONDS[min(failures, len(_RESTART_SECONDS) - 1)]
            about = {"code": code, "reason": why, "restart_in_seconds": pause}
            _log.error("the %s died", child.name, extra=about)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    def _forget(self, child: _Child, process: Process, metrics: Path) -> None:
        """It has ended: what only a living one may have is gone."""
        del self._living[child.name]
        forget_process(process.pid, metrics)
        if child.shared:
            sweep(child.shared)

    async def _start(self, child: _Child, metrics: Path) -> Process:
        environment = share_metrics(metrics)
        if child.module == _ENGINE:
            environment = {**_ALLOCATION, **environment}
        process = self._living[child.name] = await spawn(child.module, child.told(), environment)
        if self._stop.is_set():  # nobody has seen this one
            await end(process, KILL_AFTER)
        return process

    async def _listen(self, name: str, process: Process) -> str:
        """Note what a child comes to until it ends; gives why it could not, if it said so.

        One that says that it beats, as an engine does once it serves, is ended if it stops.
        """
        why, watching = "", list[asyncio.Task[None]]()
        pulse = Pulse(max(ceil(self._settings.compute_timeout / BEAT_SECONDS), _FEWEST_BEATS))
        while said := await hear(process):
            match said:
                case {"port": int() as port}:
                    self._port = port
                    self._listens.set()
                case {"ready": True}:
                    self._has_come(name)
                case {"models": list() as models}:
                    self._served[name] = tuple(map(str, models))
                    self._serves.set()
                    self._has_come(name)
                case {"beats": True}:
                    pulse.heard()
                    if not watching:
                        lost = end_if_lost(process, name, pulse, BEAT_SECONDS)
                        watching.append(asyncio.create_task(lost))
                case {"error": str() as why}:
                    pass
        for watch in watching:
            watch.cancel()
        return why

    def _has_come(self, name: str) -> None:
        """A child serves; once all do, the operator is told."""
        waited = bool(self._awaited)
        self._awaited.discard(name)
        if waited and not self._awaited and self._port is not None:
            self._on_ready(self._port)

    async def _end(self, children: Sequence[_Child], patience: float) -> list[Process]:
        """End those that live, all at once."""
        living = [self._living[child.name] for child in children if child.name in self._living]
        await asyncio.gather(*(end(process, patience) for process in living))
        return living


def not_finished(settings: WorkerSettings) -> CannotServe:
    """The error for calls that draining has not waited for; the front's log says how many."""
    return CannotServe(
        f"calls in flight were not finished within {settings.drain_timeout:g} s and were told to "
        "go elsewhere; TECTUM_DRAIN_TIMEOUT gives them longer"
    )


def expose_metrics(settings: WorkerSettings, source: CollectorRegistry | Path) -> None:
    """Answer scrapes where the settings say, if they do; `source` as in `serve_metrics`.

    Raises:
        CannotServe: nothing can listen there.
    """
    host, port = settings.metrics_host, settings.metrics_port
    if not port:
        return
    try:
        serve_metrics(host, port, source)
    except OSError as error:
        what, flag = f"port {port} for metrics", "--metrics-port (0: none)"
        raise CannotServe(str(cannot_listen(what, error, "--metrics-host", flag))) from error


def _temporary() -> str | None:
    """The usual temporary folder, None, unless a Unix socket in it has too long a path."""
    longest = Path(tempfile.gettempdir(), "tectum-worker-xxxxxxxx", "engine-999.sock")
    return None if len(os.fsencode(longest)) <= _LONGEST_SOCKET else "/tmp"  # noqa: S108


def _names(what: str, count: int) -> list[str]:
    """What fronts, or engines, are called in the log."""
    return [what] if count == 1 else [f"{what}-{number}" for number in range(count)]
