"""`tectum serve` at its door: flags, environment, and starts that fail or are broken off."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.running import Running, invoke
from tests.cli.settings import documented

from tectum_server.worker import serve
from tectum_server.worker.settings import WorkerSettings

VALUES: dict[str, Any] = {
    "repository": "elsewhere",
    "models": ("one", "two@0123456789abcdef"),
    "host": "::1",
    "port": 8124,
    "metrics_host": "127.0.0.2",
    "metrics_port": 8125,
    "tls_certificate": Path("chain.pem"),
    "tls_key": Path("key.pem"),
    "tokens": Path("tokens.json"),
    "allow_anonymous": True,
    "reflection": False,
    "engine": "inline",
    "engines": 3,
    "fronts": 2,
    "device": "meta",
    "threads": 3,
    "max_batch": 4,
    "decode_threads": 5,
    "request_memory_bytes": 1001,
    "response_memory_bytes": 1002,
    "shared_memory_bytes": 1006,
    "max_items": 6,
    "max_message_bytes": 1003,
    "max_arriving": 11,
    "arrival_timeout": 6.5,
    "max_pixels": 1004,
    "max_text_bytes": 1005,
    "max_queued_items": 7,
    "max_block_ms": 8,
    "kept_share": 0.125,
    "record": "arrivals.jsonl",
    "precision": "bfloat16",
    "compiled": True,
    "graphs": False,
    "invariant": True,
    "watch": 0.75,
    "model_memory_bytes": 2**30,
    "max_streams": 9,
    "control_deadline": 1.5,
    "interactive_deadline": 2.5,
    "bulk_deadline": 3.5,
    "compute_timeout": 5.5,
    "drain_timeout": 4.5,
    "log_level": "error",
}
"""A value for each setting, none of them its default."""


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[WorkerSettings]:
    """The settings of each worker that was to be served; none is."""
    found: list[WorkerSettings] = []
    monkeypatch.setattr(serve, "serve", lambda settings, ready: found.append(settings))
    return found


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    """A value for each setting; what lies on a disk is there."""
    there = {name: tmp_path / value for name, value in VALUES.items() if isinstance(value, Path)}
    for file in there.values():
        file.touch()
    return {**VALUES, **there, "repository": str(tmp_path)}


def say(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]) -> None:
    """Say settings by the environment."""
    for name, value in values.items():
        words = " ".join(value) if name == "models" else str(value)
        monkeypatch.setenv(f"TECTUM_{name.upper()}", words)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "processes",
    [
        pytest.param({"engines": 1, "fronts": 1}, id="in one process"),
        pytest.param({"engine": "process"}, id="in several"),
    ],
)
def test_every_setting_can_be_said_by_the_environment(
    begun: list[WorkerSettings],
    values: dict[str, Any],
    processes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = {**values, **processes}  # not all of them go together
    say(monkeypatch, said)

    result = invoke("serve")

    assert result.exit_code == 0, result.output
    assert begun[0].model_dump() == said
    assert result.stderr == ""
    defaults = WorkerSettings(repository="models", models=("one",)).model_dump()
    assert [name for name in defaults if VALUES[name] == defaults[name]] == []


def test_a_flag_is_stronger_than_the_environment(
    begun: list[WorkerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, {"port": 99, "max_batch": 7, "models": ("one",), "max_items": 9})
    monkeypatch.setenv("TECTUM_WORKER_MAX_STREAMS", "1")  # no setting's

    invoke("serve", "--port", 1234, "--model", "two", "--model", "three")

    assert (begun[0].port, begun[0].models) == (1234, ("two", "three"))
    assert (begun[0].max_batch, begun[0].max_items, begun[0].max_streams) == (7, 9, 64)


def test_an_empty_variable_is_one_that_is_not_set(
    begun: list[WorkerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("serve")
    say(monkeypatch, dict.fromkeys(VALUES.keys() - {"models"}, ""))

    assert invoke("serve").exit_code == 0
    assert begun[0] == begun[1]


def test_a_variable_that_does_not_hold_is_named(
    begun: list[WorkerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, {"max_streams": "many"})

    result = invoke("serve")

    assert result.exit_code == 1
    assert "TECTUM_MAX_STREAMS: found many; allowed: a whole number" in result.stderr
    assert begun == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "remote"], "--engine: found remote; allowed: process or inline"),
        (["--engines", 2, "--engine", "inline"], "--engines: found 2; allowed: 1 where engine is"),
        (["--fronts", 3, "--engine", "inline"], "--fronts: found 3; allowed: 1 where engine is"),
        (["--port", 70000], "--port: found 70000; allowed: at most 65535"),
        (["--max-block-ms", "long"], "--max-block-ms: found long; allowed: auto, or whole millis"),
        (["--log-level", "loud"], "--log-level: found loud; allowed: debug, info, warning or"),
        (["--host", "0.0.0.0"], "--host: found 0.0.0.0, and listening there without tokens lets"),
        (["--tls-key", "key.pem"], "--tls-key: found key.pem alone; tls_certificate and tls_key"),
        (["--tokens", "/no/file"], "--tokens: found /no/file, which cannot be read (No such file"),
        (["--repository", "/nowhere"], "--repository: found /nowhere, which is no folder; allowed"),
    ],
)
def test_settings_that_do_not_hold_are_named(arguments: list[object], words: str) -> None:
    result = invoke("serve", *arguments)

    assert result.exit_code == 1
    assert result.stderr.startswith(f"tectum: {words}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENGINE", "foo"),
        ("HOST", "0.0.0.0"),
        ("TOKENS", "/no/file"),
        ("REPOSITORY", "/nowhere"),
        ("MAX_ITEMS", "0"),
        ("MAX_BLOCK_MS", "-3"),
        ("MAX_BLOCK_MS", "2.5"),
    ],
)
def test_they_are_named_by_their_variable_where_that_said_them(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TECTUM_{name}", value)

    result = invoke("serve")

    assert result.exit_code == 1
    assert result.stderr.startswith(f"tectum: TECTUM_{name}: found {value}")


def test_a_variable_that_is_no_setting_is_warned_of_with_the_nearest_that_is(
    begun: list[WorkerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TECTUM_MAX_ITMES", "1")

    result = invoke("serve")

    assert result.stderr == (
        "tectum: warning: TECTUM_MAX_ITMES is no setting, and is ignored; "
        "did you mean TECTUM_MAX_ITEMS?\n"
    )
    assert begun[0].max_items == 64


def test_variables_of_other_commands_and_of_kubernetes_are_not_warned_of(
    begun: list[WorkerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TECTUM_WORKER", "TECTUM_TOKEN", "TECTUM_GATEWAY_MAX_FILES", "TECTUM_MAKE"):
        monkeypatch.setenv(name, "1")
    for name in ("SERVICE_HOST", "SERVICE_PORT_GRPC", "PORT", "PORT_50051_TCP_ADDR"):
        monkeypatch.setenv(f"TECTUM_ARM_{name}", "1")

    assert invoke("serve").stderr == ""
    assert len(begun) == 1


def test_without_a_model_it_is_the_embedded_one(begun: list[WorkerSettings]) -> None:
    from tectum_core import embedded

    invoke("serve")

    assert begun[0].models == (embedded.NAME,)
    assert Path(begun[0].repository) == embedded.repository()


def test_every_setting_is_documented_with_its_default_and_its_meaning() -> None:
    found = documented(r"TECTUM_(?!GATEWAY)\w+")

    for name, field in WorkerSettings.model_fields.items():
        default, meaning = found.pop(f"TECTUM_{name.upper()}")
        none = field.is_required() or field.default is None
        assert default == ("" if none else f"`{field.default}`"), name
        assert meaning == " ".join(str(field.description).split()), name
    assert found == {}


# ---------------------------------------------------------------- starts


@pytest.mark.slow
def test_a_model_that_is_not_there_is_named(repository: Path, tmp_path: Path) -> None:
    given = ["--repository", repository, "--model", "huge"]

    with Running("serve", *given, "--port", 0, "--metrics-port", 0, folder=tmp_path) as running:
        assert running.ended() == 1
        assert running.family() == []
    told = [line for line in running.output.splitlines() if line.startswith("tectum: ")]
    assert len(told) == 1, running.output
    assert "huge" in running.output


@pytest.fixture
def starting(repository: Path, tmp_path: Path) -> Iterator[Running]:
    """A worker whose engine imports torch now."""
    given = ["--repository", repository, "--model", "tiny", "--port", 0, "--metrics-port", 0]
    with Running("serve", *given, folder=tmp_path) as running:
        running.until(lambda: len(running.family()) >= 3)
        yield running


@pytest.mark.slow
def test_a_terminals_ctrl_c_while_it_starts_ends_it_in_order(starting: Running) -> None:
    os.killpg(starting.process.pid, signal.SIGINT)  # a terminal's goes to the whole group

    assert starting.ended() == 0, starting.output
    assert starting.family() == []
    assert "Traceback" not in starting.output


@pytest.mark.slow
def test_its_processes_end_if_it_is_killed_while_they_start(starting: Running) -> None:
    starting.interrupt(signal.SIGKILL)

    assert starting.ended() == -signal.SIGKILL
    starting.until_alone()
    assert "Traceback" not in starting.output
