"""A worker of several processes, started as an operator starts it, and what can be done to it."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

from tests.server.worker.serving import PATIENCE, Caller, until

_PROGRAM = """
import json, sys
from tectum_server.worker.serve import CannotServe, serve
from tectum_server.worker.settings import WorkerSettings
settings = WorkerSettings.model_validate_json(sys.argv[1])
try:
    serve(settings, lambda port: print(json.dumps({"port": port}), flush=True))
except CannotServe as error:
    print(json.dumps({"error": str(error)}), flush=True)
    sys.exit(3)
"""
ENGINE, FRONT = "tectum_server.worker.engine.process", "tectum_server.worker.front.process"


class Processes:
    """A worker; `said` waits for its first word.

    Args:
        folder: where its temporary files and its log go.
        settings: the worker's, but for the ports, which are free ones.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.log = folder / "log"
        self.metrics_port = free_port()
        given = {"port": 0, "metrics_port": self.metrics_port, "max_batch": 4, **settings}
        self._lines: queue.Queue[str] = queue.Queue()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(given, default=str)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "TMPDIR": str(folder)},
            )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._clients: list[Caller] = []

    def _read(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                self._lines.put(line)
        self._lines.put("{}")

    def said(self) -> dict[str, Any]:
        """The next line that the worker says; nothing once it has ended."""
        said: dict[str, Any] = json.loads(self._lines.get(timeout=PATIENCE))
        return said

    def client(self, token: str = "") -> Caller:
        """A client, once a model serves."""
        said = self.said()
        if "port" not in said:
            raise AssertionError(f"the worker did not start: {said}\n{self.log.read_text()}")
        self._clients.append(Caller(said["port"], token))
        return self._clients[-1]

    def children(self) -> dict[int, str]:
        """Process ids and command lines of what the supervisor started."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and parent(int(entry.name)) == self.process.pid:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(entry.name)] = command.decode()
        return found

    def those(self, module: str) -> list[int]:
        """The process ids of those that run this, oldest first."""
        return sorted(pid for pid, command in self.children().items() if module in command)

    def child(self, module: str) -> int:
        """The process id of the only one."""
        (pid,) = self.those(module)
        return pid

    def another(self) -> Caller:
        """One more client, like the first."""
        first = self._clients[0]
        self._clients.append(Caller(first.port, first.token))
        return self._clients[-1]

    def scrape(self) -> str:
        """The metrics of all processes."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as response:
            return str(response.read().decode())

    def signal(self, number: signal.Signals) -> None:
        """Signal the supervisor."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """The supervisor's exit code."""
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """End it, whatever its state."""
        for client in self._clients:
            client.close()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()


def parent(pid: int) -> int | None:
    """The parent of a process; None if there is no such process, or it is dead and unburied."""
    try:
        state, up = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(up)


def gone(*pids: int) -> None:
    """Wait until these processes have ended."""
    until(lambda: all(parent(pid) is None for pid in pids))


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
