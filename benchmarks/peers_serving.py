"""Servers that run beside each other and take turns: all but the one that is asked are frozen.

Each has an environment of its own (`make peers` fills them) and may begin processes of any kind;
they are known by a mark in their environment, which their children inherit.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Kind", "Running", "all_running"]

HERE = Path(__file__).parent
_MARK = "PEERS_TURN"
_AWAKE = 1.0
"""Seconds for one that was frozen to find its feet."""


@dataclass(frozen=True, eq=False)
class Kind:
    """How one is begun."""

    name: str
    environment: str
    """Folder of its environment beside the checkout's own; empty: this one."""
    command: tuple[str, ...]
    """After the interpreter or the program; {port}, {repository}, {checkpoint} stand for those."""
    settings: Mapping[str, str]
    """More of its process' environment, with the same words."""

    def executable(self, word: str) -> str:
        """A program of its environment."""
        folder = Path(sys.executable).parent
        if self.environment:
            folder = HERE.parent / self.environment / "bin"
        return str(folder / word)


@dataclass(frozen=True)
class Running:
    """One that runs."""

    kind: Kind
    port: int
    mark: str

    def thaw(self) -> None:
        """Let it run."""
        self._signal(signal.SIGCONT)
        time.sleep(_AWAKE)

    def freeze(self) -> None:
        """Let it take no time."""
        self._signal(signal.SIGSTOP)

    def pids(self) -> list[int]:
        """All its processes."""
        wanted, found = f"{_MARK}={self.mark}".encode(), list[int]()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marked = wanted in (folder / "environ").read_bytes().split(b"\0")
            except OSError:  # another user's, or gone
                continue
            if marked:
                found.append(int(folder.name))
        return found

    def end(self) -> None:
        """End it and all that it began."""
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
            self._signal(number)
            self._signal(signal.SIGCONT)
            ends = time.monotonic() + patience
            while self.pids() and time.monotonic() < ends:
                time.sleep(0.1)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


@contextmanager
def running(kind: Kind, port: int, words: Mapping[str, str], log: Path) -> Iterator[Running]:
    """Begin one; it need not answer yet."""
    mark = f"{kind.name}-{secrets.token_hex(8)}"
    told = {"port": str(port), **words}
    program, *rest = (word.format(**told) for word in kind.command)
    environment = {
        **os.environ,
        **{name: value.format(**told) for name, value in kind.settings.items()},
        "OMP_WAIT_POLICY": "PASSIVE",
        _MARK: mark,
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [kind.executable(program), *rest],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    found = Running(kind, port, mark)
    try:
        yield found
    finally:
        found.end()
        process.wait()


@contextmanager
def all_running(
    kinds: Mapping[Kind, int], words: Mapping[str, str], logs: Path
) -> Iterator[list[Running]]:
    """Begin all of them, each with its port."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(running(kind, port, words, logs / f"{kind.name}.log"))
            for kind, port in kinds.items()
        ]
