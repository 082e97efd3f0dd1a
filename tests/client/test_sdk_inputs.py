"""What the SDK refuses before it sends anything, and that it says which field and why."""

# One case a line, however long.
# ruff: noqa: E501

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

import tectum
from tectum import durations, requests, surface

PICTURE = np.zeros((2, 2, 3), np.uint8)
TWO = np.zeros((2, 2, 2, 3), np.uint8)
STEPS = np.zeros((3, 2))
Nan = float("nan")

Ask = Callable[[], Any]


def images(*pictures: Any) -> Ask:
    return lambda: surface.embed_images(list(pictures))


def image(picture: Any, mask: Any = None) -> Ask:
    return lambda: surface.reconstruct_image(picture, mask)


def masked(**mask: Any) -> Ask:
    return image(PICTURE, tectum.Mask(**mask))


def latent(frames: Any, **options: Any) -> Ask:
    return lambda: surface.predict_latent_actions(frames, **options)


def rolled(frames: Any = TWO, candidates: Any = None, **options: Any) -> Ask:
    return lambda: surface.rollout(frames, candidates, **options)


REFUSED: list[tuple[str, str, Ask]] = [
    ("images[1]", "found uint8[4, 4]; allowed: a uint8[H, W, 3]", images(PICTURE, np.zeros((4, 4), np.uint8))),
    ("images[0]", "found float32[2, 2, 3]", images(PICTURE.astype(np.float32))),
    ("images[0]", "found uint8[2, 2, 4]", images(np.zeros((2, 2, 4), np.uint8))),
    ("images[0]", "found uint8[0, 2, 3]", images(np.zeros((0, 2, 3), np.uint8))),
    ("images[0]", "found str; allowed", images("picture.png")),
    ("images[0]", "found no bytes", images(b"")),
    ("images[0]", "cannot read /nowhere/picture.png: No such file", images(Path("/nowhere/picture.png"))),
    ("images", "found none", images()),
    ("images", "found uint8[2, 2, 3]; allowed: a list", lambda: surface.embed_images(PICTURE)),
    ("images", "found bytes; allowed: a list", lambda: surface.embed_images(b"jpeg")),  # type: ignore[arg-type]
    ("kind", "found 'whole'; allowed: joint, pooled, tokens", lambda: surface.embed_images([PICTURE], kind="whole")),  # type: ignore[arg-type]
    ("dtype", "found 'int64'; allowed: float32, float16, int8", lambda: surface.embed_images([PICTURE], dtype="int64")),  # type: ignore[arg-type]
    ("dimensions", "found 0", lambda: surface.embed_images([PICTURE], dimensions=0)),
    ("texts", "found one str", lambda: surface.embed_texts("open")),
    ("texts", "found none", lambda: surface.embed_texts([])),
    ("texts[1]", "found an empty text", lambda: surface.embed_texts(["a", ""])),
    ("texts[0]", "found NUL", lambda: surface.embed_texts(["a\0"])),
    ("texts[0]", "half a surrogate pair", lambda: surface.embed_texts(["\ud800"])),
    ("texts[0]", "found int; allowed: str", lambda: surface.embed_texts([1])),  # type: ignore[list-item]
    ("clips", "found none", lambda: surface.embed_clips([])),
    ("clips[0].frames", "found none", lambda: surface.embed_clips([[]])),
    ("clips[0].frames[1]", "found int64[3]", lambda: surface.embed_clips([[PICTURE, np.arange(3)]])),  # type: ignore[list-item]
    ("frame_interval", "found 0 s", lambda: surface.embed_clips([TWO], 0)),
    ("left", "found one str", lambda: surface.similarity("a", ["b"])),
    ("right", "found none", lambda: surface.similarity(["a"], [])),
    ("right[0]", "found float64[8]; allowed: a uint8[H, W, 3] array (RGB), the bytes of a JPEG, PNG or WebP file, or a Path to one, a str, or an Embedding", lambda: surface.similarity(["a"], [np.zeros(8)])),  # type: ignore[list-item]
    ("right[0]", "found no bytes; allowed: a uint8[H, W, 3] array (RGB), the bytes of a JPEG, PNG or WebP file, or a Path to one, a str, or an Embedding", lambda: surface.similarity(["a"], [b""])),
    ("right[0]", "found NoneType; allowed", lambda: surface.similarity(["a"], [None])),  # type: ignore[list-item]
    ("left[0]", "found NaN", lambda: surface.similarity([tectum.Embedding(np.full(2, Nan, np.float32), "s")], ["a"])),
    ("image", "found NoneType", image(None)),
    ("mask.kind", "found 'half'", masked(kind="half")),
    ("mask.ratio", "found 1.0; allowed: above 0 and below 1", masked(ratio=1.0)),
    ("mask.ratio", "found nan", masked(ratio=Nan)),
    ("mask.ratio", "allowed: none with hidden indices", masked(ratio=0.5, hidden=[1])),
    ("mask.seed", "found -1", masked(seed=-1)),
    ("mask.source", "found 'taste'", masked(kind="importance", source="taste")),
    ("mask.source", "allowed: none but with importance", masked(source="change")),
    ("mask.hint", "allowed: none but with importance", masked(kind="block", hint=0.0)),
    ("mask.hint", "found 1.5; allowed: 0 to 1", masked(kind="importance", hint=1.5)),
    ("mask.hint", "found nan", masked(kind="importance", hint=Nan)),
    ("mask.hidden", "found 1 twice; allowed: indices from 0, none twice", masked(hidden=[0, 1, 1])),
    ("mask.hidden", "found -1; allowed: indices from 0", masked(hidden=[0, -1])),
    ("mask.hidden", "found no indices with kind explicit; allowed", masked(kind="explicit")),
    ("mask.hidden", "found 1 indices with kind tube; allowed", masked(kind="tube", hidden=[1])),
    ("text", "found an empty text", lambda: surface.reconstruct_text("")),
    ("top_k", "found 21; allowed: 1 to 20", lambda: surface.reconstruct_text("a", top_k=21)),
    ("actions", "found float64[3]; allowed: float[T, A]", lambda: surface.reconstruct_actions([0.0, 1, 2])),
    ("actions", "found NaN or infinity", lambda: surface.reconstruct_actions([[0, 1e300]])),
    ("actions", "found <U1[1, 1]", lambda: surface.reconstruct_actions([["a"]])),
    ("state", "found float64[1, 1]; allowed: float[S]", lambda: surface.reconstruct_actions(STEPS, state=[[1.0]])),
    ("step_interval", "found inf s", lambda: surface.reconstruct_actions(STEPS, step_interval=float("inf"))),
    ("frames", "found 1; allowed: at least 2", latent([PICTURE], interval=0.1)),
    ("interval", "found neither; allowed: exactly one", latent(TWO)),
    ("interval", "found both; allowed: exactly one", latent(TWO, interval=0.1, captured_at=[0, 1])),
    ("captured_at", "found 1 times for 2 frames", latent(TWO, captured_at=[0])),
    ("captured_at[1]", "found 1 after 1", latent(TWO, captured_at=[1, 1])),
    ("captured_at[0]", "found -1 s", latent(TWO, captured_at=[-1, 1])),
    ("captured_at[1]", "found nan s", latent(TWO, captured_at=[1, Nan])),
    ("frames", "found none", rolled([], STEPS[None])),
    ("frames[1]", "found uint8[4]", rolled([PICTURE, np.zeros(4, np.uint8)], STEPS[None])),
    ("candidates", "found neither; allowed: exactly one of candidates and steps", rolled()),
    ("candidates", "found both; allowed: exactly one", rolled(candidates=STEPS[None], steps=2)),
    ("candidates", "found float64[3, 2]; allowed: float[K, T, A]", rolled(TWO[:1], STEPS)),
    ("candidates", "found NaN or infinity", rolled(TWO[:1], [[[Nan]]])),
    ("past_actions", "found none for 2 frames", rolled(candidates=STEPS[None])),
    ("past_actions", "found some; allowed: none without candidates, or with a single frame", rolled(TWO[:1], STEPS[None], past_actions=STEPS)),
    ("past_actions", "found some; allowed: none", rolled(steps=2, past_actions=STEPS)),
    ("past_actions", "found float64[3]; allowed: float[T, A]", rolled(candidates=STEPS[None], past_actions=[0.0, 1, 2])),
    ("steps", "found 0; allowed: at least 1", rolled(steps=0)),
    ("frame_interval", "found -1 s", rolled(steps=1, frame_interval=-1)),
    ("goal", "found str; allowed", rolled(steps=1, goal="goal.png")),
    ("dtype", "found 'int64'; allowed: float32, float16, int8", rolled(steps=1, dtype="int64")),
    ("action_space_id", "found NUL", rolled(steps=1, action_space_id="a\0")),
    ("name", "found an empty text", lambda: surface.load_model("")),
]  # fmt: skip


@pytest.mark.parametrize(("field", "found", "ask"), REFUSED)
def test_what_can_never_succeed_is_refused_by_name(field: str, found: str, ask: Ask) -> None:
    with pytest.raises(tectum.InvalidInput) as caught:
        ask()

    (violation,) = caught.value.violations
    assert violation.field == field
    assert found in violation.description
    assert caught.value.reason != ""


@given(st.floats(1e-9, 1e9))
def test_a_span_of_time_survives_the_wire_to_the_nanosecond(value: float) -> None:
    message = durations.duration(value, "interval")

    assert isinstance(message, Duration)
    assert durations.seconds(message) == pytest.approx(value, rel=1e-15, abs=1e-9)


@given(st.floats(0, 4e9))
def test_a_moment_survives_the_wire_to_the_microsecond(value: float) -> None:
    moment = durations.timestamp(value, "captured_at")

    assert durations.timestamp_seconds(moment) == pytest.approx(value, abs=1e-6, rel=0)


def test_pixels_are_copied_when_a_request_is_made() -> None:
    picture = PICTURE.copy()
    request = requests.embed_images([picture])
    picture[:] = 9

    assert request.images[0].raw.data == bytes(12)
