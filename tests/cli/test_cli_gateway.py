"""`tectum gateway` at its door: flags, environment, and addresses that are not to be had."""

from __future__ import annotations

import importlib
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.cli.running import invoke, run_without
from tests.cli.settings import documented

from tectum_cli.gateway import PREFIX
from tectum_server.gateway import GatewaySettings

VALUES: dict[str, Any] = {
    "host": "::1",
    "port": 8123,
    "worker_address": "worker:1",
    "worker_tls": True,
    "worker_roots": Path("roots.pem"),
    "readiness_model": "tiny",
    "max_body_bytes": 1001,
    "max_text_body_bytes": 1002,
    "max_buffered_bytes": 1003,
    "max_files": 104,
    "max_concurrent_requests": 105,
    "body_seconds": 1.5,
    "shutdown_seconds": 2.5,
    "log_level": "error",
}
"""A value for each setting, none of them its default."""


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[GatewaySettings]:
    """The settings of each gateway that was to be served; none is."""
    found: list[GatewaySettings] = []
    # By name: the package's own `serve` is the function.
    module = importlib.import_module("tectum_server.gateway.serve")
    monkeypatch.setattr(module, "serve", found.append)
    return found


# ---------------------------------------------------------------- settings


def test_every_setting_can_be_said_by_the_environment(
    begun: list[GatewaySettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = {**VALUES, "worker_roots": tmp_path / "roots.pem"}
    values["worker_roots"].touch()
    for name, value in values.items():
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", str(value))

    result = invoke("gateway")

    assert result.exit_code == 0, result.output
    assert begun[0].model_dump() == values
    assert result.stderr == ""
    defaults = GatewaySettings().model_dump()
    assert [name for name in defaults if VALUES[name] == defaults[name]] == []


def test_a_flag_is_stronger_than_the_environment_and_the_nearer_name_than_the_wider(
    begun: list[GatewaySettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TECTUM_WORKER", "wide:1")
    monkeypatch.setenv("TECTUM_LOG_LEVEL", "debug")
    invoke("gateway")
    monkeypatch.setenv(f"{PREFIX}WORKER_ADDRESS", "near:1")
    monkeypatch.setenv(f"{PREFIX}LOG_LEVEL", "warning")
    invoke("gateway")
    invoke("gateway", "--worker", "flag:1", "--log-level", "error")

    found = [(one.worker_address, one.log_level) for one in begun]
    assert found == [("wide:1", "debug"), ("near:1", "warning"), ("flag:1", "error")]


def test_an_empty_variable_is_one_that_is_not_set(
    begun: list[GatewaySettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VALUES:
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", "")

    assert invoke("gateway").exit_code == 0
    assert begun == [GatewaySettings()]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("MAX_FILES", "many", "TECTUM_GATEWAY_MAX_FILES: found many; allowed: a whole number"),
        ("MAX_FILES", "0", "TECTUM_GATEWAY_MAX_FILES: found 0; allowed: at least 1"),
        ("BODY_SECONDS", "-1", "TECTUM_GATEWAY_BODY_SECONDS: found -1; allowed: above 0"),
        (
            "LOG_LEVEL",
            "loud",
            "TECTUM_GATEWAY_LOG_LEVEL: found loud; allowed: debug, info, warning",
        ),
    ],
)
def test_a_setting_that_does_not_hold_is_named_as_it_was_said(
    begun: list[GatewaySettings], monkeypatch: pytest.MonkeyPatch,
    variable: str, value: str, words: str,
) -> None:  # fmt: skip
    monkeypatch.setenv(f"{PREFIX}{variable}", value)

    result = invoke("gateway")

    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert begun == []


@pytest.mark.parametrize("flags", [["--log-level", "loud"], ["--port", 70000], ["--host", ""]])
def test_a_flag_that_does_not_hold_is_named(flags: list[object]) -> None:
    result = invoke("gateway", *flags)

    assert result.exit_code == 1
    assert f"{flags[0]}: found {flags[1] or 'nothing'}; allowed: " in result.stderr


def test_the_wider_name_is_told_where_that_said_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TECTUM_LOG_LEVEL", "loud")

    assert "tectum: TECTUM_LOG_LEVEL: found loud; allowed: debug" in invoke("gateway").stderr


def test_a_variable_that_is_no_setting_is_warned_of_with_the_nearest_that_is(
    begun: list[GatewaySettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}MAX_FILE", "1")
    monkeypatch.setenv("TECTUM_MAX_ITMES", "1")  # the worker warns of its own

    result = invoke("gateway")

    assert result.stderr == (
        "tectum: warning: TECTUM_GATEWAY_MAX_FILE is no setting, and is ignored; "
        "did you mean TECTUM_GATEWAY_MAX_FILES?\n"
    )
    assert len(begun) == 1


def test_every_setting_is_documented_with_its_default_and_its_meaning() -> None:
    found = documented(rf"{PREFIX}\w+")

    for name, field in GatewaySettings.model_fields.items():
        default, meaning = found.pop(f"{PREFIX}{name.upper()}")
        assert default == (f"`{field.default}`" if field.default not in ("", None) else ""), name
        assert meaning == " ".join(str(field.description).split()), name
    assert found == {}


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("203.0.113.9", "cannot listen on port 8000 on 203.0.113.9: Cannot assign requested"),
        ("no such host", "cannot listen on port 8000 on no such host: "),
        ("a..b", "cannot listen on port 8000 on a..b: "),
    ],
)
def test_an_address_that_is_none_of_this_machines_is_not_said_to_be_in_use(
    host: str, words: str
) -> None:
    done = run_without([], "gateway", "--host", host)

    assert done.returncode == 1
    assert words in done.stderr
    assert "in use" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_named_with_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run_without([], "gateway", "--port", port)

    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr
    assert done.stderr.endswith("choose another with --port\n")


def test_certificates_that_are_not_there_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "roots.pem"

    done = run_without([], "gateway", "--port", 0, "--worker-roots", missing)

    assert done.returncode == 1
    told = f"--worker-roots: found {missing}, which cannot be read (No such file or directory)"
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
