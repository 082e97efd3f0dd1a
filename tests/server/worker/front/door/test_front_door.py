"""Who may not ask is told so before the request is read: nothing of it is ever sent here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.worker.asking import STRANGER, USER, images
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Caller, Fronted, Told

from tectum.v1 import model_pb2, perception_pb2

Starter = Callable[..., Fronted]
SERVICES = (
    perception_pb2.DESCRIPTOR.services_by_name["PerceptionService"],
    model_pb2.DESCRIPTOR.services_by_name["ModelService"],
)
DAMAGED = b"\x12\xff\xff\xff\xff\x7f"
METHODS = [f"/{service.full_name}/{m.name}" for service in SERVICES for m in service.methods]
EMBED, STREAM, LOAD = (
    next(method for method in METHODS if method.endswith(f"/{name}"))
    for name in ("EmbedImages", "StreamPerception", "LoadModel")
)


def refused(caller: Caller, method: str, *metadata: tuple[str, str]) -> Told:
    """What is said to a call that says nothing."""
    hung_up = threading.Event()

    def nothing() -> Iterator[bytes]:
        hung_up.wait()
        yield from ()

    call: Any = caller.channel.stream_unary(method)
    error = call.future(nothing(), timeout=30, metadata=[*caller.metadata, *metadata]).exception()
    hung_up.set()
    return Told.of(error)


@pytest.fixture
def user(fronted: Starter, tokens: Path) -> Iterator[Caller]:
    """Somebody who may infer, at a worker that wants to know who asks."""
    caller = Caller(fronted(tokens=tokens).port, USER)
    yield caller
    caller.close()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("token", ["", STRANGER])
def test_a_stranger_is_refused_whatever_it_is_about_to_ask(
    user: Caller, method: str, token: str
) -> None:
    stranger = Caller(user.port, token)

    told = refused(stranger, method)
    stranger.close()

    assert (told.code, told.reason) == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")
    assert not told.retries


@pytest.mark.parametrize("method", METHODS)
def test_a_user_is_let_through_but_for_what_admins_do(user: Caller, method: str) -> None:
    call: Any = user.channel.unary_unary(method)

    told = Told.of(call.future(DAMAGED, timeout=30, metadata=user.metadata).exception())

    if method.rpartition("/")[2] in {"LoadModel", "UnloadModel"}:
        assert (told.code, told.reason) == ("PERMISSION_DENIED", "PERMISSION_MISSING")
    else:
        assert told.message == "the message is damaged"


def test_without_a_token_file_managing_is_refused_as_early(fronted: Starter) -> None:
    told = refused(fronted().client, LOAD)

    assert (told.code, told.reason) == ("PERMISSION_DENIED", "PERMISSION_MISSING")


@pytest.mark.parametrize("method", [EMBED, STREAM, LOAD])
def test_a_draining_worker_does_not_wait_for_what_it_will_not_do(
    fronted: Starter, engine: ScriptedEngine, method: str
) -> None:
    front = fronted()
    waiting = front.client.begin("EmbedImages", images())
    engine.begun.get(timeout=30)
    stopping = front.begin_stop()
    front.client.health_becomes("NOT_SERVING")

    told = refused(front.client, method)

    assert (told.code, told.reason, told.retries) == ("UNAVAILABLE", "DRAINING", True)
    assert told.message == "the worker is shutting down"
    engine.answers(zeros)
    assert waiting.result().results
    stopping.result(30)


def test_a_request_that_comes_as_draining_begins_is_refused_too(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    front, ready = fronted(), threading.Event()
    held = front.client.begin("EmbedImages", images())
    engine.begun.get(timeout=30)

    def late() -> Iterator[bytes]:
        ready.wait(30)
        yield images().SerializeToString()

    call: Any = front.client.channel.stream_unary(EMBED)
    slow = call.future(late(), timeout=30)
    front.client.refused("GetModel", model_pb2.GetModelRequest(model="leg"))  # comes after `slow`
    stopping = front.begin_stop()
    front.client.health_becomes("NOT_SERVING")
    ready.set()

    assert Told.of(slow.exception()).reason == "DRAINING"
    engine.answers(zeros)
    assert held.result().results
    stopping.result(30)


@pytest.mark.parametrize(("method", "priority"), [(EMBED, "interactive"), (STREAM, "control")])
def test_who_is_refused_at_the_door_is_counted_and_logged_as_any_call(
    fronted: Starter,
    tokens: Path,
    caplog: pytest.LogCaptureFixture,
    method: str,
    priority: str,
) -> None:
    front, rpc = fronted(tokens=tokens), method.rpartition("/")[2]

    with caplog.at_level(logging.INFO):
        told = refused(front.client, method, ("x-request-id", "r-7"))

    assert (told.domain, told.request_id) == ("tectum.dev", "r-7")
    labels = {"rpc": rpc, "model": "", "priority": priority, "code": "UNAUTHENTICATED"}
    assert front.metric("tectum_request_duration_seconds_count", **labels) == 1
    (line,) = [vars(r) for r in caplog.records if vars(r).get("rpc") == rpc]
    assert (line["request_id"], line["code"]) == ("r-7", "UNAUTHENTICATED")
    assert "authorization: Bearer" in line["error"]
