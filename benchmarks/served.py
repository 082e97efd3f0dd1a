"""A worker in processes of its own, and what can be seen of it from outside."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import tectum

__all__ = ["Served", "free_port", "processor_seconds", "served"]

_ROLES = {
    "engine": "tectum_server.worker.engine.process",
    "front": "tectum_server.worker.front.process",
}
_START = 180.0


@dataclass(frozen=True)
class Served:
    """A worker that serves."""

    port: int
    metrics_port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"127.0.0.1:{self.port}"

    def pids(self) -> dict[str, int]:
        """Of its children, by what they are; one that is gone is missing."""
        found = dict[str, int]()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
            for role, module in _ROLES.items():
                if parent == self.process.pid and module in command:
                    found[role] = int(folder.name)
        return found

    def memory(self) -> dict[str, float]:
        """What each child holds in memory, MiB, pages shared with others included."""
        return {role: _status(pid, "VmRSS") / 1024 for role, pid in self.pids().items()}

    def metrics(self) -> str:
        """All that it measures, in Prometheus' words."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as answer:
            return str(answer.read().decode())

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric over all its label sets that have these."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = re.findall(rf"^{name}(\{{[^}}]*\}})? (\S+)$", self.metrics(), re.MULTILINE)
        return sum(float(value) for found, value in lines if all(w in found for w in wanted))


@contextmanager
def served(
    repository: Path, *models: str, log: Path | None = None, **settings: object
) -> Iterator[Served]:
    """`tectum serve`, ready.

    Args:
        repository: where bundles are.
        models: to serve.
        log: where its log goes; None: to standard error.
        settings: by their names.
    """
    port, metrics_port = free_port(), free_port()
    command = [sys.executable, "-m", "tectum_cli", "serve", "--repository", str(repository)]
    command += ["--port", str(port), "--metrics-port", str(metrics_port)]
    for model in models:
        command += ["--model", model]
    given = {f"TECTUM_{name.upper()}": str(value) for name, value in settings.items()}
    environment = {**os.environ, "TECTUM_LOG_LEVEL": "warning", **given}
    with log.open("w") if log is not None else nullcontext() as file:
        process = subprocess.Popen(command, env=environment, stderr=file)
    try:
        _wait_for(process, port)
        yield Served(port, metrics_port, process)
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    """Return once it serves.

    Raises:
        RuntimeError: it has ended instead, or does not within some minutes.
    """
    ends = time.monotonic() + _START
    with tectum.Client(f"127.0.0.1:{port}") as client:
        while time.monotonic() < ends:
            if process.poll() is not None:
                raise RuntimeError(f"the worker ended with code {process.returncode}")
            try:
                client.wait_until_ready(1.0)
            except tectum.Unavailable:
                continue
            return
    raise RuntimeError(f"the worker is not ready after {_START:g} s")


def free_port() -> int:
    """A port nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _status(pid: int, field: str) -> float:
    """A number of /proc/PID/status, in its own unit; 0 once the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def processor_seconds(pid: int) -> float:
    """Processor time that a process has had, all its threads together; 0 once it is gone."""
    try:
        numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")
