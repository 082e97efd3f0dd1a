"""What may be asked without credentials takes no more than its share, whoever asks it and how."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.server.worker.asking import images
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import PATIENCE, Caller, Fronted, Told, until
from tests.server.worker.strangers import Stranger

from tectum_server.worker.front import server as serving
from tectum_server.worker.front.door import guests
from tectum_server.worker.front.door.guests import Bounds
from tectum_server.worker.settings import WorkerSettings

Starter = Callable[..., Fronted]
Ask = reflection_pb2.ServerReflectionRequest
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
UNHURRIED = 3600.0


@pytest.fixture
def within(fronted: Starter, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fronted]:
    """Start a front whose guests have these bounds."""

    def start(
        places: int, patience: float = UNHURRIED, spare: int = 2048, turns: int = 16
    ) -> Fronted:
        bounds = dict.fromkeys(serving._GUESTS, Bounds(places, patience))
        monkeypatch.setattr(serving, "_GUESTS", bounds)
        monkeypatch.setattr(serving, "_GUESTS_HEARD", turns)
        monkeypatch.setattr(serving, "_SPARE_RPCS", spare)
        return fronted(max_streams=1, max_queued_items=1)

    return start


def watch(front: Fronted) -> Any:
    return front.client._health.Watch(health_pb2.HealthCheckRequest(), timeout=30)


class Silent:
    """A call that has said nothing, until it is told to."""

    def __init__(self, caller: Caller, method: str) -> None:
        self._said = threading.Event()
        self._words: list[bytes] = []
        call: Any = caller.channel.stream_unary(method)
        self.call = call.future(self._requests(), timeout=2 * PATIENCE)

    def _requests(self) -> Iterator[bytes]:
        self._said.wait()
        yield from self._words

    def say(self, *words: bytes) -> Told:
        """Say this, and no more; what is answered must be an error."""
        self._words += words
        self._said.set()
        return Told.of(self.call.exception())

    def hang_up(self) -> None:
        """Go away."""
        self.call.cancel()
        self._said.set()

    def ended(self) -> Told:
        """What it is told without having said anything."""
        told = Told.of(self.call.exception())
        self._said.set()
        return told


def taken(front: Fronted, method: str) -> int:
    """How many calls of a method have places."""
    return front.front._guests._rooms[method]._taken


def silent(front: Fronted, method: str, count: int) -> list[Silent]:
    """So many calls without a word, all of which have places."""
    calls: list[Silent] = []
    while len(calls) < count:
        calls.append(Silent(front.client, method))
        until(lambda: taken(front, method) == len(calls))
    return calls


# ---------------------------------------------------------------- places


def test_however_many_watch_others_are_answered(
    within: Callable[..., Fronted], engine: ScriptedEngine
) -> None:
    front = within(places=2, spare=8)
    engine.answers(zeros)

    watching = [watch(front) for _ in range(2)]
    for one in watching:
        assert next(one).status == health_pb2.HealthCheckResponse.SERVING

    for _ in range(40):
        told = Told.of(watch(front).exception())
        assert (told.code, told.reason, told.retries) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", True)
        assert told.message == f"2 calls of {WATCH} are under way, no more are allowed"
    assert front.client.health() == "SERVING"
    assert front.client.ask("EmbedImages", images()).results
    for one in watching:
        one.cancel()


def test_a_watcher_that_leaves_leaves_its_place(within: Callable[..., Fronted]) -> None:
    front = within(places=1)
    first = watch(front)
    next(first)

    first.cancel()
    until(lambda: taken(front, WATCH) == 0)
    second = watch(front)

    assert next(second).status == health_pb2.HealthCheckResponse.SERVING
    second.cancel()


def test_as_shipped_64_may_watch_and_strangers_leave_most_spare_calls_to_others() -> None:
    assert serving._GUESTS[WATCH].places == 64
    assert set(serving._GUESTS) == {CHECK, WATCH, REFLECT}
    assert 2 * sum(bounds.places for bounds in serving._GUESTS.values()) <= serving._SPARE_RPCS


# ---------------------------------------------------------------- who says nothing


@pytest.mark.parametrize("method", [CHECK, WATCH, REFLECT])
def test_a_silent_call_loses_its_turn_once_another_waits_whatever_that_asks(
    within: Callable[..., Fronted], method: str
) -> None:
    front = within(places=2, turns=1)
    (first,) = silent(front, method, 1)

    assert front.client.health() == "SERVING"
    told = first.ended()

    assert (told.code, told.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_PASSED")
    assert "or 0.05 s while others waited to be heard" in told.message


def test_a_call_that_has_only_just_begun_keeps_its_turn(
    within: Callable[..., Fronted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests, "_MOMENT", 60.0)
    front = within(places=2, turns=1)
    first, second = silent(front, CHECK, 2)

    assert first.say(b"\xff").message == "the message is damaged"
    assert second.say(b"\xff").message == "the message is damaged"


def test_silent_calls_within_their_turns_give_way_to_nobody_beyond_their_places(
    within: Callable[..., Fronted],
) -> None:
    front = within(places=1)
    (first,) = silent(front, CHECK, 1)

    assert Silent(front.client, CHECK).ended().reason == "QUEUE_FULL"
    assert first.say(b"\xff").message == "the message is damaged"


@pytest.mark.parametrize("method", [CHECK, WATCH])
def test_a_check_is_answered_however_many_calls_say_nothing(
    within: Callable[..., Fronted], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(guests, "_MOMENT", 0.001)
    front = within(places=2, spare=8, turns=1)
    calls = [Silent(front.client, method) for _ in range(40)]

    until(lambda: front.client.health() == "SERVING")

    assert front.client.health() == "SERVING"
    for call in calls:
        call.hang_up()


@pytest.mark.parametrize("method", [CHECK, WATCH, REFLECT])
def test_a_call_that_says_nothing_is_ended(within: Callable[..., Fronted], method: str) -> None:
    front = within(places=2, patience=0.05)

    told = Silent(front.client, method).ended()

    assert (told.code, told.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_PASSED")
    assert "no request came within 0.05 s" in told.message
    until(lambda: taken(front, method) == 0)


def test_who_watches_is_no_silent_call(within: Callable[..., Fronted]) -> None:
    front = within(places=1, patience=0.05)
    watching = watch(front)
    next(watching)
    told = Silent(front.client, WATCH).ended()

    assert told.reason == "QUEUE_FULL"
    front.begin_stop().result(30)
    assert next(watching).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watching.cancel()


@pytest.mark.parametrize("method", [CHECK, WATCH])
def test_a_call_that_ends_without_a_word_is_told_so(
    within: Callable[..., Fronted], method: str
) -> None:
    told = Silent(within(places=1).client, method).say()

    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "FIELD_MISSING")


# ---------------------------------------------------------------- who says much


def test_of_strangers_long_messages_only_a_few_come_and_the_others_wait_outside(
    within: Callable[..., Fronted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests, "_MOMENT", UNHURRIED)
    front = within(places=4, turns=2)
    methods = (CHECK, WATCH, REFLECT, CHECK, WATCH, REFLECT)
    with ExitStack() as calls:
        strangers = [calls.enter_context(Stranger(front.port, one, 2**22)) for one in methods]
        heard: list[Stranger] = []
        for _ in range(3):
            left = [one for one in strangers if one not in heard]
            until(lambda: sum(one.said_all for one in left) == 2)  # noqa: B023 - asked at once
            until(lambda: sum(one.sent == 2**18 for one in left) == len(left) - 2)  # noqa: B023
            speaking = [one for one in left if one.said_all]
            for one in speaking:
                one.hang_up()
            heard += speaking

    assert len(heard) == 6


def test_a_long_message_that_takes_too_long_is_not_waited_for(
    within: Callable[..., Fronted],
) -> None:
    front = within(places=2, patience=0.5)

    with Stranger(front.port, WATCH, 2**22) as stranger:
        until(lambda: stranger.ended)

    until(lambda: taken(front, WATCH) == 0)
    assert stranger.ended


def test_as_shipped_strangers_make_the_worker_hold_what_guests_says_they_can() -> None:
    settings = WorkerSettings.model_validate({"repository": "r", "models": ("m",)})
    largest = settings.max_message_bytes + serving._SLACK_BYTES
    places = sum(bounds.places for bounds in serving._GUESTS.values())

    assert serving._GUESTS_HEARD * largest == 576 * 2**20
    assert places * serving._UNASKED_BYTES == 84 * 2**20
    assert max(bounds.patience for bounds in serving._GUESTS.values()) <= 2


# ---------------------------------------------------------------- reflection


def test_a_reflection_stream_answers_until_nothing_is_asked_any_more(
    within: Callable[..., Fronted],
) -> None:
    front = within(places=1, patience=0.5)
    hung_up = threading.Event()

    def questions() -> Iterator[Ask]:
        yield Ask(list_services="")
        yield Ask(file_containing_symbol="tectum.v1.PerceptionService")
        hung_up.wait()

    stub: Any = reflection_pb2_grpc.ServerReflectionStub(front.client.channel)
    answers = stub.ServerReflectionInfo(questions(), timeout=30)

    assert next(answers).list_services_response.service
    assert next(answers).file_descriptor_response.file_descriptor_proto
    told = Told.of(answers.exception())
    hung_up.set()
    assert (told.code, told.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_PASSED")


# ---------------------------------------------------------------- what is said


@pytest.mark.parametrize("method", [CHECK, WATCH, REFLECT])
def test_a_long_request_is_refused_not_kept(within: Callable[..., Fronted], method: str) -> None:
    long = health_pb2.HealthCheckRequest(service="x" * 2**14).SerializeToString()

    told = Silent(within(places=1).client, method).say(long)

    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    assert "at most 16384 are allowed here" in told.message


def test_a_damaged_request_is_no_fault_of_the_workers(
    within: Callable[..., Fronted], caplog: pytest.LogCaptureFixture
) -> None:
    told = Silent(within(places=1).client, CHECK).say(b"\xff")

    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "FIELD_OUT_OF_RANGE")
    assert not caplog.records
