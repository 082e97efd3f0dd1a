"""Requests in few words, and rows of tables that say how one fails."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from tests.bundles import actions, picture, png
from tests.server.worker.messages import build, floats, raw, seconds
from tests.server.worker.serving import Caller, Told

from tectum.v1 import (
    call_pb2,
    embed_pb2,
    image_pb2,
    latent_action_pb2,
    reconstruct_pb2,
    rollout_pb2,
)

ADMIN, USER, STRANGER = "an admin's token", "a user's token", "nobody's token"
CODES = {
    "FIELD_MISSING": "INVALID_ARGUMENT",
    "FIELD_OUT_OF_RANGE": "INVALID_ARGUMENT",
    "SHAPE_MISMATCH": "INVALID_ARGUMENT",
    "NOT_FINITE": "INVALID_ARGUMENT",
    "TOO_MANY_ITEMS": "INVALID_ARGUMENT",
    "IMAGE_UNREADABLE": "INVALID_ARGUMENT",
    "IMAGE_UNSUPPORTED": "INVALID_ARGUMENT",
    "IMAGE_TOO_LARGE": "INVALID_ARGUMENT",
    "INTERVAL_MISMATCH": "INVALID_ARGUMENT",
    "MODEL_NOT_FOUND": "NOT_FOUND",
    "CAPABILITY_MISSING": "FAILED_PRECONDITION",
    "SPACE_MISMATCH": "FAILED_PRECONDITION",
}
"""The gRPC code of each reason for which the same request can never succeed."""


@dataclass(frozen=True)
class Row:
    """A request that cannot succeed, and what is said of it."""

    request: Any
    reason: str
    fields: tuple[str, ...]
    """Of BadRequest, in order; empty: there is none."""
    words: str
    """Part of the message."""

    @classmethod
    def of(cls, request: Any, reason: str, *fields: str, words: str = "") -> Self:
        """A row in one line."""
        return cls(request, reason, fields, words)

    def refused(self, worker: Caller) -> Told:
        """Ask, as request `r-1`."""
        rpc = type(self.request).__name__.removesuffix("Request")
        return worker.refused(rpc, self.request, x_request_id="r-1")


# ---------------------------------------------------------------- pictures


def png_header(height: int, width: int) -> bytes:
    """A PNG file of this size, as far as its header tells."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(b"\0" * 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


IMAGE = raw(picture())
SMALL = raw(picture(1, 8, 8))
NO_IMAGE = image_pb2.Image(encoded=b"hello")
CUT = image_pb2.Image(encoded=png(picture())[:-40])
GIF = image_pb2.Image(encoded=b"GIF89a" + b"\0" * 100)
LIAR = image_pb2.Image(raw=image_pb2.RawImage(height=10, width=10, data=b"\0" * 299))
FLAT = image_pb2.Image(raw=image_pb2.RawImage(height=0, width=10, data=b""))
WIDE = image_pb2.Image(encoded=png_header(5000, 5000))
HUGE = image_pb2.Image(raw=image_pb2.RawImage(height=5000, width=5000, data=b""))

# ---------------------------------------------------------------- requests

BLOCK, IMPORTANCE, TUBE = 2, 3, 4
CHANGE = 2


def options(**values: Any) -> call_pb2.RequestOptions:
    """What any request may say of itself."""
    return call_pb2.RequestOptions(**values)


def vector(**values: Any) -> call_pb2.VectorOptions:
    """How vectors shall come back."""
    return call_pb2.VectorOptions(**values)


def mask(**values: Any) -> reconstruct_pb2.Mask:
    """What to hide."""
    return reconstruct_pb2.Mask(**values)


def images(*found: Any, **request: Any) -> embed_pb2.EmbedImagesRequest:
    """Embed pictures; without any, one that is sound."""
    return embed_pb2.EmbedImagesRequest(images=found or [IMAGE], **request)


def texts(*found: str, **request: Any) -> embed_pb2.EmbedTextsRequest:
    """Embed texts; without any, one that is sound."""
    return embed_pb2.EmbedTextsRequest(texts=found or ["open"], **request)


def clips(frames: int = 4, **one: Any) -> embed_pb2.EmbedClipsRequest:
    """Embed one clip of equal frames."""
    return build(embed_pb2.EmbedClipsRequest, clips=[{"frames": [IMAGE] * frames, **one}])


def clip_of(*frames: Any, **request: Any) -> embed_pb2.EmbedClipsRequest:
    """Embed one clip of these frames."""
    return build(embed_pb2.EmbedClipsRequest, clips=[{"frames": frames}], **request)


def similar(left: Any, right: Any) -> embed_pb2.ComputeSimilarityRequest:
    """Compare two lists."""
    return embed_pb2.ComputeSimilarityRequest(left=left, right=right)


def fill(**request: Any) -> reconstruct_pb2.ReconstructRequest:
    """Fill something in."""
    return reconstruct_pb2.ReconstructRequest(**request)


def steps(values: Any = None, **more: Any) -> dict[str, Any]:
    """An action sequence to fill in."""
    return {"actions": floats(actions() if values is None else values), **more}


def pairs(count: int = 2, **request: Any) -> latent_action_pb2.PredictLatentActionsRequest:
    """Latent actions between equal frames at an asserted interval."""
    given = {"frames": [{"image": IMAGE}] * count, "interval": seconds(0.05), **request}
    return latent_action_pb2.PredictLatentActionsRequest(**given)


def timed(*times: float | None) -> latent_action_pb2.PredictLatentActionsRequest:
    """Latent actions between equal frames taken at these seconds."""
    request = latent_action_pb2.PredictLatentActionsRequest()
    for time in times:
        frame = request.frames.add(image=IMAGE)
        if time is not None:
            frame.captured_at.FromNanoseconds(round(time * 1e9))
    return request


def rollout(
    seen: int = 2, count: int = 3, steps: int = 8, **request: Any
) -> rollout_pb2.RolloutRequest:
    """Roll out `count` sequences of so many actions after equal frames, four actions apart."""
    drawn = np.random.default_rng(0).normal(size=(count, steps, 4))
    given: dict[str, Any] = {"frames": [IMAGE] * seen, "candidates": floats(drawn)}
    if seen > 1:
        given["past_actions"] = floats(np.zeros(((seen - 1) * 4, 4)))
    return rollout_pb2.RolloutRequest(**{**given, **request})
