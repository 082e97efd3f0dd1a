"""How a stream begins, and every way it ends."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import timestamp_pb2
from tests.server.worker.asking import options, vector
from tests.server.worker.frames import OK, begin, frame
from tests.server.worker.messages import seconds
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera, Fronted, Told, until

from tectum.v1 import call_pb2, stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Record
from tectum_server.worker.front.stream.frames import Arrivals
from tectum_server.worker.jobs import Priority

Setup, Request = stream_pb2.StreamSetup, stream_pb2.StreamPerceptionRequest


def failed(front: Fronted, *messages: stream_pb2.StreamPerceptionRequest) -> Told:
    stream = Camera(front.client, None)
    for message in messages:
        stream.say(message)
    return stream.failed()


FRAME = Request(frame=frame(1))


@pytest.mark.parametrize(
    ("messages", "code", "words", "fields"),
    [
        ([FRAME], "INVALID_ARGUMENT", "FIELD_MISSING", ("setup",)),
        ([Request()], "INVALID_ARGUMENT", "FIELD_MISSING", ("setup",)),
        ([Request(setup=Setup())], "INVALID_ARGUMENT", "FIELD_MISSING", ("setup.embed",)),
        (
            [Request(setup=Setup(embed=True, lifespan=seconds(61)))],
            "INVALID_ARGUMENT",
            "FIELD_OUT_OF_RANGE",
            ("setup.lifespan",),
        ),
        (
            [Request(setup=Setup(embed=True, depth=17))],
            "INVALID_ARGUMENT",
            "FIELD_OUT_OF_RANGE",
            ("setup.depth",),
        ),
        (
            [Request(setup=Setup(embed=True, lifespan=seconds(0)))],
            "INVALID_ARGUMENT",
            "FIELD_OUT_OF_RANGE",
            ("setup.lifespan",),
        ),
        (
            [Request(setup=Setup(embed=True, options=options(model="leg")))],
            "NOT_FOUND",
            "MODEL_NOT_FOUND",
            ("options.model",),
        ),
        (
            [Request(setup=Setup(latent_actions=True, options=options(model="bare")))],
            "FAILED_PRECONDITION",
            "CAPABILITY_MISSING",
            (),
        ),
        (
            [Request(setup=Setup(embed=True, options=options(expected_space_ids=["0" * 16])))],
            "FAILED_PRECONDITION",
            "SPACE_MISMATCH",
            ("options.expected_space_ids",),
        ),
        (
            [Request(setup=Setup(embed=True, options=options(priority=9)))],
            "INVALID_ARGUMENT",
            "FIELD_OUT_OF_RANGE",
            ("options.priority",),
        ),
        (
            [Request(setup=Setup(embed=True, vector=vector(data_type=4)))],
            "INVALID_ARGUMENT",
            "FIELD_OUT_OF_RANGE",
            ("vector.data_type",),
        ),
        (
            [Request(setup=Setup(embed=True)), Request(setup=Setup(embed=True))],
            "INVALID_ARGUMENT",
            "FIELD_OUT_OF_RANGE",
            ("message",),
        ),
        (
            [Request(setup=Setup(embed=True)), Request(frame=frame(5)), Request(frame=frame(5))],
            "INVALID_ARGUMENT",
            "FIELD_OUT_OF_RANGE",
            ("frame.frame_id",),
        ),
    ],
)
def test_what_a_stream_cannot_be_is_refused(
    front: Fronted,
    engine: ScriptedEngine,
    messages: list[stream_pb2.StreamPerceptionRequest],
    code: str,
    words: str,
    fields: tuple[str, ...],
) -> None:
    engine.answers(zeros)

    told = failed(front, *messages)

    assert (told.code, told.reason, told.fields) == (code, words, fields)
    assert not told.retries


def test_a_stream_may_pin_the_spaces_of_both_its_vectors(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    spaces = engine.models["full"].spaces
    both = [spaces["joint"], spaces["latent_action"]]

    stream = camera(latent_actions=True, options=options(expected_space_ids=both))

    assert stream.ready().info.model == "full"


def test_what_was_answered_is_sent_before_the_stream_fails(
    front: Fronted, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, refused = Arrivals.read, threading.Event()

    def notice(*given: Any) -> Any:
        try:
            return read(*given)
        except Failure:
            refused.set()
            raise

    monkeypatch.setattr(Arrivals, "read", notice)
    stream = Camera(front.client, Setup(embed=True))
    stream.ready()
    begin(stream, engine, 5)
    stream.send(frame(4))  # ids must rise: the stream has failed, and the fifth is under way
    assert refused.wait(30)

    engine.answers(zeros)

    assert (stream.result().frame_id, stream.failed().fields) == (5, ("frame.frame_id",))


def test_a_fault_in_a_stream_is_told_as_one(front: Fronted, engine: ScriptedEngine) -> None:
    engine.answers(lambda _: ZeroDivisionError("secret"))
    stream = Camera(front.client, Setup(embed=True), x_request_id="r-7")
    stream.ready()
    stream.send(frame(1))

    told = stream.failed()

    assert (told.code, told.reason, told.request_id) == ("INTERNAL", "INTERNAL", "r-7")
    assert "secret" not in told.message


def test_streams_are_limited_in_number_and_make_room_as_they_end(
    fronted: Callable[..., Fronted], engine: ScriptedEngine
) -> None:
    front = fronted(max_streams=1)
    engine.answers(zeros)
    first = Camera(front.client, Setup(embed=True))
    first.ready()

    told = failed(front, Request(setup=Setup(embed=True)))
    assert (told.code, told.reason, told.retries) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", True)

    first.finish()
    second = Camera(front.client, Setup(embed=True))
    assert second.ready().info.model == "full"
    second.close()


def test_a_client_that_goes_away_leaves_nothing_behind(
    front: Fronted, camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)

    calls = front.front._calls
    held = (calls.in_flight.count, calls.memory.used, calls._streams)

    stream.close()

    assert all(held)
    until(lambda: calls.in_flight.count == 0)
    assert (calls._bookings.items, calls._streams) == (0, 0)
    until(lambda: calls.memory.used == 0)


def test_a_frame_takes_no_place_of_calls(
    front: Fronted, camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    calls = front.front._calls
    stream = camera()
    stream.ready()

    record = Record("EmbedImages", "", priority=Priority.CONTROL)
    call = calls.open(call_pb2.RequestOptions(), record, None)

    with calls.book(calls.settings.places, call, {}):
        begin(stream, engine)
        engine.answers(zeros)

        assert stream.result().status == OK


def test_a_stream_needs_credentials(
    fronted: Callable[..., Fronted], tokens: object, engine: ScriptedEngine
) -> None:
    told = failed(fronted(tokens=tokens), Request(setup=Setup(embed=True)))

    assert (told.code, told.reason) == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")


def test_a_frame_beyond_the_message_limit_ends_the_stream(
    fronted: Callable[..., Fronted], engine: ScriptedEngine
) -> None:
    front = fronted(max_message_bytes=2000)

    told = failed(front, Request(setup=Setup(embed=True)), FRAME)

    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")


@pytest.mark.parametrize("busy", [False, True])
def test_a_draining_worker_answers_what_it_took_and_ends_the_stream(
    fronted: Callable[..., Fronted], engine: ScriptedEngine, busy: bool
) -> None:
    front = fronted(drain_timeout=3600)  # a client that says nothing must not be waited for
    stream = Camera(front.client, Setup(embed=True))
    stream.ready()
    if busy:
        begin(stream, engine)
    stopping = front.begin_stop()
    front.client.health_becomes("NOT_SERVING")
    engine.answers(zeros)

    if busy:
        assert stream.result().status == OK
    told = stream.failed()

    assert (told.code, told.reason, told.retries) == ("UNAVAILABLE", "DRAINING", True)
    stopping.result(30)


def test_a_stream_that_never_sent_its_setup_does_not_hold_up_the_end(
    fronted: Callable[..., Fronted],
) -> None:
    front = fronted(drain_timeout=3600)
    silent = Camera(front.client, None)
    front.client.health_becomes("SERVING")

    front.begin_stop().result(30)

    told = silent.failed()
    assert (told.code, told.reason) == ("UNAVAILABLE", "DRAINING")


def test_the_workers_clock_is_told(camera: Callable[..., Camera]) -> None:
    before = timestamp_pb2.Timestamp()
    before.GetCurrentTime()

    told = camera().ready().worker_time

    assert told.ToNanoseconds() >= before.ToNanoseconds()
