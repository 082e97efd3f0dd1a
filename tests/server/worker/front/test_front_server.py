"""Health, reflection, metrics and the port."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any, cast

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry, generate_latest
from tests.server.worker.asking import NO_IMAGE, images, options
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Fronted, Loop, Told

from tectum_server.listening import CannotListen
from tectum_server.worker.jobs import ModelEntry
from tectum_server.worker.metrics import EngineMetrics, FrontMetrics
from tectum_server.worker.model_info import ModelInfo

Starter = Callable[..., Fronted]
PERCEPTION, MODELS = "tectum.v1.PerceptionService", "tectum.v1.ModelService"


# ---------------------------------------------------------------- health


@pytest.mark.parametrize("service", ["", PERCEPTION, MODELS, "full", "bare"])
def test_health_is_told_for_the_worker_its_services_and_each_model(
    fronted: Starter, engine: ScriptedEngine, entries: Mapping[str, ModelEntry], service: str
) -> None:
    client = fronted().client
    client.health_becomes("SERVING", service)

    engine.serves({})
    client.health_becomes("NOT_SERVING", service)
    gone = client.health(service)

    engine.serves(entries)
    client.health_becomes("SERVING", service)
    assert (gone, client.health(service)) == ("NOT_SERVING", "SERVING")


def test_a_model_that_is_gone_is_unknown_while_the_worker_serves(
    fronted: Starter, engine: ScriptedEngine, entries: Mapping[str, ModelEntry]
) -> None:
    client = fronted().client
    client.health_becomes("SERVING", "bare")

    engine.serves({"full": entries["full"]})
    client.health_becomes("SERVICE_UNKNOWN", "bare")

    assert client.health("full") == client.health() == "SERVING"
    assert client.health("bare") == client.health("never heard of") == "NOT_FOUND"


def test_a_model_that_a_restarted_engine_lacks_is_gone_and_may_come_back(
    fronted: Starter, engine: ScriptedEngine, entries: Mapping[str, ModelEntry]
) -> None:
    client = fronted().client
    client.health_becomes("SERVING", "bare")

    engine.serves({})
    client.health_becomes("NOT_SERVING", "bare")
    engine.serves({"full": entries["full"]})
    client.health_becomes("SERVICE_UNKNOWN", "bare")
    gone = client.health("bare")
    engine.serves({})
    client.health_becomes("NOT_SERVING", "full")
    still_gone = client.health("bare")
    engine.serves(entries)
    client.health_becomes("SERVING", "bare")

    assert (gone, still_gone, client.health("bare")) == ("NOT_FOUND", "NOT_FOUND", "SERVING")


def test_before_any_model_serves_nothing_does(loop: Loop) -> None:
    front = Fronted(loop, ScriptedEngine(loop, {}))

    assert front.client.health() == "NOT_SERVING"

    front.close()


def test_the_last_change_has_the_last_word(
    loop: Loop, engine: ScriptedEngine, entries: Mapping[str, ModelEntry]
) -> None:
    front = Fronted(loop, engine)
    front.client.health_becomes("SERVING", "bare")
    told: list[str] = []
    tell = front.front._health.set

    async def slow(service: str, status: Any) -> None:
        for _ in range(3):  # somebody watches and is slow to read
            await asyncio.sleep(0)
        told.append(service)
        await tell(service, status)

    front.front._health.set = slow  # type: ignore[method-assign]
    engine.serves({})
    engine.serves(entries)
    engine.serves({"full": entries["full"]})
    front.client.health_becomes("SERVICE_UNKNOWN", "bare")
    front.client.health_becomes("SERVING", "full")

    version = f"full@{entries['full'].version}"
    assert loop.run(settled(front)) == {"", PERCEPTION, MODELS, "full", version}
    front.close()


async def settled(front: Fronted) -> set[str]:
    """Who is healthy once all that was told has been said."""
    while front.front._updates:
        await next(iter(front.front._updates))
    return front.front._known


def test_a_draining_worker_is_not_serving(fronted: Starter, engine: ScriptedEngine) -> None:
    front = fronted()
    front.client.health_becomes("SERVING")
    waiting = front.client.begin("EmbedImages", images())
    engine.begun.get(timeout=30)

    stopping = front.begin_stop()
    front.client.health_becomes("NOT_SERVING")

    assert front.client.health("full") == "NOT_SERVING"
    engine.answers(zeros)
    assert waiting.result().results
    stopping.result(30)


def test_what_draining_does_not_wait_for_is_told_to_go_elsewhere(
    fronted: Starter, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    front = fronted(drain_timeout=0.3)
    waiting = [front.client.begin("EmbedImages", images()) for _ in range(3)]
    for _ in waiting:
        engine.begun.get(timeout=30)

    given_up = front.begin_stop().result(30)

    assert given_up == 3
    for call in waiting:
        told = Told.of(call.exception())
        assert (told.code, told.reason, told.retries) == ("UNAVAILABLE", "DRAINING", True)
    assert front.metric("tectum_requests_refused_total", reason="draining") == 3
    count = front.metric(
        "tectum_request_duration_seconds_count",
        rpc="EmbedImages", model="full", priority="interactive", code="UNAVAILABLE",
    )  # fmt: skip
    assert count == 3
    (record,) = [r for r in caplog.records if r.message == "gave up draining"]
    assert record.__dict__["in_flight"] == 3


def test_a_drain_that_finishes_gives_nothing_up(fronted: Starter, engine: ScriptedEngine) -> None:
    front = fronted()
    engine.answers(zeros)
    front.client.ask("EmbedImages", images())

    assert front.begin_stop().result(30) == 0


# ---------------------------------------------------------------- reflection


def listed(front: Fronted) -> set[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(front.client.channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    (response,) = stub.ServerReflectionInfo(iter([ask]))
    return {service.name for service in response.list_services_response.service}


def test_reflection_lists_every_service(fronted: Starter) -> None:
    assert listed(fronted()) == {
        PERCEPTION,
        MODELS,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_reflection_can_be_turned_off(fronted: Starter) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        listed(fronted(reflection=False))

    assert cast("grpc.Call", caught.value).code() is grpc.StatusCode.UNIMPLEMENTED


# ---------------------------------------------------------------- metrics

LABELS = {
    "tectum_request_duration_seconds": {"rpc", "model", "priority", "code"},
    "tectum_queue_duration_seconds": {"model", "op", "priority"},
    "tectum_compute_duration_seconds": {"model", "op"},
    "tectum_decode_duration_seconds": set(),
    "tectum_loop_delay_seconds": set(),
    "tectum_batch_size": {"model", "op"},
    "tectum_queue_depth": {"priority"},
    "tectum_requests_refused": {"reason"},
    "tectum_stream_frames": {"model", "status"},
    "tectum_stream_age_seconds": set(),
    "tectum_streams_open": set(),
    "tectum_model_info": {"model", "version", "space_id"},
    "tectum_model_loads": {"model", "outcome"},
    "tectum_model_memory_bytes": {"model"},
    "tectum_model_rejected": {"model"},
}


def test_metrics_have_the_designs_names_and_few_labels(fronted: Starter) -> None:
    front = fronted()
    EngineMetrics(front.registry)  # in an inline worker both live in one registry

    found = {m.name: m for m in front.registry.collect() if m.name.startswith("tectum_")}

    assert found.keys() == LABELS.keys()
    assert all(metric.documentation for metric in found.values())
    text = generate_latest(front.registry).decode()
    for name in ("tectum_requests_refused_total", "tectum_stream_frames_total"):
        assert f"# TYPE {name} counter" in text


def test_labels_are_those_of_the_design() -> None:
    registry = CollectorRegistry()
    both = vars(FrontMetrics(registry)) | vars(EngineMetrics(registry))
    parts = [part for name, part in both.items() if not name.startswith("_")]

    metrics = (part for part in parts if not isinstance(part, ModelInfo))
    found = {part._name: set(part._labelnames) for part in metrics}
    assert found == {k: v for k, v in LABELS.items() if k != "tectum_model_info"}


def test_each_call_is_counted_once_with_its_code(fronted: Starter, engine: ScriptedEngine) -> None:
    front = fronted()
    engine.answers(zeros)

    front.client.ask("EmbedImages", images(options=options(priority=3)))
    front.client.refused("EmbedImages", images(NO_IMAGE))
    front.client.refused("EmbedImages", images(options=options(model="x" * 500)))

    def count(**labels: str) -> float | None:
        return front.metric("tectum_request_duration_seconds_count", rpc="EmbedImages", **labels)

    assert count(model="full", priority="bulk", code="OK") == 1
    assert count(model="full", priority="interactive", code="INVALID_ARGUMENT") == 1
    # A name that a caller made up is no label.
    assert count(model="", priority="interactive", code="NOT_FOUND") == 1


def test_model_info_is_one_for_what_serves_and_nothing_for_what_did(
    fronted: Starter, engine: ScriptedEngine, entries: Mapping[str, ModelEntry]
) -> None:
    front, bare = fronted(), entries["bare"]
    labels = {"model": "bare", "version": bare.version, "space_id": bare.spaces["pooled"]}
    assert front.metric("tectum_model_info", **labels) == 1

    engine.serves({"full": entries["full"]})

    assert front.metric("tectum_model_info", **labels) is None


# ---------------------------------------------------------------- the port


def test_a_taken_port_is_named_with_the_flag_that_helps(loop: Loop, engine: ScriptedEngine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(CannotListen, match=rf"127\.0\.0\.1:{port} is in use; .* --port"):
            Fronted(loop, engine, port=port)
