"""What requests hold is counted: their messages, and pixels before they are decoded."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bundles import INTERVAL
from tests.server.worker.asking import (
    CUT,
    clip_of,
    fill,
    images,
    pairs,
    png_header,
    rollout,
    similar,
    texts,
)
from tests.server.worker.frames import FAILED, OK, frame
from tests.server.worker.messages import encoded, raw, reason
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera, Fronted, until

from tectum.v1 import errors_pb2, image_pb2, latent_action_pb2, stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.memory import Memory, Share
from tectum_server.worker.jobs import Priority

PIXELS = np.zeros((100, 100, 3), np.uint8)
FILE, RAW = encoded(PIXELS), raw(PIXELS)
FULL = errors_pb2.ERROR_REASON_QUEUE_FULL
BYTES = PIXELS.nbytes
"""Of one picture's pixels; its file has a few hundred."""
PAIR = images(FILE, FILE).ByteSize() + 2 * BYTES
"""Of a request for two pictures."""
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
    assert reason_of(one, b=30, c=30) == errors_pb2.ERROR_REASON_TOO_MANY_ITEMS
    assert reason_of(one, b=60) == errors_pb2.ERROR_REASON_IMAGE_TOO_LARGE
    one.release()
    other.take({"a": 50, "b": 50})


def test_a_message_that_can_never_fit_is_too_large() -> None:
    memory = Memory(100)
    one, other = memory.share(), memory.share()
    one.take_message(60)

    with pytest.raises(Failure, match="memory for 100") as caught:
        other.take_message(101)
    assert caught.value.reason == errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE
    with pytest.raises(Failure, match="other requests hold 60 of the 100") as caught:
        other.take_message(50)
    assert caught.value.reason == errors_pb2.ERROR_REASON_QUEUE_FULL
    assert memory.used == 60


def test_what_is_given_back_is_anybodys() -> None:
    memory = Memory(100)
    one, other = memory.share(), memory.share()
    one.take_message(40)
    one.take({"a": 60})

    one.give_back(40)
    other.take_message(40)

    assert (one.held, other.held, memory.used) == (60, 40, 100)


def test_memory_is_asked_for_before_anything_is_refused() -> None:
    memory, asked = Memory(100), list[str]()
    useless, dear = memory.share(), memory.share()
    useless.take_message(30)
    dear.take_message(60)

    def forget() -> None:
        asked.append("useless")
        useless.release()

    def spare() -> bool:
        asked.append("dear")
        had = dear.held > 0
        dear.release()
        return had

    memory.on_shortage.add(forget)
    memory.share(spare=spare).take_message(40)
    assert (asked, memory.used) == (["useless"], 100)
    asker = memory.share(spare=spare)
    asker.take_message(50)
    assert (asked[1:], memory.used) == (["useless", "dear"], 90)
    assert reason_of(memory.share(spare=spare), a=20) == errors_pb2.ERROR_REASON_QUEUE_FULL
    assert asked[3:] == ["useless", "dear"]


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
    "frames to roll out": lambda one: ("Rollout", rollout(frames=[one] * 2, goal=one), "goal"),
    "frames to pair": lambda one: ("PredictLatentActions", frames(one), "frames[2].image"),
}


def frames(one: image_pb2.Image) -> latent_action_pb2.PredictLatentActionsRequest:
    return pairs(frames=[{"image": one}] * 3)


@pytest.mark.parametrize("image", [FILE, RAW], ids=["files", "raw"])
@pytest.mark.parametrize("what", LARGE)
def test_what_can_never_fit_is_refused_for_good_before_it_is_decoded(
    fronted: Starter, engine: ScriptedEngine, what: str, image: image_pb2.Image
) -> None:
    rpc, request, field = LARGE[what](image)
    most = request.ByteSize() + 2 * BYTES
    front = fronted(request_memory_bytes=most)

    told = front.client.refused(rpc, request)

    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "TOO_MANY_ITEMS")
    assert told.fields == (field,)
    assert f"at most {most} are allowed" in told.message
    assert not told.retries
    assert front.metric("tectum_decode_duration_seconds_count") == 0
    assert engine.begun.empty()


def test_a_picture_that_no_request_can_hold_is_too_large(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    most = images(FILE).ByteSize() + BYTES - 1

    told = fronted(request_memory_bytes=most).client.refused("EmbedImages", images(FILE))

    assert (told.code, told.reason, told.retries) == ("INVALID_ARGUMENT", "IMAGE_TOO_LARGE", False)
    assert told.fields == ("images[0]",)


def test_a_bomb_costs_its_header(fronted: Starter, engine: ScriptedEngine) -> None:
    bomb = image_pb2.Image(encoded=png_header(4096, 4096))
    front = fronted()

    told = front.client.refused("EmbedImages", images(*[bomb] * 20))

    assert (told.reason, told.fields) == ("TOO_MANY_ITEMS", ("images[5]",))
    assert front.metric("tectum_decode_duration_seconds_count") == 0


def full(fronted: Starter, engine: ScriptedEngine) -> tuple[Fronted, Any]:
    """A front all of whose memory one request holds, and that request's future."""
    front = fronted(request_memory_bytes=PAIR)
    held = front.client.begin("EmbedImages", images(FILE, FILE))
    engine.begun.get(timeout=30)
    return front, held


def test_while_others_hold_the_memory_a_request_is_told_to_come_back(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    front, held = full(fronted, engine)

    told = front.client.refused("EmbedImages", images(FILE))

    assert (told.code, told.reason, told.retries) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", True)
    assert f"other requests hold {PAIR} of the {PAIR} bytes" in told.message
    engine.answers(zeros)
    assert len(held.result().results) == 2
    assert front.client.ask("EmbedImages", images(FILE, FILE)).results


@pytest.mark.parametrize("sent", ["raw", "file", "text"])
def test_a_request_holds_its_message_and_its_pixels_until_its_answer(
    fronted: Starter, engine: ScriptedEngine, sent: str
) -> None:
    front = fronted()
    request = {"raw": images(RAW), "file": images(FILE), "text": texts("open")}[sent]
    rpc = "EmbedTexts" if sent == "text" else "EmbedImages"
    held = front.client.begin(rpc, request)
    engine.begun.get(timeout=30)

    pixels = 0 if sent == "text" else BYTES
    assert front.front._calls.memory.used == request.ByteSize() + pixels

    engine.answers(lambda job: zeros(job) if sent != "text" else Failure(FULL, "full"))
    held.exception()
    until(lambda: front.front._calls.memory.used == 0)


def test_a_clip_is_held_once(fronted: Starter, engine: ScriptedEngine) -> None:
    front, request = fronted(), clip_of(*[FILE] * 4)
    held = front.client.begin("EmbedClips", request)
    job = engine.begun.get(timeout=30)

    assert front.front._calls.memory.used == request.ByteSize() + 4 * BYTES
    assert job.items[0].arrays[0].nbytes == 4 * BYTES

    engine.answers(zeros)
    assert held.result().results


def test_messages_alone_can_fill_the_memory(fronted: Starter, engine: ScriptedEngine) -> None:
    large = images(image_pb2.Image(encoded=b"\x89PNG\r\n\x1a\n" + b"\0" * 10_000))
    front, held = full(fronted, engine)

    told = front.client.refused("EmbedImages", large)

    assert (told.reason, told.retries) == ("QUEUE_FULL", True)
    engine.answers(zeros)
    held.result()
    assert front.client.refused("EmbedImages", large).reason == "IMAGE_UNREADABLE"


@pytest.mark.parametrize("end", ["answered", "refused", "cancelled", "bad"])
def test_however_a_request_ends_its_memory_is_free_again(
    fronted: Starter, engine: ScriptedEngine, end: str
) -> None:
    front = fronted(request_memory_bytes=2 * PAIR)
    memory = front.front._calls.memory
    held = front.client.begin("EmbedImages", images(FILE, CUT if end == "bad" else FILE))
    engine.begun.get(timeout=30)
    assert memory.used > 0

    if end == "cancelled":
        held.cancel()
    full = Failure(FULL, "full")
    engine.answers((lambda _: full) if end == "refused" else zeros)

    until(lambda: memory.used == 0)


def test_a_frame_without_room_fails_alone_and_its_stream_goes_on(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    front, held = full(fronted, engine)
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
    assert front.metric("tectum_requests_refused_total", reason="queue_full") == 1


# ---------------------------------------------------------------- streams


def paired(front: Fronted, embed: bool = False) -> Camera:
    stream = Camera(front.client, stream_pb2.StreamSetup(embed=embed, latent_actions=True))
    stream.ready()
    return stream


def test_what_a_stream_keeps_for_pairs_is_held_until_its_end(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    front, now = fronted(), time.time()
    memory, stream = front.front._calls.memory, paired(front)

    for number in range(3):
        stream.send(frame(number, now + number / 100, image=FILE))
        assert stream.result().status == OK
    until(lambda: memory.used == 3 * BYTES)  # the files have gone

    stream.finish()
    until(lambda: memory.used == 0)
    assert not memory.on_shortage


def test_streams_that_keep_frames_never_hold_more_than_there_is(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    most = 5 * BYTES
    front, now = fronted(request_memory_bytes=most), time.time()
    memory, streams = front.front._calls.memory, [paired(front) for _ in range(3)]

    found = []
    for number in range(4):
        for stream in streams:
            stream.send(frame(number, now + number / 100, image=FILE))
            found.append(stream.result().status)
            assert memory.used <= most

    assert found[:3] == [OK] * 3
    assert found.count(OK) > 3 * 2
    for stream in streams:
        stream.finish()
    until(lambda: memory.used == 0)


def test_a_frame_whose_earlier_one_finds_no_room_fails_for_that(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    front, now = fronted(), time.time()
    memory, stream = front.front._calls.memory, paired(front, embed=True)
    stream.send(frame(1, now, image=FILE))
    engine.begun.get(timeout=30)
    stream.send(frame(2, now + 1, image=FILE))
    stream.send(frame(3, now + 1 + INTERVAL, image=FILE))
    assert stream.result().frame_id == 2  # superseded: nobody has decoded it

    waiting = memory.used - BYTES
    memory.share().take_message(memory.capacity - waiting - BYTES)  # for one of the two
    engine.answers(zeros)

    first, failed = stream.result(), stream.result()
    assert (first.frame_id, first.status) == (1, OK)
    assert (failed.frame_id, failed.status) == (3, FAILED)
    assert reason(failed.error.reason) == "QUEUE_FULL"
    assert failed.error.HasField("retry_delay")


def test_sixteen_callers_and_sixty_four_cameras_fit_by_default(
    fronted: Starter, engine: ScriptedEngine
) -> None:
    memory = fronted().front._calls.memory
    picture, shown, newcomer = 224 * 224 * 3, 480 * 640 * 3, memory.share(Priority.INTERACTIVE)
    for _ in range(16):
        caller = memory.share(Priority.INTERACTIVE)
        caller.take_message(picture)
        caller.take({"images[0]": picture})

    # At 30 frames a second, 1/16 s ± 10 ms apart: the newest, and two that it may be paired with.
    for _ in range(64 * 3):
        memory.share().take_message(shown)
    memory.share().take({"frame.image": shown})

    # Nothing was refused, nothing made way for anything else, and as many callers find room yet.
    assert memory.used == 16 * 2 * picture + (64 * 3 + 1) * shown
    newcomer.take_message(picture)
    assert memory.used + 16 * 2 * picture < memory.capacity * 6 // 8  # where bulk work is refused
