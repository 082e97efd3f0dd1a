"""However a message is made, the front says that it lives while it reads the largest one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tests.server.worker.scripted import ScriptedEngine
from tests.server.worker.serving import Caller, Fronted, Told

HEALTH_CHECK = 5
"""Seconds that an image's HEALTHCHECK waits."""
LARGEST = 64 * 2**20


def tagged(number: int, content: bytes) -> bytes:
    """A field of bytes, as the wire has it."""
    size, length = b"", len(content)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def many(part: bytes) -> bytes:
    return part * ((LARGEST - 100) // len(part))


TEXT = tagged(2, b"a")
LARGE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "items": (
        "ComputeSimilarity",
        lambda: many(tagged(2, b"")) + tagged(3, TEXT),
        "TOO_MANY_ITEMS",
    ),
    "texts": ("EmbedTexts", lambda: many(tagged(2, b"")), "TOO_MANY_ITEMS"),
    "frames": ("EmbedClips", lambda: tagged(2, many(tagged(1, b""))), "TOO_MANY_ITEMS"),
    "clips": ("EmbedClips", lambda: many(tagged(2, b"")), "TOO_MANY_ITEMS"),
    "options": ("EmbedImages", lambda: many(tagged(1, b"")), "TOO_MANY_ITEMS"),
    "picture": (
        "EmbedImages",
        lambda: tagged(2, tagged(1, many(b"\0"))),
        "IMAGE_UNREADABLE",
    ),
    "filling before a header": (
        "EmbedImages",
        lambda: tagged(2, tagged(1, b"\xff\xd8" + many(b"\xff"))),
        "IMAGE_UNREADABLE",
    ),
    "mask": (
        "Reconstruct",
        lambda: tagged(2, tagged(2, b"\x08\x01")) + tagged(6, tagged(4, many(b"\1"))),
        "TOO_MANY_ITEMS",
    ),
    "unknown fields": ("EmbedImages", lambda: many(b"\xf8\x07\x01"), "TOO_MANY_ITEMS"),
}
"""Messages of the largest size whose making costs the sender little: what is said of them."""


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.slow
def test_the_front_says_that_it_lives_while_it_reads_the_largest_message(
    kind: str, fronted: Callable[..., Fronted], engine: ScriptedEngine
) -> None:
    front = fronted()
    rpc, body, wanted = LARGE[kind]
    health, told = Caller(front.port), list[Told]()
    content = body()
    assert health.health() == "SERVING"

    def send() -> None:
        call: Any = front.client.channel.unary_unary(f"/tectum.v1.PerceptionService/{rpc}")
        try:
            call(content, timeout=60)
        except grpc.RpcError as error:
            told.append(Told.of(error))

    sending = threading.Thread(target=send)
    sending.start()
    longest = 0.0
    while sending.is_alive():
        began = time.monotonic()
        assert health.health() == "SERVING"
        longest = max(longest, time.monotonic() - began)
    health.close()

    assert [one.reason for one in told] == [wanted]
    assert longest < HEALTH_CHECK
