"""The worker's small parts: failures, settings, what is in flight, logs."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from tectum.v1 import errors_pb2
from tectum_server.logs import set_up_logs
from tectum_server.worker.failure import Failure
from tectum_server.worker.in_flight import InFlight
from tectum_server.worker.settings import WorkerSettings

Read = Callable[[], list[dict[str, Any]]]


def settings(**changes: Any) -> WorkerSettings:
    return WorkerSettings.model_validate({"repository": "models", "models": ("arm",), **changes})


# ---------------------------------------------------------------- failures


def test_a_failure_says_its_field_and_its_message() -> None:
    reason = errors_pb2.ERROR_REASON_NOT_FINITE

    assert str(Failure(reason, "holds NaN", "actions")) == "actions: holds NaN"
    assert str(Failure(reason, "holds NaN")) == "holds NaN"


def test_a_delay_is_told_only_where_a_retry_can_help() -> None:
    full, bad = errors_pb2.ERROR_REASON_QUEUE_FULL, errors_pb2.ERROR_REASON_NOT_FINITE

    assert Failure(full, "", retry_after=3.0).retry_delay == 3.0
    assert Failure(full, "").retry_delay == 0.1
    assert Failure(bad, "", retry_after=3.0).retry_delay is None


# ---------------------------------------------------------------- settings


def test_a_worker_listens_on_loopback_for_anybody() -> None:
    assert settings().address == "127.0.0.1:50051"
    assert settings(host="::1", port=1).address == "[::1]:1"
    assert settings(host="localhost").address == "localhost:50051"


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7", "::", "robot.local"])
def test_beyond_loopback_it_wants_tokens_or_a_word(host: str) -> None:
    with pytest.raises(ValidationError, match="without tokens lets anybody call"):
        settings(host=host)

    assert settings(host=host, tokens="tokens.json").host == host
    assert settings(host=host, allow_anonymous=True).host == host


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ()}, "at least 1 item"),
        ({"port": 65536}, "less than or equal to 65535"),
        ({"port": -1}, "greater than or equal to 0"),
        ({"max_batch": 0}, "greater than 0"),
        ({"tls_key": "key.pem"}, "come together"),
        ({"precision": "auto", "compiled": True}, "allowed: False where precision is auto"),
        ({"precision": "float16"}, "'float32', 'bfloat16', 'int8' or 'auto'"),
        ({"models": ("*",)}, "a name first, which is the default"),
        ({"watch": -1}, "greater than or equal to 0"),
        ({"model_memory_bytes": 0}, "greater than 0"),
        ({"tls_certificate": "certificate.pem"}, "come together"),
        ({"engine": "thread"}, "'process' or 'inline'"),
        ({"log_level": "loud"}, "'debug', 'info'"),
        ({"max_itmes": 3}, "max_itmes"),
        ({"control_deadline": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**changes)

    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "always", "while_calls_come"),
    [
        ({}, None, 62),
        ({"control_deadline": 1.0}, None, 250),
        ({"control_deadline": 0.001}, None, 1),
        ({"max_block_ms": 60}, 60, None),
        ({"max_block_ms": "60"}, 60, None),
        ({"max_block_ms": 0}, None, None),
    ],
)
def test_an_engine_is_told_how_long_others_may_block_control(
    changes: dict[str, Any], always: int | None, while_calls_come: int | None
) -> None:
    told = WorkerSettings(repository="models", models=("arm",), **changes).for_engine()

    assert (told["max_block_ms"], told["calls_block_ms"]) == (always, while_calls_come)


def test_settings_reach_the_processes_unchanged() -> None:
    one = settings(tokens="tokens.json", port=0, max_items=7)

    assert WorkerSettings.model_validate_json(json.dumps(one.model_dump(mode="json"))) == one


# ---------------------------------------------------------------- what is in flight


async def test_idle_is_when_nothing_is_under_way() -> None:
    in_flight = InFlight()
    await in_flight.idle()

    with in_flight:
        with in_flight:
            assert in_flight.count == 2
        waiting = asyncio.create_task(in_flight.idle())
        await asyncio.sleep(0)
        assert not waiting.done()

    await waiting
    assert in_flight.count == 0


async def test_work_that_fails_is_under_way_no_more() -> None:
    in_flight = InFlight()

    with pytest.raises(ZeroDivisionError), in_flight:
        raise ZeroDivisionError

    await in_flight.idle()


# ---------------------------------------------------------------- logs


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Read what was logged; logging is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)


def test_each_record_is_one_line_of_json_with_its_fields(logged: Read) -> None:
    set_up_logs("worker.front", "info")

    logging.getLogger("a.b").info(
        "two\nlines of %s", "text", extra={"request_id": "r-1", "path": Exception}
    )

    (line,) = logged()
    assert line["message"] == "two\nlines of text"
    assert (line["level"], line["process"], line["logger"]) == ("info", "worker.front", "a.b")
    assert line["request_id"] == "r-1"
    assert "Exception" in line["path"]
    assert line["time"].endswith("+00:00")


def test_what_lies_below_the_level_is_not_written(logged: Read) -> None:
    set_up_logs("worker", "warning")

    logging.getLogger("a").info("quiet")
    logging.getLogger("a").warning("loud")

    assert [line["message"] for line in logged()] == ["loud"]


def test_an_exception_is_written_with_its_record(logged: Read) -> None:
    set_up_logs("worker", "info")

    logging.getLogger("a").error("failed", exc_info=ZeroDivisionError("inside"))

    (line,) = logged()
    assert line["exception"] == "ZeroDivisionError: inside"


def test_setting_up_twice_writes_each_record_once(logged: Read) -> None:
    set_up_logs("worker", "info")
    set_up_logs("worker", "info")

    logging.getLogger("a").info("once")

    assert len(logged()) == 1
