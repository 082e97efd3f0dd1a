"""Ways to run the command: in this process, in another, and without some of its packages."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from typer.testing import CliRunner, Result

from tectum_cli.app import app
from tectum_server.worker.serve import serve_inline
from tectum_server.worker.settings import WorkerSettings

__all__ = ["PATIENCE", "Running", "Worker", "free_port", "gateway", "invoke", "run_without"]

PATIENCE = 120.0
"""Seconds after which whoever waits has failed."""
_BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
sys.argv = ["tectum", *{arguments!r}]
from tectum_cli import main
main()
"""


def invoke(*arguments: object) -> Result:
    """Run the command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    # What is no way to end a command is a bug, and its traceback says which.
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_without(modules: Iterable[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that cannot import some packages."""
    program = _BLOCKED.format(names=set(modules), arguments=[str(a) for a in arguments])
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=PATIENCE, check=False, env=_environment(),
    )  # fmt: skip


class Running:
    """The command in a process of its own, that can be interrupted; takes its children with it."""

    def __init__(self, *arguments: object, folder: Path) -> None:
        self._mark = f"TESTED_TECTUM={uuid.uuid4()}"
        # A file: children that outlive the command would hold a pipe open.
        self._path = folder / f"{self._mark}.txt"
        name, _, value = self._mark.partition("=")
        with self._path.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tectum_cli", *map(str, arguments)],
                stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env={**_environment(), name: value},
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number in self.family():
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait(PATIENCE)

    @property
    def output(self) -> str:
        """What it and its children have said so far."""
        return self._path.read_text()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is so, as long as the process lives."""
        ends = time.monotonic() + PATIENCE
        while not holds():
            assert self.process.poll() is None, f"it ended:\n{self.output}"
            assert time.monotonic() < ends, f"it never came:\n{self.output}"
            time.sleep(0.01)

    def until_it_says(self, words: str) -> None:
        """Wait for its output."""
        self.until(lambda: words in self.output)

    def until_alone(self) -> None:
        """Wait until nothing that it started lives any more; it has ended itself."""
        ends = time.monotonic() + PATIENCE
        while left := self.family():
            assert time.monotonic() < ends, f"{left} live on:\n{self.output}"
            time.sleep(0.01)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """What a terminal's Ctrl-C does, or another signal."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; gives the exit code."""
        return self.process.wait(PATIENCE)

    def family(self) -> list[int]:
        """Living processes that it started, at whatever remove, and itself."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                marked = self._mark.encode() in (entry / "environ").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except (OSError, IndexError):
                continue
            if marked and state != "Z":
                found.append(int(entry.name))
        return found


class Worker:
    """A real worker with its model in this process, on a thread's event loop."""

    def __init__(self, repository: Path, model: str, **more: Any) -> None:
        self._settings = WorkerSettings(
            repository=str(repository),
            models=(model,),
            engine="inline",
            port=0,
            metrics_port=0,
            **more,
        )
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.address = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE), "the worker did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)

    def _serve(self) -> None:
        def ready(port: int) -> None:
            self.address = f"127.0.0.1:{port}"
            self._ready.set()

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(serve_inline(self._settings, self._stop, ready))
        self._loop.close()


@contextmanager
def gateway(repository: Path, model: str, folder: Path) -> Iterator[str]:
    """The address of a gateway, whose worker serves a model; both are interrupted at the end."""
    ports = {"--port": free_port(), "--gateway-port": free_port(), "--metrics-port": 0}
    flags = [part for pair in ports.items() for part in pair]
    with Running("up", "--repository", repository, "--model", model, *flags, folder=folder) as up:
        up.until_it_says("serving; Ctrl-C ends it")
        yield f"127.0.0.1:{ports['--gateway-port']}"
        up.interrupt()
        up.ended()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    """Wide lines, so that no message is broken, and no colours."""
    return {**os.environ, "COLUMNS": "400", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
