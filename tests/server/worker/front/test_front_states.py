"""Models that have made room or could not be loaded, as callers are told of them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import grpc
import msgspec
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tests.server.worker.asking import images, options
from tests.server.worker.engine.engines import corrupt
from tests.server.worker.frames import FAILED, OK, frame
from tests.server.worker.messages import reason
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera, Fronted, Inline, Loop, until

from tectum.v1 import model_pb2
from tectum_core.bundle import Repository
from tectum_server.worker.jobs import ModelEntry, Rejection


def changed(entries: Mapping[str, ModelEntry], name: str, **to: object) -> dict[str, ModelEntry]:
    """The same models, one of them in another state."""
    return {**entries, name: msgspec.structs.replace(entries[name], **to)}


def listed(front: Fronted | Inline) -> dict[str, model_pb2.Model]:
    found = front.client.ask("ListModels", model_pb2.ListModelsRequest()).models
    return {model.name: model for model in found}


# ---------------------------------------------------------------- made room


@pytest.mark.parametrize("state", ["evicted", "loading"])
def test_a_model_that_has_made_room_is_brought_back_and_its_caller_told_when(
    front: Fronted, engine: ScriptedEngine, state: str
) -> None:
    engine.serves(changed(engine.models, "bare", state=state, load_seconds=2.5, memory_bytes=0))

    held = front.client.begin("EmbedImages", images(options=options(model="bare")))
    failed = held.exception()
    status, retry = rpc_status.from_call(failed), error_details_pb2.RetryInfo()

    assert failed.code() is grpc.StatusCode.UNAVAILABLE
    assert "bare had made room for another model" in failed.details()
    assert status is not None
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() == 2500
    assert engine.asked_back == ["bare"]
    assert engine.begun.empty()
    assert front.metric("tectum_requests_refused_total", reason="model_loading") == 1


def test_it_is_listed_described_and_healthy_and_nobody_brings_it_back_for_that(
    front: Fronted, engine: ScriptedEngine
) -> None:
    version = engine.models["bare"].version
    engine.serves(changed(engine.models, "bare", state="evicted", memory_bytes=0))

    front.client.health_becomes("SERVING", "bare")
    told = listed(front)
    described = front.client.ask("GetModel", model_pb2.GetModelRequest(model="bare")).model

    assert told["full"].state == model_pb2.MODEL_STATE_READY
    assert told["full"].memory_bytes == engine.models["full"].memory_bytes > 0
    assert told["bare"].state == described.state == model_pb2.MODEL_STATE_EVICTED
    assert told["bare"].memory_bytes == 0
    assert described.spaces
    assert front.client.health(f"bare@{version}") == "SERVING"
    assert engine.asked_back == []


def test_the_wait_that_is_told_is_neither_nothing_nor_for_ever(
    front: Fronted, engine: ScriptedEngine
) -> None:
    told = []
    for seconds in (0.0, 1000.0):
        engine.serves(changed(engine.models, "bare", state="evicted", load_seconds=seconds))
        held = front.client.begin("EmbedImages", images(options=options(model="bare")))
        status, retry = rpc_status.from_call(held.exception()), error_details_pb2.RetryInfo()
        assert status is not None
        assert any(detail.Unpack(retry) for detail in status.details)
        told.append(retry.retry_delay.ToMilliseconds())

    assert told == [100, 30_000]


def test_a_stream_goes_on_once_its_model_is_back(
    camera: Callable[..., Camera], engine: ScriptedEngine, entries: Mapping[str, ModelEntry]
) -> None:
    engine.answers(zeros)
    stream = camera()
    stream.ready()

    engine.serves(changed(entries, "full", state="evicted"))
    stream.send(frame(1))
    away = stream.result()
    engine.serves(entries)
    stream.send(frame(2))

    assert (away.status, reason(away.error.reason)) == (FAILED, "MODEL_LOADING")
    assert away.error.HasField("retry_delay")
    assert stream.result().status == OK
    assert engine.asked_back == ["full"]


def test_a_space_of_what_has_made_room_is_not_told_to_serve(
    front: Fronted, engine: ScriptedEngine
) -> None:
    bare = engine.models["bare"]
    labels = {"model": "bare", "version": bare.version, "space_id": bare.spaces["pooled"]}
    assert front.metric("tectum_model_info", **labels) == 1

    engine.serves(changed(engine.models, "bare", state="evicted"))

    assert front.metric("tectum_model_info", **labels) is None


# ---------------------------------------------------------------- rejected


def test_a_rejected_version_is_told_beside_the_one_that_serves(
    front: Fronted, engine: ScriptedEngine
) -> None:
    version, bad = engine.models["bare"].version, "e" * 16
    rejection = Rejection(bad, "output/pooled lies 0.1 apart", 1_700_000_000.5)

    engine.serves(changed(engine.models, "bare", rejection=rejection))
    front.client.health_becomes("NOT_SERVING", f"bare@{bad}")
    model = listed(front)["bare"]

    assert (model.version, model.state) == (version, model_pb2.MODEL_STATE_READY)
    assert (model.rejection.version, model.rejection.why) == (bad, rejection.why)
    assert model.rejection.rejected_at.ToMilliseconds() == 1_700_000_000_500
    assert model.failure == ""
    assert front.client.health("bare") == front.client.health(f"bare@{version}") == "SERVING"
    engine.serves(changed(engine.models, "bare", rejection=None))
    until(lambda: front.client.health(f"bare@{bad}") == "NOT_FOUND")
    assert not listed(front)["bare"].HasField("rejection")


def test_what_could_not_be_loaded_is_not_found_and_says_why(
    front: Fronted, engine: ScriptedEngine
) -> None:
    rejection = Rejection("e" * 16, "model.safetensors lacks vision.norm", 1.0)
    leg = ModelEntry("leg", "", "failed", False, b"", rejection=rejection)

    engine.serves({**engine.models, "leg": leg})
    front.client.health_becomes("NOT_SERVING", "leg")
    model = listed(front)["leg"]
    told = front.client.refused("EmbedImages", images(options=options(model="leg")))

    assert (model.state, model.failure) == (model_pb2.MODEL_STATE_FAILED, rejection.why)
    assert model.version == ""
    assert (told.code, told.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
    assert told.message.endswith(rejection.why)
    assert front.client.health() == "SERVING"
    assert engine.asked_back == []
    other = front.client.refused("EmbedImages", images(options=options(model="wing")))
    assert "leg" not in other.message  # of what can be asked, it is none


def test_without_any_model_that_serves_the_worker_does_not(
    front: Fronted, engine: ScriptedEngine
) -> None:
    lost = ModelEntry("full", "", "failed", True, b"", rejection=Rejection("", "gone", 1.0))

    engine.serves({"full": lost})
    front.client.health_becomes("NOT_SERVING")

    assert front.client.refused("EmbedImages", images()).reason == "MODEL_NOT_FOUND"


# ---------------------------------------------------------------- a whole worker


def test_a_worker_that_watches_serves_on_through_a_corrupt_bundle_and_then_the_next(
    loop: Loop, bare_folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    old = Repository(root).publish(bare_folder, "arm")
    served = Inline(loop, repository=str(root), models=("arm",), watch=0.01, max_batch=1)
    try:
        bad = corrupt(root, tmp_path, "golden")
        served.client.health_becomes("NOT_SERVING", f"arm@{bad}")

        assert served.client.ask("EmbedImages", images(vector={"kind": 2})).info.version == old
        assert bad in listed(served)["arm"].rejection.version
        Repository(root).publish(bare_folder, "arm")
        until(lambda: not listed(served)["arm"].HasField("rejection"))
    finally:
        served.close()
