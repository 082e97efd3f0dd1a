"""`up`, `serve` and `gateway`: ports that are taken, models that are missing, and one Ctrl-C."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.checkout import ROOT
from tests.cli.running import PATIENCE, Running, Worker, free_port, invoke

from tectum import Client
from tectum_server.gateway import GatewaySettings
from tectum_server.worker import serve as worker_serving
from tectum_server.worker.settings import WorkerSettings

# By name: the packages' own `serve` and `up` are the functions.
up = importlib.import_module("tectum_cli.up")
gateway_serving = importlib.import_module("tectum_server.gateway.serve")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens already."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        yield port


def ports() -> dict[str, int]:
    return {"--port": free_port(), "--gateway-port": free_port(), "--metrics-port": free_port()}


def flags(given: dict[str, int]) -> list[object]:
    return [part for pair in given.items() for part in pair]


FLAGS = ("--port", "--gateway-port", "--metrics-port")

# ---------------------------------------------------------------- up


@pytest.mark.parametrize("flag", ["--port", "--gateway-port", "--metrics-port"])
def test_a_taken_port_is_named_with_its_flag_before_anything_starts(
    taken: int, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: Any, **__: Any) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(subprocess, "Popen", start)

    result = invoke("up", *flags({**ports(), flag: taken}))

    assert result.exit_code == 1
    assert f"port {taken} is in use; choose another with {flag}\n" in result.stderr


@pytest.mark.parametrize("verb", ["run", "demo"])
@pytest.mark.parametrize("variable", ["PORT", "GATEWAY_PORT", "METRICS_PORT"])
def test_who_started_it_by_make_is_told_makes_way(taken: int, verb: str, variable: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    chosen = {flag[2:].replace("-", "_").upper(): port for flag, port in ports().items()}
    changes = [f"{name}={port}" for name, port in {**chosen, variable: taken}.items()]
    dry = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", verb, f"VENV={sys.prefix}", *changes],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    command = dry.stdout.splitlines()[-1]

    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=False
    )

    flag = f"--{variable.lower().replace('_', '-')}"
    assert done.returncode == 1
    assert " ".join(done.stderr.split()).endswith(
        f"port {taken} is in use; choose another with {flag}; with make: {variable}=…"
    )


@pytest.mark.parametrize(
    ("flag", "port"),
    [("--port", 0), ("--gateway-port", 0), *((flag, 65536) for flag in FLAGS)],
)
def test_a_port_that_nobody_could_be_told_is_refused(flag: str, port: int) -> None:
    result = invoke("up", *flags({**ports(), flag: port}))

    assert result.exit_code == 2
    assert flag in result.stderr


def test_a_port_that_cannot_be_had_is_not_said_to_be_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bind(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    given = flags(ports())
    monkeypatch.setattr(socket.socket, "bind", bind)

    result = invoke("up", *given)

    assert result.exit_code == 1
    assert "cannot be listened on (Permission denied); choose another with --port" in result.stderr


class Child:
    """A process that was to be started, and how long its end was waited for."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.arguments = [one for one in command[3:] if one != "--end-with-stdin"]
        self.environment = env
        self.returncode = 7
        self.patience = 0.0

    def poll(self) -> int:
        return self.returncode

    def terminate(self) -> None:
        """Nothing is to be ended."""

    def wait(self, patience: float) -> None:
        self.patience = patience


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """Worker and gateway as they were to be started; neither is."""
    begun: list[Child] = []

    def start(command: list[str], *, env: dict[str, str], **_: Any) -> Child:
        begun.append(Child(command, env))
        return begun[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return begun


@pytest.mark.parametrize("number", [0, 1])
def test_worker_and_gateway_are_on_loopback_and_in_the_clear_whatever_the_environment_says(
    number: int, children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {
        "TECTUM_HOST": "0.0.0.0", "TECTUM_METRICS_HOST": "0.0.0.0", "TECTUM_TOKENS": "tokens.json",
        "TECTUM_TLS_CERTIFICATE": "chain.pem", "TECTUM_TLS_KEY": "key.pem",
        "TECTUM_GATEWAY_HOST": "0.0.0.0", "TECTUM_GATEWAY_WORKER_ADDRESS": "far:1",
        "TECTUM_GATEWAY_WORKER_TLS": "1", "TECTUM_GATEWAY_WORKER_ROOTS": "roots.pem",
    }  # fmt: skip
    for name, value in elsewhere.items():
        monkeypatch.setenv(name, value)
    chosen, served = ports(), list[Any]()

    assert invoke("up", *flags(chosen)).exit_code == 1
    monkeypatch.setattr(os, "environ", dict(children[number].environment))
    monkeypatch.setattr(worker_serving, "serve", lambda settings, ready: served.append(settings))
    monkeypatch.setattr(gateway_serving, "serve", served.append)
    assert invoke(*children[number].arguments).exit_code == 0

    if number == 0:
        assert (served[0].host, served[0].metrics_host) == ("127.0.0.1", "127.0.0.1")
        assert (served[0].tokens, served[0].tls_certificate, served[0].tls_key) == (None,) * 3
    else:
        assert served[0].host == "127.0.0.1"
        assert served[0].worker_address == f"127.0.0.1:{chosen['--port']}"
        assert served[0].tls is False


def test_ports_can_be_said_by_the_environment_and_a_flag_is_stronger(
    children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {flag: str(port) for flag, port in ports().items()}
    for flag, port in said.items():
        monkeypatch.setenv(f"TECTUM_{flag[2:].replace('-', '_').upper()}", port)

    invoke("up")
    invoke("up", "--port", other := free_port())

    worker, gateway, again, _ = (child.arguments for child in children)
    assert valued(worker, "--port", "--metrics-port") == [said["--port"], said["--metrics-port"]]
    assert valued(gateway, "--port", "--worker") == [
        said["--gateway-port"],
        f"127.0.0.1:{said['--port']}",
    ]
    assert valued(again, "--port") == [str(other)]


def valued(arguments: list[str], *names: str) -> list[str]:
    """What a child's flags were given."""
    return [arguments[arguments.index(name) + 1] for name in names]


def test_metrics_can_be_left_out(children: list[Child], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "_wait_until_ready", lambda *_: None)
    chosen = {**ports(), "--metrics-port": 0}

    told = invoke("up", *flags(chosen)).stdout

    assert valued(children[0].arguments, "--metrics-port") == ["0"]
    assert f"metrics  http://127.0.0.1:{chosen['--gateway-port']}/metrics\n" in told


def test_without_a_terminal_a_line_says_at_once_what_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(*_: Any, **__: Any) -> None:
        raise RuntimeError("something was started")

    said = list[str]()
    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(up.console, "print", said.append)

    with pytest.raises(RuntimeError, match="something was started"):
        invoke("up", *flags(ports()))

    assert said == ["starting worker and gateway"]


def test_worker_and_gateway_have_the_time_to_end_that_they_were_told(
    children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("up", *flags(ports()))
    monkeypatch.setenv("TECTUM_DRAIN_TIMEOUT", "100")
    monkeypatch.setenv("TECTUM_GATEWAY_SHUTDOWN_SECONDS", "50")
    invoke("up", *flags(ports()))

    by_default = [
        WorkerSettings.model_fields["drain_timeout"].default,
        GatewaySettings.model_fields["shutdown_seconds"].default,
    ]
    told = [child.patience for child in children]
    assert told == [seconds + 15 for seconds in (*by_default, 100, 50)]


@pytest.mark.slow
def test_one_ctrl_c_ends_worker_and_gateway(repository: Path, tmp_path: Path) -> None:
    chosen = ports()
    given = ["--repository", repository, "--model", "tiny", *flags(chosen)]

    with Running("up", *given, folder=tmp_path) as running:
        running.until_it_says("serving; Ctrl-C ends it")

        assert len(running.family()) >= 3
        with Client(f"127.0.0.1:{chosen['--port']}") as client:
            assert client.list_models()[0].name == "tiny"
        address = f"http://127.0.0.1:{chosen['--gateway-port']}"
        with urllib.request.urlopen(f"{address}/v1/models", timeout=30) as answer:
            assert json.load(answer)["data"][0]["id"] == "tiny"
        assert f"{address}/docs" in running.output

        running.interrupt()

        assert running.ended() == 0, running.output
        assert running.family() == []
    assert "Traceback" not in running.output


@pytest.mark.slow
def test_who_asks_twice_for_the_end_leaves_no_process_behind(
    repository: Path, tmp_path: Path
) -> None:
    chosen = ports()
    given = ["--repository", repository, "--model", "tiny", *flags(chosen)]

    with Running("up", *given, folder=tmp_path) as running:
        running.until_it_says("serving; Ctrl-C ends it")
        running.interrupt()
        running.until_it_says("ending")
        running.interrupt()

        running.ended()
        running.until_alone()
    assert "Traceback" not in running.output
    with socket.create_server(("127.0.0.1", chosen["--port"])):
        pass  # nobody has it any more


@pytest.mark.slow
def test_worker_and_gateway_end_if_what_began_them_is_killed(
    repository: Path, tmp_path: Path
) -> None:
    given = ["--repository", repository, "--model", "tiny", *flags(ports())]

    with Running("up", *given, folder=tmp_path) as running:
        running.until_it_says("serving; Ctrl-C ends it")
        begun = len(running.family())
        running.interrupt(signal.SIGKILL)

        assert (running.ended(), begun > 3) == (-signal.SIGKILL, True)
        running.until_alone()
    assert "Traceback" not in running.output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_they_start_ends_them_too(
    repository: Path, tmp_path: Path, number: signal.Signals
) -> None:
    given = ["--repository", repository, "--model", "tiny", *flags(ports())]

    with Running("up", *given, folder=tmp_path) as running:
        running.until(lambda: len(running.family()) >= 3)
        running.interrupt(number)

        assert running.ended() == 0, running.output
        assert running.family() == []
    assert "Traceback" not in running.output


@pytest.mark.slow
def test_a_worker_that_cannot_start_ends_the_gateway_too(repository: Path, tmp_path: Path) -> None:
    given = ["--repository", repository, "--model", "huge", *flags(ports())]

    with Running("up", *given, folder=tmp_path) as running:
        assert running.ended() == 1
        assert running.family() == []
    assert "huge" in running.output
    assert "the worker ended with code 1" in running.output
    assert "Traceback" not in running.output


# ---------------------------------------------------------------- gateway


def test_a_gateway_before_a_worker_is_healthy_and_ends_on_sigterm(
    worker: str, tmp_path: Path
) -> None:
    port = free_port()

    with Running("gateway", "--port", port, "--worker", worker, folder=tmp_path) as running:
        running.until(lambda: invoke("health", "--gateway", f"127.0.0.1:{port}").exit_code == 0)
        running.interrupt(signal.SIGTERM)

        assert running.ended() == 0, running.output


def test_a_worker_in_this_process_serves_and_ends(repository: Path) -> None:
    with Worker(repository, "tiny") as here:
        assert invoke("health", "--worker", here.address).exit_code == 0

    assert invoke("health", "--worker", here.address, "--timeout", 0.5).exit_code == 1
