"""The whole product as its users start it: real commands, real ports, real processes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from tests.cli.running import PATIENCE, Running, free_port
from tests.server.worker.processes import ENGINE

USER, ADMIN = "a-users-token", "an-admins-token"
"""Tokens of a caller that may infer, and of one that may administer and not infer."""

TECTUM = Path(sys.executable).with_name("tectum")
"""The installed command."""


class Up:
    """`tectum up` with the embedded model."""

    def __init__(self, folder: Path, *options: object) -> None:
        self.port, self.gateway_port, self.metrics_port = (free_port() for _ in range(3))
        ports = ["--port", self.port, "--gateway-port", self.gateway_port]
        self.running = Running(
            "up", *ports, "--metrics-port", self.metrics_port, *options, folder=folder
        )
        self.worker = f"127.0.0.1:{self.port}"
        self.gateway = f"127.0.0.1:{self.gateway_port}"
        self.http = client(self.gateway)

    def __enter__(self) -> Self:
        self.running.until_it_says("serving; Ctrl-C ends it")
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.running.__exit__()

    def ctrl_c(self) -> int:
        """What a terminal does: the signal goes to the whole group; gives the exit code."""
        os.killpg(self.running.process.pid, signal.SIGINT)
        return self.running.ended()

    def logged(self) -> list[dict[str, Any]]:
        """What all its processes have logged so far."""
        return log_lines(self.running.output)


class Pair:
    """`tectum serve` and `tectum gateway`, started apart as on two machines.

    Args:
        folder: where logs go.
        repository: of the worker's models.
        worker: options of the worker's.
        gateway: options of the gateway's.
    """

    def __init__(
        self, folder: Path, repository: Path, worker: list[object], gateway: list[object]
    ) -> None:
        self.port, self.gateway_port, self.metrics_port = (free_port() for _ in range(3))
        ports = ["--port", self.port, "--metrics-port", self.metrics_port]
        self.worker = Running("serve", "--repository", repository, *ports, *worker, folder=folder)
        called = ["--port", self.gateway_port, "--worker", f"127.0.0.1:{self.port}"]
        self.gateway = Running("gateway", *called, *gateway, folder=folder)
        self.http = client(f"127.0.0.1:{self.gateway_port}")

    def __enter__(self) -> Self:
        for running, ready in ((self.worker, self._serving), (self.gateway, self.ready)):
            running.until(ready)
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        for running in (self.gateway, self.worker):
            running.__exit__()

    def _serving(self) -> bool:
        return "serving on" in self.worker.output

    def ready(self) -> bool:
        """Whether the gateway says that the worker serves."""
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def engine(self) -> int:
        """The engine's process id."""
        return next(number for number in self.worker.family() if ENGINE in command_of(number))

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the engine stands still, as if it were busy with a batch that never ends."""
        engine = self.engine()
        os.kill(engine, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(engine, signal.SIGCONT)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric of the worker's, over all samples that carry these labels."""
        return summed(httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text, name, labels)

    def gateway_metric(self, name: str, **labels: str) -> float:
        """The same of the gateway's."""
        return summed(self.http.get("/metrics").text, name, labels)


def tectum(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The installed command, to its end."""
    command = [str(TECTUM), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment()
    )


def environment() -> dict[str, str]:
    """Wide lines without colours, and the installed command on the path."""
    path = f"{TECTUM.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "COLUMNS": "400", "NO_COLOR": "1", "PATH": path}


def client(address: str) -> httpx.Client:
    """A REST client that waits and never gives up first."""
    return httpx.Client(base_url=f"http://{address}", timeout=PATIENCE)


def in_thread(work: Callable[[], httpx.Response]) -> Future[httpx.Response]:
    """Begin a request, and go on."""
    future: Future[httpx.Response] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def command_of(process: int) -> str:
    """A process's command line; empty once it has gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def log_lines(output: str) -> list[dict[str, Any]]:
    """The JSON lines among what processes have said."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def summed(exposition: str, name: str, labels: dict[str, str]) -> float:
    """The sum of a metric's samples that carry all these labels; 0 without any."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    found = (line for line in exposition.splitlines() if re.split("[{ ]", line)[0] == name)
    return sum(
        float(line.rpartition(" ")[2]) for line in found if all(want in line for want in wanted)
    )


def write_tokens(file: Path) -> Path:
    """A token file that knows both."""
    known = [
        {"name": name, "sha256": hashlib.sha256(token.encode()).hexdigest(), "roles": [role]}
        for name, token, role in (("arm", USER, "infer"), ("boss", ADMIN, "admin"))
    ]
    file.write_text(json.dumps({"tokens": known}))
    return file
