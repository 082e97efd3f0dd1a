"""Pixels are counted before they are decoded, in each request and over all of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.worker.asking import CUT, clip_of, fill, images, pairs, png_header, similar
from tests.server.worker.frames import FAILED, OK, frame
from tests.server.worker.messages import encoded, raw, reason
from tests.server.worker.serving import Camera, Fronted, ScriptedEngine, until, zeros

from tectum.v1 import errors_pb2, image_pb2, latent_action_pb2, stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.memory import Memory, Share

PIXELS = np.zeros((100, 100, 3), np.uint8)
FILE, RAW = encoded(PIXELS), raw(PIXELS)
BYTES = PIXELS.nbytes
"""Of one picture's pixels; its file has a few hundred."""
Starter = Callable[..., Fronted]


def reason_of(share: Share, **sizes: int) -> int:
    with pytest.raises(Failure) as caught:
        share.take(sizes)
    return caught.value.reason


@given(st.lists(st.lists(st.integers(0, 60), max_size=5), max_size=8))
def test_all_together_never_hold_more_than_there_is(requests: list[list[int]]) -> None:
    memory, shares = Memory(100), list[Share]()
    for sizes in requests:
        share, used = memory.share(), memory.used
        shares.append(share)
        wanted = {str(index): size for index, size in enumerate(sizes)}
        if used + sum(sizes) <= 100:
            share.take(wanted)
            assert memory.used == used + sum(sizes)
            continue
        with pytest.raises(Failure) as caught:
            share.take(wanted)
        assert memory.used == used
        assert (caught.value.retry_delay is not None) is (sum(sizes) <= 100)
    for share in shares:
        share.release()
        share.release()
    assert memory.used == 0


def test_what_can_never_fit_is_told_apart_from_what_cannot_now() -> None:
    memory = Memory(100)
    one, other = memory.share(), memory.share()
    one.take({"a": 60})

    assert reason_of(other, a=50) == errors_pb2.ERROR_REASON_QUEUE_FULL
    assert reason_of(other, a=101) == errors_pb2.ERROR_REASON_IMAGE_TOO_LARGE
    assert reason_of(other, a=60, b=60) == errors_pb2.ERROR_REASON_TOO_MANY_ITEMS
    assert reason_of(one, b=60) == errors_pb2.ERROR_REASON_TOO_MANY_ITEMS
    one.release()
    other.take({"a": 50, "b": 50})


# ---------------------------------------------------------------- requests

LARGE: dict[str, Callable[[image_pb2.Image], tuple[str, Any, str]]] = {
    "pictures": lambda one: ("EmbedImages", images(*[one] * 3), "images[2]"),
    "a clip": lambda one: ("EmbedClips", clip_of(*[one] * 4), "clips[0].frames[2]"),
    "a clip to fill in": lambda one: (
        "Reconstruct",
        fill(clip={"frames": [one] * 4}),
        "clip.frames[2]",
    ),
    "pictures to compare": lambda one: (
        "ComputeSimilarity",
        similar([{"image": one}] * 2, [{"text": "a"}, {"image": one}]),
        "right[1].image",
    ),
    "frames to pair": lambda one: ("PredictLatentActions", frames(one), "frames[2].image"),
}


def frames(one: image_pb2.Image) -> latent_action_pb2.PredictLatentActionsRequest:
    return pairs(frames=[{"image": one}] * 3)


@pytest.mark.parametrize("image", [FILE, RAW], ids=["files", "raw"])
@pytest.mark.parametrize("what", LARGE)
def test_what_can_never_fit_is_refused_for_good_before_it_is_decoded(
    fronted: Starter, engine: ScriptedEngine, what: str, image: image_pb2.Image
) -> None:
    front = fronted(request_memory_bytes=2 * BYTES)
    rpc, request, field = LARGE[what](image)

    told = front.client.refused(rpc, request)

    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "TOO_MANY_ITEMS")
    assert told.fields == (field,)
    assert f"at most {2 * BYTES} are allowed" in told.message
    assert not told.retries
    assert front.metric("tectum_decode_duration_seconds_count") == 0
    assert engine.begun.empty()


def test_a_picture_that_no_request_can_hold_is_too_large(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    told = fronted(request_memory_bytes=BYTES - 1).client.refused("EmbedImages", images(FILE))

    assert (told.code, told.reason, told.retries) == ("INVALID_ARGUMENT", "IMAGE_TOO_LARGE", False)
    assert told.fields == ("images[0]",)


def test_a_bomb_costs_its_header(fronted: Starter, engine: ScriptedEngine) -> None:
    bomb = image_pb2.Image(encoded=png_header(4096, 4096))
    front = fronted()

    told = front.client.refused("EmbedImages", images(*[bomb] * 20))

    assert (told.reason, told.fields) == ("TOO_MANY_ITEMS", ("images[5]",))
    assert front.metric("tectum_decode_duration_seconds_count") == 0


def test_while_others_hold_the_memory_a_request_is_told_to_come_back(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    front = fronted(request_memory_bytes=2 * BYTES)
    held = front.client.begin("EmbedImages", images(FILE, FILE))
    engine.begun.get(timeout=30)

    told = front.client.refused("EmbedImages", images(FILE))

    assert (told.code, told.reason, told.retries) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", True)
    assert f"other requests hold {2 * BYTES} of the {2 * BYTES} bytes" in told.message
    engine.answers(zeros)
    assert len(held.result().results) == 2
    assert front.client.ask("EmbedImages", images(FILE, FILE)).results


@pytest.mark.parametrize("end", ["answered", "refused", "cancelled", "bad"])
def test_however_a_request_ends_its_memory_is_free_again(
    fronted: Starter, engine: ScriptedEngine, end: str
) -> None:
    front = fronted(request_memory_bytes=2 * BYTES)
    memory = front.front._calls.memory
    held = front.client.begin("EmbedImages", images(FILE, CUT if end == "bad" else FILE))
    engine.begun.get(timeout=30)
    assert memory.used > 0

    if end == "cancelled":
        held.cancel()
    full = Failure(errors_pb2.ERROR_REASON_QUEUE_FULL, "full")
    engine.answers((lambda _: full) if end == "refused" else zeros)

    until(lambda: memory.used == 0)


def test_a_frame_without_room_fails_alone_and_its_stream_goes_on(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    front = fronted(request_memory_bytes=2 * BYTES)
    held = front.client.begin("EmbedImages", images(FILE, FILE))
    engine.begun.get(timeout=30)
    stream = Camera(front.client, stream_pb2.StreamSetup(embed=True))
    stream.ready()

    stream.send(frame(1, image=FILE))
    failed = stream.result()
    engine.answers(zeros)
    held.result()
    stream.send(frame(2, image=FILE))

    assert (failed.status, reason(failed.error.reason)) == (FAILED, "QUEUE_FULL")
    assert failed.error.HasField("retry_delay")
    assert stream.result().status == OK
    assert stream.finish() == []
    assert front.front._calls.memory.used == 0
