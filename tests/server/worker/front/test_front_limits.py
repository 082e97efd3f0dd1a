"""How many calls and streams a front holds at once, whatever they say."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from tests.server.worker.asking import images
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera, Fronted, until

from tectum.v1 import stream_pb2
from tectum_server.worker.front import server as serving
from tectum_server.worker.front.stream import incoming

Setup = stream_pb2.StreamSetup


def test_a_stream_that_says_nothing_takes_a_place_from_its_beginning(
    fronted: Callable[..., Fronted], engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "_SETUP_SECONDS", 3600)
    front = fronted(max_streams=1)
    silent = Camera(front.client, None)
    until(lambda: front.front._calls._streams == 1)

    refused = Camera(front.client, None).failed()
    silent.close()

    assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    until(lambda: front.front._calls._streams == 0)


def test_a_stream_that_goes_on_saying_nothing_is_ended(
    front: Fronted, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "_SETUP_SECONDS", 0.05)

    ended = Camera(front.client, None).failed()

    assert (ended.code, ended.reason) == ("INVALID_ARGUMENT", "FIELD_MISSING")
    assert ended.fields == ("setup",)
    assert "none came within 0.05 s" in ended.message


def test_a_stream_without_credentials_is_refused_before_it_says_anything(
    fronted: Callable[..., Fronted], engine: ScriptedEngine, tokens: Path
) -> None:
    ended = Camera(fronted(tokens=tokens).client, None).failed()

    assert (ended.code, ended.reason) == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")


def test_health_answers_when_streams_and_queue_are_full_and_grpc_refuses_what_exceeds_all(
    fronted: Callable[..., Fronted], engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_SPARE_RPCS", 2)
    front = fronted(max_streams=1, max_queued_items=1)
    stream = Camera(front.client, Setup(embed=True))
    stream.ready()
    held = front.client.begin("EmbedImages", images())
    engine.begun.get(timeout=30)

    assert front.client.health() == "SERVING"
    assert front.client.refused("EmbedImages", images()).reason == "QUEUE_FULL"
    watching = [front.client._health.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
    for watch in watching:
        next(watch)
    bare = front.client.begin("EmbedImages", images()).exception()
    assert (bare.code(), bare.details()) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Concurrent RPC limit exceeded!",
    )
    for watch in watching:
        watch.cancel()
    engine.answers(zeros)
    assert held.result().results
    stream.close()
