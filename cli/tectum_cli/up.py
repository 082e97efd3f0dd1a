"""`tectum up`: worker and gateway together, on loopback, ended by one Ctrl-C."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from tectum_cli.extras import console, fail
from tectum_cli.signals import ASKED, ending_as_interrupts, on_signals, restore

__all__ = ["running", "up"]

_READY_SECONDS = 120.0
_HOST = "127.0.0.1"
_ELSEWHERE = frozenset(
    {
        "TECTUM_TLS_CERTIFICATE", "TECTUM_TLS_KEY", "TECTUM_TOKENS",
        "TECTUM_GATEWAY_WORKER_TLS", "TECTUM_GATEWAY_WORKER_ROOTS",
    }
)  # fmt: skip
"""Variables of servers that face a network: here all is on loopback, in the clear."""
_ENDS = {"TECTUM_DRAIN_TIMEOUT": 30.0, "TECTUM_GATEWAY_SHUTDOWN_SECONDS": 30.0}
"""For worker and gateway, what says how many seconds they may finish in, and its default."""
_MORE_SECONDS = 15.0
"""Beyond that: a worker gives each of its two processes five before it kills them."""
_PORTS: dict[str, Any] = {"min": 1, "max": 65535, "metavar": "PORT"}
"""All are told to others before anything listens: none may be chosen by the system."""
_STARTING = "starting worker and gateway"
_MAKE = "TECTUM_MAKE"
"""Set by the Makefile's `run` and `demo`, whose ports are make's variables."""


def up(
    model: Annotated[
        list[str] | None,
        typer.Option(help="As in `tectum serve`; default: tectum-tiny.", metavar="NAME"),
    ] = None,
    repository: Annotated[str, typer.Option(help="As in `tectum serve`.", metavar="PLACE")] = "",
    port: Annotated[
        int, typer.Option(envvar="TECTUM_PORT", help="The worker's gRPC port.", **_PORTS)
    ] = 50051,
    gateway_port: Annotated[
        int, typer.Option(envvar="TECTUM_GATEWAY_PORT", help="The gateway's HTTP port.", **_PORTS)
    ] = 8000,
    metrics_port: Annotated[
        int,
        typer.Option(
            envvar="TECTUM_METRICS_PORT",
            help="The worker's metrics port; 0: none.",
            **{**_PORTS, "min": 0},
        ),
    ] = 9464,
    demo: Annotated[bool, typer.Option("--demo", help="Run the demo once all is up.")] = False,
    leave: Annotated[
        bool, typer.Option("--leave", help="With --demo: end after it, instead of serving on.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="With --demo: a LeRobot folder to show it on.", metavar="FOLDER"),
    ] = None,
    pictures: Annotated[
        Path, typer.Option(help="With --demo: folder for its pictures.", metavar="FOLDER")
    ] = Path("demo-output"),
    log_level: Annotated[
        str, typer.Option(help="debug, info, warning or error.", metavar="LEVEL")
    ] = "warning",
) -> None:
    """Serve a model over gRPC and REST on this machine.

    Without arguments, the embedded one. Always on loopback, whatever TECTUM_HOST says.
    """
    options = ["--log-level", log_level]
    for name in model or ():
        options += ["--model", name]
    if repository:
        options += ["--repository", repository]
    of_worker = f"http://127.0.0.1:{metrics_port}/metrics, " if metrics_port else ""
    with running(port, gateway_port, metrics_port, options) as processes:
        console.print(
            f"\n  gRPC     127.0.0.1:{port}\n"
            f"  REST     http://127.0.0.1:{gateway_port}/docs\n"
            f"  metrics  {of_worker}http://127.0.0.1:{gateway_port}/metrics\n",
            highlight=False,
        )
        if demo:
            from tectum_cli.demo import show

            show(f"127.0.0.1:{port}", data, pictures)
            if leave:
                return
        console.print("serving; Ctrl-C ends it", style="dim")
        _until_ended(processes)


@contextmanager
def running(
    port: int, gateway_port: int, metrics_port: int, options: list[str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A worker and a gateway, ready; ended together at the context's end.

    A metrics port of 0 is none.
    """
    for number, flag in (
        (port, "--port"),
        (gateway_port, "--gateway-port"),
        (metrics_port, "--metrics-port"),
    ):
        if number and (why := _barred(number)):
            variable = flag[2:].replace("-", "_").upper()
            by_make = f"; with make: {variable}=…" if os.environ.get(_MAKE) else ""
            raise fail(f"port {number} {why}; choose another with {flag}{by_make}")
    if not console.is_terminal:
        console.print(_STARTING)  # a spinner is for terminals, and it may take a minute
    tectum = [sys.executable, "-m", "tectum_cli"]
    worker = [*tectum, "serve", "--host", _HOST, "--port", str(port)]
    worker += ["--metrics-host", _HOST, "--metrics-port", str(metrics_port), *options]
    gateway = [*tectum, "gateway", "--host", _HOST, "--port", str(gateway_port)]
    gateway += ["--worker", f"{_HOST}:{port}", *options[:2]]  # the log level
    environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    processes: list[subprocess.Popen[bytes]] = []
    with ending_as_interrupts():
        try:
            with _unbroken():
                # Sessions of their own: Ctrl-C comes to this process, which then ends them in
                # order. If this one is killed, its end of their standard input closes, and they
                # end too.
                processes += (
                    subprocess.Popen(  # noqa: S603
                        [*command, "--end-with-stdin"],
                        stdin=subprocess.PIPE, start_new_session=True, env=environment,
                    )
                    for command in (worker, gateway)
                )  # fmt: skip
            _wait_until_ready(processes, port, gateway_port)
            yield processes
        except KeyboardInterrupt:
            console.print("\nending", style="dim")
            raise typer.Exit from None
        finally:
            _end(processes)


@contextmanager
def _unbroken() -> Iterator[None]:
    """Who asks for the end waits until the block is done: every process begun must be known."""
    came: list[int] = []
    before = on_signals(lambda n, _: came.append(n), *ASKED)
    try:
        yield
    finally:
        restore(before)
    if came:
        raise KeyboardInterrupt


def _wait_until_ready(
    processes: list[subprocess.Popen[bytes]], port: int, gateway_port: int
) -> None:
    # An interrupt inside the import of a compiled module may end the interpreter by SIGINT later,
    # although it was caught.
    with _unbroken():
        from tectum import Client, Health, TectumError

    with console.status(_STARTING), Client(f"{_HOST}:{port}") as client:
        deadline = time.monotonic() + _READY_SECONDS
        serving = False
        while time.monotonic() < deadline:
            _check_alive(processes)
            with suppress(TectumError):
                serving = serving or client.health(timeout=1.0) is Health.SERVING
            if serving and _barred(gateway_port):
                return
            time.sleep(0.1)
    raise fail(f"nothing served within {_READY_SECONDS:.0f} s; --log-level info says more")


def _until_ended(processes: list[subprocess.Popen[bytes]]) -> None:
    while True:
        _check_alive(processes)
        time.sleep(0.5)


def _check_alive(processes: list[subprocess.Popen[bytes]]) -> None:
    for process, name in zip(processes, ("worker", "gateway"), strict=True):
        if process.poll() is not None:
            raise fail(f"the {name} ended with code {process.returncode}")


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Gateway first, so that nothing new comes, then the worker, which drains.

    Who asks again has no patience for that: then they are killed, but none is left behind.
    """

    def hurry(*_: object) -> None:
        for process in processes:
            process.kill()

    before = on_signals(hurry, *ASKED)
    try:
        patience = [_seconds(variable) + _MORE_SECONDS for variable in _ENDS]
        for process, seconds in reversed([*zip(processes, patience, strict=False)]):
            process.terminate()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        restore(before)


def _seconds(variable: str) -> float:
    """What a child was told by the environment; one that makes no sense of it has ended."""
    try:
        return float(os.environ.get(variable) or _ENDS[variable])
    except ValueError:
        return _ENDS[variable]


def _barred(port: int) -> str:
    """Why nobody can listen on a loopback port; empty: somebody can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            return "is in use" if taken else f"cannot be listened on ({error.strerror})"
    return ""
