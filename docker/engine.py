"""A container engine's command line, in the few verbs the images' check needs.

Knows docker's and podman's words, nothing of Tectum. Everything it starts has the hardening that
compose.yaml has, and is gone when the `Room` it was started in closes.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

__all__ = ["Engine", "Failed", "Room", "until"]

HARDENED = (
    "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
)  # fmt: skip


class Failed(Exception):
    """A check did not hold, or the engine did not do as told; says what was found."""


class Engine:
    """One engine that can run containers.

    Args:
        program: `docker` or `podman`, or a path to one.
        run_arguments: further arguments for every container, such as a GPU.
    """

    def __init__(self, program: str, run_arguments: Sequence[str] = ()) -> None:
        self.program = program
        self.run_arguments = tuple(run_arguments)

    def attempt(
        self, *arguments: str, given: str | None = None, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its commands, whatever comes of it; `given` is its standard input."""
        try:
            return subprocess.run(
                [self.program, *arguments],
                input=given, capture_output=True, text=True, timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{arguments[0]} took longer than {seconds:.0f} s") from error

    def do(self, *arguments: str, given: str | None = None, seconds: float = 120) -> str:
        """Run one of its commands, and return what it says; Failed if it fails."""
        done = self.attempt(*arguments, given=given, seconds=seconds)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise Failed(f"{arguments[0]} ended with {done.returncode}: {' / '.join(said[-3:])}")
        return done.stdout.strip()

    def once(
        self,
        image: str,
        entrypoint: str,
        *command: str,
        options: Sequence[str] = (),
        given: str | None = None,
        seconds: float = 120,
    ) -> str:
        """What a command says that runs in a hardened container of its own."""
        interactive = ("--interactive",) if given is not None else ()
        return self.do(
            "run", "--rm", *interactive, *HARDENED, *self.run_arguments, *options,
            "--entrypoint", entrypoint, image, *command,
            given=given, seconds=seconds,
        )  # fmt: skip

    def size(self, image: str) -> int:
        """Bytes of all its layers."""
        return int(self.do("image", "inspect", "--format", "{{.Size}}", image))

    def state(self, container: str) -> dict[str, Any]:
        """Whether it runs, how it ended, how its health check went."""
        found: dict[str, Any] = json.loads(
            self.do("inspect", "--format", "{{json .State}}", container)
        )
        return found

    def healthy(self, container: str) -> bool:
        """What the image's HEALTHCHECK says; Failed if the container has ended.

        Docker runs it by itself and remembers. Podman leaves that to systemd, which not every
        machine has, and runs it when asked.
        """
        state = self.state(container)
        if not state["Running"]:
            log = self.attempt("logs", "--tail", "3", container)
            raise Failed(f"ended with {state['ExitCode']}: {(log.stdout + log.stderr).strip()}")
        if self.program.endswith("podman"):
            return self.attempt("healthcheck", "run", container).returncode == 0
        if "Health" not in state:
            raise Failed("the image has no HEALTHCHECK")
        return bool(state["Health"]["Status"] == "healthy")

    def stop(self, container: str, seconds: int) -> int:
        """Send SIGTERM, and SIGKILL after `seconds`; how the container ended."""
        self.do("stop", "-t", str(seconds), container, seconds=seconds + 60)
        return int(self.state(container)["ExitCode"])


class Room:
    """A private network without a way out, and containers that know each other by name in it."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self._containers: list[str] = []

    def __enter__(self) -> Self:
        self.engine.do("network", "create", "--internal", self.name)
        return self

    def start(self, image: str, alias: str, **environment: str) -> str:
        """Start a hardened container in the background, and return its name."""
        container = f"{self.name}-{alias}"
        self._containers.append(container)
        settings = [word for item in environment.items() for word in ("--env", "=".join(item))]
        self.engine.do(
            "run", "--detach", "--name", container,
            "--network", self.name, "--network-alias", alias,
            *HARDENED, *self.engine.run_arguments, *settings, image,
        )  # fmt: skip
        return container

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for container in self._containers:
            self.engine.attempt("rm", "--force", container)
        self.engine.attempt("network", "rm", self.name)


def until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until it holds; Failed when `seconds` are over."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > seconds:
            raise Failed(f"not {what} within {seconds:.0f} s")
        time.sleep(0.5)
