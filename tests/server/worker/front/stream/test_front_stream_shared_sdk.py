"""Frames in shared memory as the SDK puts them there, before a front that gives some."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from tests.bundles import picture
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Fronted

import tectum

FIRST, SECOND, THIRD = (picture(seed, 40, 50) for seed in (1, 2, 3))


def frames_of(engine: ScriptedEngine) -> list[NDArray[np.uint8]]:
    """What the engine was asked, so far."""
    return [engine.begun.get(timeout=30).items[0].arrays[0] for _ in range(engine.begun.qsize())]


def test_the_sdk_shares_what_it_can_and_sends_the_rest(
    fronted: Callable[..., Fronted], engine: ScriptedEngine
) -> None:
    front = fronted(shared_memory_bytes=1 << 20)
    engine.answers(zeros)
    large = picture(5, 80, 90)  # than the first, by which places are measured
    shown = [FIRST, SECOND, large, THIRD, *([FIRST, SECOND] * 6)]
    with (
        tectum.Client(f"127.0.0.1:{front.port}") as client,
        client.stream(embed=True, send="shared") as stream,
    ):
        for pixels in shown:
            stream.send(tectum.Frame(pixels))
            assert next(stream).status == "ok"
        held = stream._conversation._places
        assert held is not None
        stream.finish()
        assert list(stream) == []

    for found, pixels in zip(frames_of(engine), shown, strict=True):
        np.testing.assert_array_equal(found, pixels)
    assert held._descriptor is None  # it lets go of the memory


def test_a_first_frame_that_is_too_large_costs_itself_alone(
    fronted: Callable[..., Fronted], engine: ScriptedEngine
) -> None:
    front = fronted(shared_memory_bytes=1 << 20, max_pixels=1000)
    engine.answers(zeros)
    with (
        tectum.Client(f"127.0.0.1:{front.port}") as client,
        client.stream(embed=True, send="shared") as stream,
    ):
        stream.send(tectum.Frame(FIRST))
        first = next(stream)
        stream.send(tectum.Frame(picture(6, 20, 20)))

        assert [first.status, next(stream).status] == ["failed", "ok"]


async def test_so_does_its_twin(fronted: Callable[..., Fronted], engine: ScriptedEngine) -> None:
    front = fronted(shared_memory_bytes=1 << 20)
    engine.answers(zeros)
    async with (
        tectum.AsyncClient(f"127.0.0.1:{front.port}") as client,
        client.stream(embed=True, send="shared") as stream,
    ):
        for pixels in (FIRST, SECOND, THIRD):
            stream.send(tectum.Frame(pixels))
            assert (await anext(stream)).status == "ok"
        assert stream._conversation._places is not None

    for found, pixels in zip(frames_of(engine), (FIRST, SECOND, THIRD), strict=True):
        np.testing.assert_array_equal(found, pixels)


def test_from_a_worker_that_gives_none_frames_travel_as_ever(
    front: Fronted, engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    with (
        tectum.Client(f"127.0.0.1:{front.port}") as client,
        client.stream(embed=True, send="shared") as stream,
    ):
        stream.send(tectum.Frame(FIRST))
        assert next(stream).status == "ok"
        assert stream._conversation._places is None

    np.testing.assert_array_equal(frames_of(engine)[0], FIRST)
