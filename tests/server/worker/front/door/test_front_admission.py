"""Refusals that have nothing to do with the request's content: time, room, credentials, life."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from tests.bundles import picture
from tests.server.worker.asking import (
    ADMIN,
    IMAGE,
    NO_IMAGE,
    STRANGER,
    USER,
    fill,
    images,
    mask,
    options,
    texts,
)
from tests.server.worker.messages import raw
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Caller, Fronted, Loop, Told, until

from tectum.v1 import errors_pb2, model_pb2
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.failure import CODES, RETRYABLE, Failure, reason_name
from tectum_server.worker.jobs import ItemFailure, JobResult, ModelEntry
from tectum_server.worker.metrics import EngineMetrics

Starter = Callable[..., Fronted]
REASONS = sorted(CODES)


def told_by(call: Any) -> Told:
    """What a call that was begun says; it must fail."""
    error = call.exception()
    assert isinstance(error, grpc.RpcError), f"it was answered: {call}"
    return Told.of(error)


# ---------------------------------------------------------------- whatever the engine says


@pytest.mark.parametrize("number", REASONS, ids=lambda n: reason_name(n))
def test_every_refusal_of_the_engine_reaches_the_caller_whole(
    fronted: Starter, engine: ScriptedEngine, number: errors_pb2.ErrorReason.ValueType
) -> None:
    engine.answers(lambda _: Failure(number, "because", "images[0]"))

    told = fronted().client.refused("EmbedImages", images(), x_request_id="r-9")

    assert told.reason == reason_name(number)
    assert told.code == {code.value[0]: code.name for code in grpc.StatusCode}[CODES[number]]
    assert told.retries is (number in RETRYABLE)
    assert told.fields == ("images[0]",)
    assert told.message == "images[0]: because"
    assert (told.domain, told.request_id) == ("tectum.dev", "r-9")


def test_a_fault_is_told_without_its_inside(fronted: Starter, engine: ScriptedEngine) -> None:
    engine.answers(lambda _: ZeroDivisionError("secret of the house"))

    told = fronted().client.refused("EmbedImages", images(), x_request_id="r-1")

    assert (told.code, told.reason, told.retries) == ("INTERNAL", "INTERNAL", False)
    assert "secret" not in told.message
    assert "r-1" in told.message


def test_an_items_failure_in_the_engine_names_its_item(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    def half(_: object) -> JobResult:
        good = zeros(_).outputs[0]  # type: ignore[arg-type]
        bad = ItemFailure(errors_pb2.ERROR_REASON_INTERNAL, "it failed")
        return JobResult("v", (bad, good), 0.0, 0.0, 2)

    engine.answers(half)

    results = fronted().client.ask("EmbedImages", images(IMAGE, NO_IMAGE, IMAGE)).results

    assert [r.WhichOneof("result") for r in results] == ["error", "error", "embedding"]
    assert [r.error.field for r in results[:2]] == ["images[0]", "images[1].encoded"]


def test_a_field_that_the_engine_knows_better_is_told(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    wrong = ItemFailure(errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE, "no", "mask.hidden")
    engine.answers(lambda _: JobResult("v", (wrong,), 0.0, 0.0, 1))

    told = fronted().client.refused("Reconstruct", fill(image=IMAGE, mask=mask(hidden=[3])))

    assert told.fields == ("mask.hidden",)


# ---------------------------------------------------------------- room


def test_a_full_front_refuses_and_has_room_again(fronted: Starter, engine: ScriptedEngine) -> None:
    front = fronted(max_queued_items=3)
    waiting = front.client.begin("EmbedImages", images(IMAGE, IMAGE))
    engine.begun.get(timeout=30)

    told = front.client.refused("EmbedImages", images(IMAGE, IMAGE))

    assert (told.code, told.reason, told.retries) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", True)
    assert "2 items are waiting, at most 3 may" in told.message
    engine.answers(zeros)
    assert len(waiting.result().results) == 2
    assert len(front.client.ask("EmbedImages", images(IMAGE, IMAGE, IMAGE)).results) == 3
    assert front.metric("tectum_requests_refused_total", reason="queue_full") == 1


def test_room_is_free_again_after_a_caller_left(fronted: Starter, engine: ScriptedEngine) -> None:
    front = fronted(max_queued_items=1)
    waiting = front.client.begin("EmbedImages", images())
    engine.begun.get(timeout=30)
    assert front.client.refused("EmbedImages", images()).reason == "QUEUE_FULL"

    waiting.cancel()
    engine.answers(zeros)

    def answered() -> bool:
        call = front.client.begin("EmbedImages", images())
        return call.exception() is None or told_by(call).reason != "QUEUE_FULL"

    until(answered)  # the worker hears of the cancellation in its own time


def test_a_message_beyond_the_limit_is_too_large(fronted: Starter, engine: ScriptedEngine) -> None:
    front = fronted(max_message_bytes=20_000)
    large = raw(np.zeros((100, 100, 3), np.uint8))
    engine.answers(zeros)

    told = front.client.refused("EmbedImages", images(large))

    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    assert "at most 20000 are allowed" in told.message
    assert not told.retries
    assert front.client.ask("EmbedImages", images(raw(picture(0, 50, 50)))).results


# ---------------------------------------------------------------- time


def test_a_deadline_that_passes_is_told_with_its_reason(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    front = fronted(control_deadline=0.05)

    told = told_by(front.client.perception.EmbedImages.future(images(options=options(priority=1))))

    assert (told.code, told.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_PASSED")
    assert not told.retries


@pytest.mark.parametrize(("priority", "default"), [(1, 0.25), (0, 10.0), (2, 10.0), (3, 120.0)])
def test_a_call_without_a_deadline_gets_its_classs_default(
    fronted: Starter, engine: ScriptedEngine, loop: Loop, priority: int, default: float
) -> None:
    engine.answers(zeros)
    client = fronted().client
    before = loop.call(loop.loop.time)

    client.perception.EmbedImages(images(options=options(priority=priority)))

    job = engine.begun.get(timeout=30)
    assert before + default <= job.deadline <= loop.call(loop.loop.time) + default
    assert job.priority == (priority or 2)


def test_a_callers_own_deadline_is_the_jobs(
    fronted: Starter, engine: ScriptedEngine, loop: Loop
) -> None:
    engine.answers(zeros)
    client = fronted().client
    before = loop.call(loop.loop.time)

    client.ask("EmbedImages", images(options=options(priority=1)), timeout=40)

    assert engine.begun.get(timeout=30).deadline <= before + 41


class Taught:
    """A front before a real engine whose compute thread can be held, and whose costs are told."""

    def __init__(self, loop: Loop, repository: Path) -> None:
        self._loop = loop
        settings = EngineSettings(str(repository), ("bare",), max_batch=1)

        async def build() -> LocalEngine:
            engine = LocalEngine(settings, EngineMetrics(CollectorRegistry()))
            await engine.start()
            return engine

        self.engine = loop.run(build())
        version = self.engine.models["bare"].version
        for _ in range(40):  # outweighs what warming up observed
            key = (f"bare@{version}", "embed_images", "pooled")
            self.engine._scheduler.costs.observe(key, 1, 5000.0)
        self.front = Fronted(loop, self.engine)
        self.release = threading.Event()

    def hold(self) -> None:
        """Keep the compute thread busy."""
        pool: ThreadPoolExecutor = self.engine._scheduler._threads.compute
        pool.submit(self.release.wait)

    def close(self) -> None:
        """Let go and stop."""
        self.release.set()
        self.front.close()
        self._loop.run(self.engine.close())


@pytest.fixture
def taught(loop: Loop, repository: Path) -> Iterator[Taught]:
    taught = Taught(loop, repository)
    yield taught
    taught.close()


def test_a_deadline_below_the_models_cost_is_infeasible(taught: Taught) -> None:
    told = taught.front.client.refused("EmbedImages", images(), timeout=4)

    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "DEADLINE_INFEASIBLE")
    assert not told.retries


def test_a_deadline_beyond_the_queue_is_unreachable_for_now(taught: Taught) -> None:
    taught.hold()
    first = taught.front.client.begin("EmbedImages", images())
    policy = taught.engine._scheduler._policy
    until(lambda: policy._under_way.until_ms > 0)  # the engine has taken the first one

    told = taught.front.client.refused("EmbedImages", images(), timeout=8)

    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "DEADLINE_UNREACHABLE")
    assert told.retries
    taught.release.set()
    assert first.result().results


# ---------------------------------------------------------------- who may call


@pytest.mark.parametrize("token", ["", STRANGER])
@pytest.mark.parametrize("rpc", ["EmbedTexts", "ListModels", "LoadModel"])
def test_without_known_credentials_nothing_is_answered(
    fronted: Starter, tokens: Path, token: str, rpc: str
) -> None:
    front = fronted(tokens=tokens)
    requests = {
        "EmbedTexts": texts(),
        "ListModels": model_pb2.ListModelsRequest(),
        "LoadModel": model_pb2.LoadModelRequest(name="bare"),
    }

    caller = Caller(front.port, token)
    told = caller.refused(rpc, requests[rpc])
    caller.close()

    assert (told.code, told.reason) == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")
    assert not told.retries


def test_a_user_may_infer_and_not_administer(
    fronted: Starter, tokens: Path, engine: ScriptedEngine
) -> None:
    front = fronted(tokens=tokens)
    engine.answers(zeros)
    caller = Caller(front.port, USER)

    assert caller.ask("EmbedImages", images()).results
    assert caller.ask("ListModels", model_pb2.ListModelsRequest()).models
    for rpc, request in (
        ("LoadModel", model_pb2.LoadModelRequest(name="bare")),
        ("UnloadModel", model_pb2.UnloadModelRequest(name="bare")),
    ):
        told = caller.refused(rpc, request)
        assert (told.code, told.reason) == ("PERMISSION_DENIED", "PERMISSION_MISSING")
        assert "arm has the roles ['infer'], this call needs 'admin'" in told.message
    caller.close()


def test_without_a_token_file_nobody_administers(fronted: Starter) -> None:
    told = fronted().client.refused("LoadModel", model_pb2.LoadModelRequest(name="bare"))

    assert (told.code, told.reason) == ("PERMISSION_DENIED", "PERMISSION_MISSING")


def test_an_admin_is_let_through(fronted: Starter, tokens: Path) -> None:
    caller = Caller(fronted(tokens=tokens).port, ADMIN)

    told = caller.refused("LoadModel", model_pb2.LoadModelRequest())
    caller.close()

    assert (told.reason, told.fields) == ("FIELD_MISSING", ("name",))


# ---------------------------------------------------------------- a worker's life


def test_while_the_engine_is_away_callers_are_told_to_come_back(
    fronted: Starter, engine: ScriptedEngine, entries: Mapping[str, ModelEntry]
) -> None:
    client = fronted().client
    engine.serves({})

    for rpc, request in (("EmbedImages", images()), ("GetModel", model_pb2.GetModelRequest())):
        told = client.refused(rpc, request)
        assert (told.code, told.reason) == ("UNAVAILABLE", "ENGINE_UNAVAILABLE")
        assert told.retries
    assert not client.ask("ListModels", model_pb2.ListModelsRequest()).models

    engine.serves(entries)
    engine.answers(zeros)
    assert client.ask("EmbedImages", images()).results


def test_without_the_default_model_who_names_none_gets_no_other(
    fronted: Starter, engine: ScriptedEngine, entries: Mapping[str, ModelEntry]
) -> None:
    client = fronted().client
    engine.answers(zeros)
    engine.serves({"bare": entries["bare"]})
    client.health_becomes("SERVICE_UNKNOWN", "full")

    told = client.refused("EmbedImages", images())

    assert (told.code, told.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
    assert "the default is not loaded; there are: bare@" in told.message
    assert client.ask("EmbedImages", images(options=options(model="bare"))).results


def test_a_draining_worker_finishes_what_it_took_and_takes_nothing_new(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    front = fronted()
    waiting = [front.client.begin("EmbedImages", images()) for _ in range(3)]
    for _ in waiting:
        engine.begun.get(timeout=30)

    stopping = front.begin_stop()
    front.client.health_becomes("NOT_SERVING")
    told = front.client.refused("EmbedImages", images())

    assert (told.code, told.reason, told.retries) == ("UNAVAILABLE", "DRAINING", True)
    assert not stopping.done()
    engine.answers(zeros)
    assert [len(call.result().results) for call in waiting] == [1, 1, 1]
    stopping.result(30)


def test_draining_comes_before_credentials(
    fronted: Starter, tokens: Path, engine: ScriptedEngine
) -> None:
    front = fronted(tokens=tokens)
    user = Caller(front.port, USER)
    waiting = user.begin("EmbedImages", images())
    engine.begun.get(timeout=30)
    stopping = front.begin_stop()
    user.health_becomes("NOT_SERVING")

    assert front.client.refused("EmbedImages", images()).reason == "DRAINING"

    engine.answers(zeros)
    assert waiting.result().results
    stopping.result(30)
    user.close()
