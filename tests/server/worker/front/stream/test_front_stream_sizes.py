"""Pictures that a camera brought to the model's size: taken for that model's, and no other's."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.bundles import INTERVAL, SIDE, picture
from tests.server.worker.frames import FAILED, OK, PAIRED, UNPAIRED, frame
from tests.server.worker.messages import raw, reason
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera, Inline, Loop

import tectum
from tectum.v1 import model_pb2, stream_pb2
from tectum_core.bundle import Repository
from tectum_server.worker.jobs import ModelEntry

FITTING = picture(0, SIDE, SIDE)


def read_as(engine: ScriptedEngine) -> model_pb2.ImageInput:
    return model_pb2.Model.FromString(engine.models["full"].description).input.image


def sized(
    number: int,
    spec: model_pb2.ImageInput,
    image: Any = FITTING,
    at: float | None = None,
) -> stream_pb2.StreamFrame:
    """A frame that was brought to a model's size as that says."""
    sent = frame(number, at, image=raw(image))
    sent.resized.size, sent.resized.resize_to = spec.size, spec.resize_to
    sent.resized.resize_mode, sent.resized.interpolation = spec.resize_mode, spec.interpolation
    return sent


def reloaded(entries: Mapping[str, ModelEntry], **changes: Any) -> dict[str, ModelEntry]:
    """The same models, `full` of another version that makes something else of pictures."""
    full = entries["full"]
    description = model_pb2.Model.FromString(full.description)
    description.version = "f" * 16
    description.input.image.MergeFrom(model_pb2.ImageInput(**changes))
    fresh = msgspec.structs.replace(
        full, version="f" * 16, description=description.SerializeToString()
    )
    return {**entries, "full": fresh}


def heard(stream: Camera) -> stream_pb2.StreamPerceptionResponse:
    response: stream_pb2.StreamPerceptionResponse = next(stream.call)
    return response


def test_who_asks_is_told_what_pictures_become(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    assert camera(tell_input=True).ready().image_input == read_as(engine)
    assert not camera().ready().HasField("image_input")


def test_a_picture_of_the_models_size_is_computed_as_it_is(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream = camera()
    stream.ready()

    stream.send(sized(1, read_as(engine)))

    assert stream.result().status == OK
    assert (engine.begun.get(timeout=30).items[0].arrays[0] == FITTING).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"size": SIDE * 2},
        {"resize_mode": model_pb2.RESIZE_MODE_CENTER_CROP},
        {"resize_to": 40},
        {"interpolation": model_pb2.INTERPOLATION_BICUBIC},
        {"resize_mode": 99, "interpolation": 98},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_a_picture_that_was_resized_for_another_model_fails_and_both_ways_are_told(
    camera: Callable[..., Camera], engine: ScriptedEngine, changes: dict[str, Any]
) -> None:
    engine.answers(zeros)
    stream = camera()
    stream.ready()
    other = read_as(engine)
    other.MergeFrom(model_pb2.ImageInput(**changes))

    stream.send(sized(1, other))
    stream.send(frame(2))
    results = [stream.result(), stream.result()]

    assert [result.status for result in results] == [FAILED, OK]
    error = results[0].error
    assert (reason(error.reason), error.field) == ("SHAPE_MISMATCH", "frame.resized")
    assert f"the model now reads {SIDE}×{SIDE} by stretch, bilinear" in error.message
    assert engine.begun.qsize() == 1


def test_a_picture_that_is_said_to_be_resized_and_is_not_fails(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream = camera(latent_actions=True)
    stream.ready()
    at = time.time()
    small = picture(1, SIDE, SIDE // 2)

    stream.send(sized(1, read_as(engine), small, at))
    stream.send(sized(2, read_as(engine), FITTING, at + INTERVAL))
    stream.send(sized(3, read_as(engine), FITTING, at + 2 * INTERVAL))
    wrong, unpaired, paired = (stream.result() for _ in range(3))

    assert (wrong.status, wrong.error.field) == (FAILED, "frame.image")
    assert f"{SIDE}×{SIDE // 2} pixels" in wrong.error.message
    # Nor is it what another one is paired with.
    assert (unpaired.status, unpaired.latent_action_status) == (OK, UNPAIRED)
    assert (paired.status, paired.latent_action_status) == (OK, PAIRED)


def test_once_a_reloaded_model_reads_them_otherwise_that_is_told_before_its_first_answer(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream = camera(tell_input=True)
    old = stream.ready().image_input

    engine.serves(reloaded(engine.models, size=SIDE * 2))
    stream.send(sized(1, old))
    told, failed = heard(stream), heard(stream)
    stream.send(sized(2, told.input_changed.image_input, picture(2, SIDE * 2, SIDE * 2)))

    assert told.input_changed.image_input.size == SIDE * 2
    assert (failed.result.frame_id, failed.result.status) == (1, FAILED)
    assert stream.result().status == OK
    assert stream.finish() == []


def test_nothing_is_told_of_a_reload_that_changes_nothing_or_to_who_did_not_ask(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    asked, other = camera(tell_input=True), camera()
    for stream in (asked, other):
        stream.ready()
    sent = read_as(engine)

    engine.serves(reloaded(engine.models, patch_size=4))
    asked.send(sized(1, sent))
    first = heard(asked)
    engine.serves(reloaded(engine.models, size=SIDE * 2))
    other.send(frame(1))
    second = heard(other)

    assert [first.result.status, second.result.status] == [OK, OK]


def test_where_the_centre_is_cut_out_the_picture_has_what_its_shorter_side_is_brought_to(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    cut = {"resize_mode": model_pb2.RESIZE_MODE_CENTER_CROP, "resize_to": SIDE + 8}
    engine.serves(reloaded(engine.models, **cut))
    stream = camera()
    stream.ready()

    stream.send(sized(1, read_as(engine), picture(1, SIDE, SIDE)))
    stream.send(sized(2, read_as(engine), picture(2, SIDE + 8, SIDE + 8)))

    assert [stream.result().status, stream.result().status] == [FAILED, OK]


# ---------------------------------------------------------------- a whole worker


@pytest.fixture
def live(loop: Loop, full_folder: Path, tmp_path: Path) -> Iterator[Inline]:
    Repository(tmp_path / "models").publish(full_folder, "arm")
    served = Inline(loop, repository=str(tmp_path / "models"), models=("arm",))
    yield served
    served.close()


def test_a_vector_is_the_same_whoever_brought_the_picture_to_its_size(live: Inline) -> None:
    large = picture(3, 300, 400)
    vectors = []
    with tectum.Client(f"127.0.0.1:{live.client.port}") as client:
        for way in ("raw", "resized", "jpeg:95"):
            with client.stream(embed=True, kind="pooled", send=way) as stream:
                stream.send(tectum.Frame(large))
                embedding = next(stream).embedding
                assert embedding is not None
                vectors.append(embedding.values / np.linalg.norm(embedding.values))

    as_it_is, resized, lossy = vectors
    assert float(as_it_is @ resized) > 0.99999
    assert 0.9 < float(as_it_is @ lossy) < 0.999999
