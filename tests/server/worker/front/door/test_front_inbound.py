"""Messages that are slow to arrive take no more than their share of memory and time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.worker.asking import images
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import PATIENCE, Caller, Fronted, Told, until
from tests.server.worker.strangers import Stranger

from tectum.v1 import model_pb2, perception_pb2
from tectum_server.worker.front import server as serving
from tectum_server.worker.front.door import inbound
from tectum_server.worker.front.door.inbound import Slow
from tectum_server.worker.settings import WorkerSettings

Starter = Callable[..., Fronted]
SERVICES = (
    perception_pb2.DESCRIPTOR.services_by_name["PerceptionService"],
    model_pb2.DESCRIPTOR.services_by_name["ModelService"],
)
UNARY = [
    f"/{service.full_name}/{method.name}"
    for service in SERVICES
    for method in service.methods
    if not method.client_streaming and method.name not in {"LoadModel", "UnloadModel"}
]
(EMBED,) = (method for method in UNARY if method.endswith("/EmbedImages"))
LARGE, UNHURRIED = 2**23, 3600.0


class Slowly:
    """A call that says nothing until it is told to."""

    def __init__(self, caller: Caller, method: str, *metadata: tuple[str, str]) -> None:
        self._said = threading.Event()
        self._words: list[bytes] = []
        call: Any = caller.channel.stream_unary(method)
        self.call = call.future(self._requests(), timeout=PATIENCE, metadata=metadata)

    def _requests(self) -> Iterator[bytes]:
        self._said.wait()
        yield from self._words

    def say(self, *words: bytes) -> None:
        """Say this, and no more."""
        self._words += words
        self._said.set()

    def told(self) -> Told:
        """What it hears; it must be an error."""
        told = Told.of(self.call.exception())
        self._said.set()
        return told


def codes_of(front: Fronted) -> set[str]:
    """How the calls ended that were counted."""
    return {
        sample.labels["code"]
        for metric in front.registry.collect()
        for sample in metric.samples
        if sample.name == "tectum_request_duration_seconds_count"
    }


# ---------------------------------------------------------------- memory


def test_of_large_messages_that_stall_so_many_are_held_and_others_are_answered(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    front = fronted(max_arriving=2, arrival_timeout=UNHURRIED)
    engine.answers(zeros)
    with ExitStack() as calls:
        stalled = [calls.enter_context(Stranger(front.port, EMBED, LARGE)) for _ in range(7)]

        until(lambda: sum(one.ended for one in stalled) == 5)
        for _ in range(20):
            assert front.client.ask("EmbedImages", images()).results

        held = sum(one.sent for one in stalled if not one.ended)
        assert sum(one.ended for one in stalled) == 5
        assert held <= 2 * (LARGE + 5)
        assert front.metric("tectum_requests_refused_total", reason="queue_full") == 5


def test_who_goes_away_leaves_room_for_another(fronted: Starter) -> None:
    front = fronted(max_arriving=1, arrival_timeout=UNHURRIED)
    slow = front.front._admission._inbound._slow
    with Stranger(front.port, EMBED, LARGE) as first:
        until(lambda: first.said_all)
    until(lambda: not slow)

    with Stranger(front.port, EMBED, LARGE) as second:
        until(lambda: second.said_all)
        with Stranger(front.port, EMBED, LARGE) as third:
            until(lambda: third.ended)
        assert not second.ended


def test_one_slow_message_too_many_is_told_so_and_to_come_again(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    front = fronted(max_arriving=1, arrival_timeout=UNHURRIED)
    engine.answers(zeros)
    first = Slowly(front.client, EMBED)
    until(lambda: len(front.front._admission._inbound._slow) == 1)

    told = Slowly(front.client, EMBED, ("x-request-id", "r-5")).told()

    assert (told.code, told.reason, told.retries) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", True)
    assert told.message == "1 messages are arriving slowly, no more are allowed"
    assert told.request_id == "r-5"
    first.say(images().SerializeToString())
    assert first.call.result()


def test_as_shipped_slow_messages_take_little_more_than_a_gigabyte() -> None:
    settings = WorkerSettings.model_validate({"repository": "r", "models": ("m",)})

    largest = settings.max_message_bytes + serving._SLACK_BYTES
    assert settings.max_arriving * largest == 1152 * 2**20


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("method", UNARY)
def test_a_message_that_does_not_come_is_not_waited_for(fronted: Starter, method: str) -> None:
    told = Slowly(fronted(arrival_timeout=0.25).client, method).told()

    assert (told.code, told.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_PASSED")
    assert not told.retries
    assert told.message == "the message did not arrive within 0.25 s"


def test_a_large_message_that_stalls_is_ended(fronted: Starter) -> None:
    front = fronted(arrival_timeout=0.25)

    with Stranger(front.port, EMBED, LARGE) as stalled:
        until(lambda: stalled.ended)

    assert len(front.front._admission._inbound._slow) == 0


def test_who_is_not_waited_for_is_counted_and_logged_as_any_call(
    fronted: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    front = fronted(arrival_timeout=0.25)

    with caplog.at_level(logging.INFO):
        Slowly(front.client, EMBED, ("x-request-id", "r-6")).told()

    labels = {"model": "", "priority": "interactive", "code": "DEADLINE_EXCEEDED"}
    name = "tectum_request_duration_seconds_count"
    assert front.metric(name, rpc="EmbedImages", **labels) == 1
    (line,) = [vars(r) for r in caplog.records if vars(r).get("rpc") == "EmbedImages"]
    assert (line["request_id"], line["code"]) == ("r-6", "DEADLINE_EXCEEDED")


# ---------------------------------------------------------------- what comes


def test_a_call_without_a_message_is_told_so(fronted: Starter) -> None:
    call = Slowly(fronted().client, EMBED)

    call.say()

    told = call.told()
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "FIELD_MISSING")
    assert told.message == "the call had no request"


def test_who_hangs_up_before_its_message_is_there_leaves_nothing(
    fronted: Starter, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    front = fronted(arrival_timeout=UNHURRIED)
    engine.answers(zeros)
    slow = front.front._admission._inbound._slow
    call = Slowly(front.client, EMBED)
    until(lambda: len(slow) == 1)

    call.call.cancel()
    until(lambda: not slow)

    assert front.client.ask("EmbedImages", images()).results
    assert not caplog.records
    assert codes_of(front) == {"OK"}


def test_a_message_beyond_grpcs_limit_is_grpcs_to_refuse(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    front = fronted(max_message_bytes=2**16)
    engine.answers(zeros)
    call: Any = front.client.channel.unary_unary(EMBED)

    error = call.future(bytes(2**16 + serving._SLACK_BYTES + 1), timeout=PATIENCE).exception()

    assert error.code().name == "RESOURCE_EXHAUSTED"
    assert front.client.ask("EmbedImages", images()).results
    assert codes_of(front) == {"OK"}


def test_nothing_is_looked_for_once_all_is_there(fronted: Starter, engine: ScriptedEngine) -> None:
    front = fronted()
    engine.answers(zeros)

    assert front.client.ask("EmbedImages", images()).results
    until(lambda: front.front._admission._inbound._timer is None)

    assert front.client.ask("EmbedImages", images()).results


# ---------------------------------------------------------------- the law behind it


@given(
    most=st.integers(1, 4),
    patience=st.integers(2, 8),
    steps=st.lists(st.one_of(st.just("begin"), st.just("tick"), st.integers(0, 30)), max_size=120),
)
def test_few_are_slow_none_for_long_and_who_is_quick_is_left_alone(
    most: int, patience: int, steps: list[str | int]
) -> None:
    slow, now = Slow[int](most, patience), 0
    began: dict[int, int] = {}
    for number, step in enumerate(steps):
        if step == "begin":
            slow.begin(number)
            began[number] = now
        elif isinstance(step, int):
            slow.end(step)
            began.pop(step, None)
        else:
            now += 1
            late, beyond = slow.tick()
            age = {key: now - since for key, since in began.items()}
            assert late == [key for key in began if age[key] > patience]
            able = [key for key in began if inbound._QUICK <= age[key] <= patience]
            assert beyond == able[most:]
            for key in (*late, *beyond):
                del began[key]
        assert len(slow) == len(began)
