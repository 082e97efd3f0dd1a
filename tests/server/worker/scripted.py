"""An engine that does what a test says."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import numpy as np
from tests.server.worker.serving import PATIENCE, Loop

from tectum_server.worker.jobs import (
    Content,
    Item,
    ItemOutput,
    Job,
    JobResult,
    ModelEntry,
    Operation,
    Renewal,
)
from tectum_server.worker.outlook import Outlook


class ScriptedEngine:
    """jobs.Engine that does what the test says; holds every job until then."""

    back_in = 1.0

    def __init__(self, loop: Loop, entries: Mapping[str, ModelEntry]) -> None:
        self.models: Mapping[str, ModelEntry] = dict(entries)
        self.begun: queue.Queue[Job] = queue.Queue()
        self.answer: Callable[[Job], JobResult | Exception] | None = None
        self.renewal: Renewal | None = None
        """Of the job that came last."""
        self.asked_back: list[str] = []
        self.control_expected = 0
        self.outlook: Outlook | None = None
        """What it tells of what it has to do."""
        self._loop = loop
        self._listeners: list[Callable[[], None]] = []
        self._changed = loop.call(asyncio.Event)

    def on_change(self, listener: Callable[[], None]) -> None:
        """As jobs.Engine."""
        self._listeners.append(listener)

    def off_change(self, listener: Callable[[], None]) -> None:
        """As jobs.Engine."""
        self._listeners.remove(listener)

    async def submit(self, job: Job, renewal: Renewal | None = None) -> JobResult:
        """Wait until there is an answer; then give it, or raise it."""
        self.renewal = renewal
        self.begun.put(job)
        while self.answer is None:
            await self._changed.wait()
        found = self.answer(job)
        if isinstance(found, Exception):
            raise found
        return found

    async def load_model(self, name: str, version: str, make_default: bool) -> ModelEntry:
        """As jobs.Engine; nothing is loaded here."""
        raise AssertionError(f"no test loads {name} into a scripted engine")

    async def unload_model(self, name: str) -> None:
        """As jobs.Engine; nothing is unloaded here."""
        raise AssertionError(f"no test unloads {name} from a scripted engine")

    def outlooks(self) -> tuple[Outlook | None]:
        """As jobs.Engine; what the test says."""
        return (self.outlook,)

    def want(self, name: str) -> None:
        """As jobs.Engine; noted in `asked_back`."""
        self.asked_back.append(name)

    def expect_control(self) -> None:
        """As jobs.Engine; counted in `control_expected`."""
        self.control_expected += 1

    def newest(self) -> tuple[Item, ...]:
        """Ask the job that came last for newer content, and wait until there is some."""
        return items_of(self.begin_newest().result(PATIENCE))

    def newest_now(self) -> tuple[Item, ...]:
        """The same, without waiting for it: none if there is none."""
        assert self.renewal is not None
        return items_of(self._loop.run(self.renewal.newest(patient=False)))

    def begin_newest(self) -> Future[Content | None]:
        """The same without waiting."""
        assert self.renewal is not None
        return self._loop.begin(self.renewal.newest(patient=True))

    def settle(self, taken: bool) -> None:
        """Say what became of it."""
        assert self.renewal is not None
        renewal = self.renewal
        self._loop.call(lambda: renewal.settled(taken))

    def answers(self, answer: Callable[[Job], JobResult | Exception] | None) -> None:
        """Answer what waits and what comes so; None: hold again."""

        def change() -> None:
            self.answer = answer
            self._changed.set()
            self._changed.clear()

        self._loop.call(change)

    def serves(self, entries: Mapping[str, ModelEntry]) -> None:
        """Announce other models."""

        def change() -> None:
            self.models = dict(entries)
            for listener in list(self._listeners):
                listener()

        self._loop.call(change)


def items_of(content: Content | None) -> tuple[Item, ...]:
    """What is newer; nothing if there is none."""
    return () if content is None else content.items


def zeros(job: Job) -> JobResult:
    """Vectors of ones; what a scripted engine answers to work on images and pairs."""
    nothing, no_pixels = np.zeros(0, np.float32), np.zeros(0, np.uint8)

    def answer(operation: Operation) -> ItemOutput:
        width = {"pooled": 32, "tokens": 32, "joint": 16}.get(getattr(operation, "vector", ""), 8)
        vector = np.ones(width, np.float32)
        pair = (vector, np.zeros(2, np.int64), nothing, no_pixels)
        rolled = (nothing, nothing, no_pixels)
        arrays = {"latent_actions": pair, "rollout": rolled}.get(operation.name, (vector,))
        return ItemOutput(arrays)

    outputs = tuple(answer(job.operation_of(index)) for index in range(len(job.items)))
    return JobResult("v", outputs, 0.0, 0.0, 1)
