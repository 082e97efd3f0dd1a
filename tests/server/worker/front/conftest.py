"""A front before a scripted engine, and streams to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.server.worker.serving import Camera, Fronted

from tectum.v1 import stream_pb2


@pytest.fixture
def front(fronted: Callable[..., Fronted]) -> Fronted:
    """A front with the usual settings."""
    return fronted()


@pytest.fixture
def camera(front: Fronted) -> Iterator[Callable[..., Camera]]:
    """Open streams to it; without a word, for vectors."""
    opened: list[Camera] = []

    def start(**setup: Any) -> Camera:
        asked = stream_pb2.StreamSetup(**{"embed": True, **setup})
        opened.append(Camera(front.client, asked))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
