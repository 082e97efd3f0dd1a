"""`up`, `serve` and `gateway`: ports that are taken, models that are missing, and one Ctrl-C."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.running import Running, Worker, free_port, invoke

from tectum import Client


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
    assert f"port {taken} is in use; choose another with {flag}" in result.stderr


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


# ---------------------------------------------------------------- serve


@pytest.mark.slow
def test_a_model_that_is_not_there_is_named(repository: Path, tmp_path: Path) -> None:
    given = ["--repository", repository, "--model", "huge"]

    with Running("serve", *given, "--port", 0, "--metrics-port", 0, folder=tmp_path) as running:
        assert running.ended() == 1
        assert running.family() == []
    told = [line for line in running.output.splitlines() if line.startswith("tectum: ")]
    assert len(told) == 1, running.output
    assert "huge" in running.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "remote"], "--engine Input should be 'process' or 'inline'"),
        (["--port", 70000], "--port Input should be less than or equal to 65535"),
        (["--log-level", "loud"], "--log-level Input should be 'debug', 'info'"),
        (["--host", "0.0.0.0"], "without tokens lets anybody call"),
        (["--tls-key", "key.pem"], "tls_certificate and tls_key come together"),
    ],
)
def test_settings_that_do_not_hold_are_named(arguments: list[object], words: str) -> None:
    result = invoke("serve", *arguments)

    assert result.exit_code == 1
    assert words in result.stderr


def test_settings_come_from_flags_and_environment(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tectum_server.worker import serve

    given: list[Any] = []
    monkeypatch.setattr(serve, "serve", lambda settings, ready: given.append(settings))
    monkeypatch.setenv("TECTUM_REPOSITORY", str(repository))
    monkeypatch.setenv("TECTUM_MAX_BATCH", "7")

    result = invoke("serve", "--model", "one", "--model", "two@0123456789abcdef", "--port", 1234)

    assert result.exit_code == 0, result.output
    assert given[0].models == ("one", "two@0123456789abcdef")
    assert given[0].repository == str(repository)
    assert given[0].port == 1234
    assert given[0].engine == "process"


def test_without_a_model_it_is_the_embedded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from tectum_core import embedded
    from tectum_server.worker import serve

    given: list[Any] = []
    monkeypatch.setattr(serve, "serve", lambda settings, ready: given.append(settings))

    invoke("serve")

    assert given[0].models == (embedded.NAME,)
    assert Path(given[0].repository) == embedded.repository()


# ---------------------------------------------------------------- gateway


def test_a_gateways_port_that_is_taken_is_named(taken: int) -> None:
    result = invoke("gateway", "--port", taken)

    assert result.exit_code == 1
    assert f"port {taken} on 127.0.0.1 is in use" in result.stderr
    assert "--port" in result.stderr


def test_a_gateways_settings_that_do_not_hold_are_named() -> None:
    result = invoke("gateway", "--log-level", "loud")

    assert result.exit_code == 1
    assert "log_level: Input should be" in result.stderr


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
