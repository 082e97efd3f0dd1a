"""A connection that has gone silent is cut off, and its stream's place is another's."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.server.worker.frames import OK, frame
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import PATIENCE, Caller, Camera, Fronted
from tests.silent_proxy import SilentProxy

from tectum import shell
from tectum.v1 import model_pb2, model_pb2_grpc, stream_pb2
from tectum_server.worker.front.door import living

SETUP = stream_pb2.StreamSetup(embed=True)
Starter = Callable[..., Fronted]


@pytest.fixture
def asks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fronts ask who is silent for 0.2 s."""
    monkeypatch.setattr(living, "_EVERY", 0.2)
    monkeypatch.setattr(living, "_WITHIN", 0.5)


@pytest.fixture
def silent(fronted: Starter, engine: ScriptedEngine) -> Iterator[Callable[..., Any]]:
    """Start a front, and a way to it that can go silent."""
    engine.answers(zeros)
    opened: list[SilentProxy] = []

    def start(**settings: Any) -> tuple[Fronted, SilentProxy]:
        front = fronted(**settings)
        opened.append(SilentProxy(front.port).__enter__())
        return front, opened[-1]

    yield start
    for one in opened:
        one.__exit__()


def accepted(front: Fronted) -> Camera | None:
    """A stream, if there is a place for it."""
    stream = Camera(front.client, SETUP)
    try:
        stream.ready()
    except grpc.RpcError:
        stream.close()
        return None
    return stream


@pytest.mark.usefixtures("asks_often")
def test_a_robot_that_vanished_holds_its_streams_place_no_longer(
    silent: Callable[..., tuple[Fronted, SilentProxy]],
) -> None:
    front, proxy = silent(max_streams=1)
    robot = Caller(proxy.port)
    vanishing = Camera(robot, SETUP)
    vanishing.ready()
    vanishing.send(frame(1))
    assert vanishing.result().status == OK
    assert accepted(front) is None

    proxy.silence()
    ends, stream = time.monotonic() + PATIENCE, None
    while stream is None and time.monotonic() < ends:
        stream = accepted(front)
        time.sleep(0.05)

    assert stream is not None
    assert proxy.links[0].dropped.is_set()
    stream.send(frame(1))
    assert stream.result().status == OK
    stream.close()
    vanishing.close()
    robot.close()


@pytest.mark.usefixtures("asks_often")
def test_who_made_a_call_and_vanished_is_cut_off_too(
    silent: Callable[..., tuple[Fronted, SilentProxy]],
) -> None:
    _, proxy = silent()
    robot = Caller(proxy.port)
    robot.models.ListModels(model_pb2.ListModelsRequest())

    proxy.silence()

    assert proxy.links[0].dropped.wait(PATIENCE)
    robot.close()


@pytest.mark.usefixtures("asks_often")
def test_who_lives_and_says_nothing_keeps_its_stream(
    silent: Callable[..., tuple[Fronted, SilentProxy]],
) -> None:
    _, proxy = silent()
    robot = Caller(proxy.port)
    quiet = Camera(robot, SETUP)
    quiet.ready()

    time.sleep(4.0)

    assert not proxy.links[0].dropped.is_set()
    quiet.send(frame(1))
    assert quiet.result().status == OK
    quiet.close()
    robot.close()


def test_who_asks_whether_the_worker_lives_and_nothing_else_keeps_its_connection(
    silent: Callable[..., tuple[Fronted, SilentProxy]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(living, "_CLIENTS_EVERY", 0.05)
    _, proxy = silent()
    asks = [("grpc.keepalive_time_ms", 200), ("grpc.keepalive_permit_without_calls", 1)]
    asks += [("grpc.http2.max_pings_without_data", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}", options=asks) as channel:
        models = model_pb2_grpc.ModelServiceStub(channel)
        models.ListModels(model_pb2.ListModelsRequest())

        time.sleep(4.5)  # grpc asks once a second at most, and was shown out the third time

        assert not proxy.links[0].dropped.is_set()
        models.ListModels(model_pb2.ListModelsRequest())
    assert len(proxy.links) == 1


def test_grpc_knows_every_option_by_the_name_that_it_is_given() -> None:
    library = Path(str(importlib.import_module("grpc._cython.cygrpc").__file__)).read_bytes()

    assert living.options()
    for name, _ in living.options():
        assert name.encode() in library


def test_a_connection_without_calls_is_closed_after_a_while_and_the_next_call_opens_another(
    silent: Callable[..., tuple[Fronted, SilentProxy]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(living, "_IDLE", 0.3)
    _, proxy = silent()
    robot = Caller(proxy.port)
    robot.models.ListModels(model_pb2.ListModelsRequest())

    closed = proxy.links[0].dropped.wait(PATIENCE)
    robot.models.ListModels(model_pb2.ListModelsRequest())

    assert closed
    assert len(proxy.links) == 2
    robot.close()


def test_the_sdk_may_ask_as_often_as_it_does() -> None:
    assert shell.ALIVE_EVERY >= living._CLIENTS_EVERY * 1.5
    assert living._EVERY > shell.ALIVE_EVERY
