"""Front and engine over a real Unix socket, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from tests.bundles import picture

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    EmbedImages,
    Engine,
    Item,
    ItemOutput,
    Job,
    JobResult,
    ModelEntry,
    Operation,
    Priority,
    Renewal,
)
from tectum_server.worker.link.connection import Connection
from tectum_server.worker.link.messages import FromEngine
from tectum_server.worker.link.remote import RemoteEngine
from tectum_server.worker.link.served import _Front, serve_engine
from tectum_server.worker.outlook import Outlook

MEMORY = 1 << 20
IMAGE, LATER = picture(1), picture(2)


class Panic(BaseException):
    """What a library that is written in Rust may raise."""


class HeldEngine:
    """An engine that answers when told, with what it was sent; knows what was withdrawn."""

    back_in = 1.0

    def __init__(self) -> None:
        self.models: Mapping[str, ModelEntry] = {"arm": ModelEntry("arm", "v1", "ready", True, b"")}
        self.free = asyncio.Event()
        self.begun: asyncio.Queue[Job] = asyncio.Queue()
        self.withdrawn: asyncio.Queue[Job] = asyncio.Queue()
        self.asked_back: asyncio.Queue[str] = asyncio.Queue()
        self.listeners: list[Callable[[], None]] = []
        self.says = ""
        self.outlook: Outlook | None = None
        self.control_expected = asyncio.Event()

    def on_change(self, listener: Callable[[], None]) -> None:
        self.listeners.append(listener)

    def off_change(self, listener: Callable[[], None]) -> None:
        self.listeners.remove(listener)

    @property
    def used(self) -> int:
        """Bytes booked in the response segments of the fronts that are connected."""
        listeners = cast("list[types.MethodType]", self.listeners)
        fronts = [cast("_Front", listener.__self__) for listener in listeners]
        return sum(front._arena.used for front in fronts)

    def tell(self, *names: str) -> None:
        self.models = {name: ModelEntry(name, "v1", "ready", False, b"") for name in names}
        for listener in self.listeners:
            listener()

    async def submit(self, job: Job, renewal: Renewal | None = None) -> JobResult:
        self.begun.put_nowait(job)
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.withdrawn.put_nowait(job)
            raise
        if job.model != "arm":
            raise Failure(errors_pb2.ERROR_REASON_QUEUE_FULL, "full", "", 2.5)
        outputs = tuple(
            ItemOutput(tuple(np.array(a) for a in item.arrays), text=self.says)
            for item in job.items
        )
        return JobResult("v1", outputs, 0.25, 0.5, len(outputs))

    async def load_model(self, name: str, version: str, make_default: bool) -> ModelEntry:
        if name == "broken":
            raise Failure(errors_pb2.ERROR_REASON_BUNDLE_REJECTED, "no good", "name")
        if name == "fault":
            raise ZeroDivisionError("inside")
        if name == "panic":
            raise Panic("inside")
        return ModelEntry(name, version, "ready", make_default, b"x", "# Card", {"pooled": "0f"})

    async def unload_model(self, name: str) -> None:
        raise Failure(errors_pb2.ERROR_REASON_MODEL_NOT_FOUND, f"no {name}", "name")

    def outlooks(self) -> tuple[Outlook | None]:
        return (self.outlook,)

    def want(self, name: str) -> None:
        self.asked_back.put_nowait(name)

    def expect_control(self) -> None:
        self.control_expected.set()


class Listening(RemoteEngine):
    """A front's end that does `then` in the very tick in which it hears the engine."""

    then: Callable[[], object] | None = None

    def _hear(self, link: Connection, message: FromEngine) -> None:
        super()._hear(link, message)
        if self.then is not None:
            self.then()


class Rig:
    """An engine behind a socket, and a front's end of it."""

    def __init__(
        self, path: Path, request_bytes: int = MEMORY, response_bytes: int = MEMORY
    ) -> None:
        self.path = path
        self.remote = Listening(path, request_bytes, response_bytes)
        self.serving: asyncio.Task[None] | None = None
        self.changed = asyncio.Event()
        self.remote.on_change(self.changed.set)

    def serve(self, engine: Engine) -> None:
        self.path.unlink(missing_ok=True)
        self.serving = asyncio.create_task(serve_engine(engine, self.path))

    async def hang_up(self) -> None:
        assert self.serving is not None
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)

    async def connected(self, connected: bool = True) -> None:
        """Wait until there are models, or none any more."""
        while bool(self.remote.models) is not connected:
            self.changed.clear()
            await self.changed.wait()

    async def close(self) -> None:
        await self.remote.close()
        await self.hang_up()

    @property
    def used(self) -> int:
        """Bytes booked in the request segment."""
        assert self.remote._link is not None
        return self.remote._link.arena.used


def job(
    *arrays: np.ndarray, model: str = "arm", operation: Operation | None = None, text: str = ""
) -> Job:
    deadline = asyncio.get_running_loop().time() + 60
    kind = operation or EmbedImages("pooled")
    return Job(model, kind, (Item(arrays, text),), Priority.INTERACTIVE, deadline)


async def failure(work: asyncio.Task[JobResult]) -> Failure:
    with pytest.raises(Failure) as caught:
        await work
    return caught.value


async def used_after_all(rig: Rig) -> int:
    """Memory in use after a round trip: what was said before it has been heard by then."""
    with contextlib.suppress(Failure):
        await rig.remote.unload_model("nobody")
    return rig.used
