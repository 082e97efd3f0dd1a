"""What is large is copied to the engine by a thread, and the event loop goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.server.worker.linked import IMAGE, LATER, HeldEngine, Rig, failure, job, used_after_all

from tectum.v1 import errors_pb2
from tectum_server.worker.link import arrays, connection, remote
from tectum_server.worker.link.arrays import ArrayRef
from tectum_server.worker.link.segment import Segment

PATIENCE = 30.0


class Copying:
    """Copies when told, and only one thing at a time."""

    def __init__(self, write: Callable[..., None]) -> None:
        self.begun = asyncio.Event()
        self.goes_on = threading.Event()
        self.threads: set[str] = set()
        self._write = write
        self._loop = asyncio.get_running_loop()

    def write(
        self, arrays: Sequence[NDArray[np.uint8]], refs: Sequence[ArrayRef], segment: Segment
    ) -> None:
        """As `arrays.write`."""
        self.threads.add(threading.current_thread().name)
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self.goes_on.wait(PATIENCE)
        self._write(arrays, refs, segment)


@pytest.fixture
async def copying(monkeypatch: pytest.MonkeyPatch) -> Copying:
    """Everything is large, and its copying is held."""
    held = Copying(arrays.write)
    monkeypatch.setattr(remote, "_AT_ONCE", 0)
    monkeypatch.setattr(connection, "write", held.write)
    return held


async def test_while_a_job_is_copied_the_loop_turns_and_then_the_engine_has_it(
    copying: Copying, held: tuple[Rig, HeldEngine]
) -> None:
    rig, engine = held
    asked = [asyncio.create_task(rig.remote.submit(job(one))) for one in (IMAGE, LATER)]
    await copying.begun.wait()
    waits = engine.begun.empty()

    copying.goes_on.set()
    came = [await engine.begun.get() for _ in asked]

    assert waits
    assert copying.threads == {"copy_0"}
    for one, found in zip((IMAGE, LATER), came, strict=True):
        np.testing.assert_array_equal(found.items[0].arrays[0], one)
    engine.free.set()
    assert [(await one).version for one in asked] == ["v1", "v1"]
    assert await used_after_all(rig) == 0


async def test_who_leaves_while_it_is_copied_gives_the_memory_back_once_it_is(
    copying: Copying, held: tuple[Rig, HeldEngine]
) -> None:
    rig, engine = held
    gone = asyncio.create_task(rig.remote.submit(job(IMAGE)))
    await copying.begun.wait()

    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    while_copied = rig.used
    copying.goes_on.set()
    while rig.used:
        await asyncio.sleep(0.001)

    assert gone.cancelled()
    assert while_copied > 0
    assert engine.begun.empty()
    assert rig.remote._link is not None
    assert rig.remote._link.waiting == {}


async def test_an_engine_that_dies_while_a_job_is_copied_is_away(
    copying: Copying, held: tuple[Rig, HeldEngine]
) -> None:
    rig, engine = held
    asked = asyncio.create_task(rig.remote.submit(job(IMAGE)))
    await copying.begun.wait()

    await rig.hang_up()
    await rig.connected(False)
    copying.goes_on.set()

    assert (await failure(asked)).reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
    rig.serve(engine)
    engine.free.set()
    await rig.connected()
    assert (await rig.remote.submit(job(LATER))).version == "v1"
