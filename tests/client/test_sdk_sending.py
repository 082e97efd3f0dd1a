"""How a stream's pixels travel: as they are, at the model's size, or as JPEG."""

import io
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.client.fake_worker import FakeWorker
from tests.client.streams import accepted, collect

import tectum
from tectum.models import image_input
from tectum.resizing import resized
from tectum.sending import RAW, Sending, sending
from tectum.v1 import image_pb2, model_pb2, stream_pb2

SMOOTH = np.ascontiguousarray(
    np.broadcast_to(np.linspace(0, 255, 160, dtype=np.uint8)[None, :, None], (120, 160, 3))
)


@pytest.fixture(params=["sync", "async"])
def open_stream(
    request: pytest.FixtureRequest, client: tectum.Client, aclient: tectum.AsyncClient
) -> Any:
    return client.stream if request.param == "sync" else aclient.stream


async def sent(
    worker: FakeWorker, stream: Any, *images: tectum.ImageLike
) -> list[stream_pb2.StreamFrame]:
    """The frames as they reached the worker, each once the one before it was answered."""
    await accepted(stream)
    for image in images:
        stream.send(tectum.Frame(image))
        if isinstance(stream, tectum.AsyncStream):
            assert (await anext(stream)).status == "ok"
        else:
            assert next(stream).status == "ok"
    stream.finish()
    assert await collect(stream) == []
    return worker.frames


# ---------------------------------------------------------------- the option


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("raw", RAW),
        ("shared", Sending(shares=True)),
        ("resized", Sending(resizes=True)),
        ("jpeg:1", Sending(quality=1)),
        ("jpeg:100", Sending(quality=100)),
    ],
)
def test_each_way_has_a_name(said: str, meant: Sending) -> None:
    assert sending(said) == meant


@pytest.mark.parametrize("said", ["", "jpeg", "jpeg:0", "jpeg:101", "jpeg:90 ", "png", None, 90])
def test_another_name_is_refused_and_the_ways_are_named(said: Any, client: tectum.Client) -> None:
    with pytest.raises(tectum.InvalidInput, match=r'send: .*"raw", "shared", "resized", or "jp'):
        client.stream(embed=True, send=said)

    with pytest.raises(tectum.InvalidInput):
        sending(said)


def test_without_pillow_jpeg_is_refused_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)

    with pytest.raises(tectum.InvalidInput, match=r"tectum\[jpeg\]"):
        sending("jpeg:90")
    assert sending("resized").resizes


# ---------------------------------------------------------------- on the wire


async def test_unless_asked_for_pixels_travel_as_they_are(
    worker: FakeWorker, open_stream: Any
) -> None:
    (frame,) = await sent(worker, open_stream(embed=True), SMOOTH)

    assert (frame.image.raw.height, frame.image.raw.width) == (120, 160)
    assert frame.image.raw.data == SMOOTH.tobytes()
    assert not frame.HasField("resized")
    assert not worker.seen[-1].request.tell_input


async def test_resized_pixels_have_the_models_size_and_say_for_what(
    worker: FakeWorker, open_stream: Any
) -> None:
    (frame,) = await sent(worker, open_stream(embed=True, send="resized"), SMOOTH)

    read_as = worker.models["tiny"].input.image
    assert worker.seen[-1].request.tell_input
    assert (frame.resized.size, frame.resized.resize_to) == (64, 0)
    assert frame.resized.resize_mode == read_as.resize_mode
    assert frame.resized.interpolation == read_as.interpolation
    assert (frame.image.raw.height, frame.image.raw.width) == (64, 64)
    assert frame.image.raw.data == resized(SMOOTH, image_input(read_as)).tobytes()


async def test_once_the_model_reads_pictures_otherwise_they_are_resized_for_that(
    worker: FakeWorker, open_stream: Any
) -> None:
    worker.orders.size_from_now = 32

    first, second = await sent(worker, open_stream(embed=True, send="resized"), SMOOTH, SMOOTH)

    assert (first.image.raw.height, first.resized.size) == (64, 64)
    assert (second.image.raw.height, second.resized.size) == (32, 32)


async def test_for_a_worker_that_does_not_say_what_pictures_become_they_stay_as_they_are(
    worker: FakeWorker, open_stream: Any
) -> None:
    worker.orders.tells_input = False

    (frame,) = await sent(worker, open_stream(embed=True, send="resized"), SMOOTH)

    assert frame.image.raw.data == SMOOTH.tobytes()
    assert not frame.HasField("resized")


async def test_as_jpeg_they_are_small_and_nearly_the_same(
    worker: FakeWorker, open_stream: Any
) -> None:
    (frame,) = await sent(worker, open_stream(embed=True, send="jpeg:95"), SMOOTH)

    decoded = np.asarray(Image.open(io.BytesIO(frame.image.encoded)))
    assert len(frame.image.encoded) < SMOOTH.nbytes / 8
    assert decoded.shape == SMOOTH.shape
    assert np.abs(decoded.astype(int) - SMOOTH).mean() < 2


@pytest.mark.parametrize("way", ["resized", "jpeg:50"])
async def test_a_file_travels_as_it_is(worker: FakeWorker, open_stream: Any, way: str) -> None:
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, "png")

    (frame,) = await sent(worker, open_stream(embed=True, send=way), file.getvalue())

    assert frame.image.encoded == file.getvalue()
    assert not frame.HasField("resized")


def test_what_is_too_wide_for_a_jpeg_is_refused_where_it_is_sent(client: tectum.Client) -> None:
    with client.stream(embed=True, send="jpeg:90") as stream:
        with pytest.raises(tectum.InvalidInput, match="image: .*1×65501.* at most 65500 a side"):
            stream.send(tectum.Frame(np.zeros((1, 65_501, 3), np.uint8)))
        stream.send(tectum.Frame(SMOOTH))
        assert next(stream).frame_id == 0


@pytest.mark.parametrize("unknown", [{"resize_mode": 99}, {"interpolation": 99}])
def test_what_a_newer_worker_does_that_this_sdk_cannot_is_left_to_it(
    unknown: dict[str, int],
) -> None:
    read_as = model_pb2.ImageInput(
        size=8,
        resize_mode=model_pb2.RESIZE_MODE_STRETCH,
        interpolation=model_pb2.INTERPOLATION_BILINEAR,
    )
    read_as.MergeFrom(model_pb2.ImageInput(**unknown))  # type: ignore[arg-type]
    raw = image_pb2.RawImage(height=120, width=160, data=SMOOTH.tobytes())
    frame = stream_pb2.StreamFrame(image=image_pb2.Image(raw=raw))

    Sending(resizes=True).dress(frame, read_as)

    assert frame.image.raw == raw
    assert not frame.HasField("resized")
