"""A device that does nothing before somebody waits for it, and then in whatever order is allowed.

What CUDA promises and no more: a stream's work is done in its order, behind what it was told to
wait for. A lane that forgets to wait for something reads what is not there yet.
"""

from __future__ import annotations

import random
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from tectum_core.launching.device import Device, Event, Graph, Pool, Stream


class LateEvent:
    """Passed once all before it is done."""

    def __init__(self, device: LateDevice) -> None:
        self.passed = False
        self._device = device

    def wait(self) -> None:
        self._device.do_until(self)


class LateStream:
    """Steps that wait: what to do, what to pass, or what to be behind."""

    def __init__(self, device: LateDevice) -> None:
        self.steps: deque[Callable[[], object] | LateEvent | tuple[LateEvent]] = deque()
        self._device = device

    def run(self, work: Callable[[], object]) -> None:
        mode = torch.is_inference_mode_enabled()

        def step() -> None:
            with torch.inference_mode(mode):
                work()

        self.steps.append(step)

    def mark(self) -> LateEvent:
        event = LateEvent(self._device)
        self.steps.append(event)
        return event

    def after(self, event: Event) -> None:
        assert isinstance(event, LateEvent)
        self.steps.append((event,))

    @property
    def can_go_on(self) -> bool:
        head = self.steps[0] if self.steps else None
        return head is not None and (not isinstance(head, tuple) or head[0].passed)


class LateGraph:
    """Does its work again, if it may."""

    def __init__(self, pool: LatePool, work: Callable[[], object]) -> None:
        self._pool, self._work = pool, work

    def replay(self) -> None:
        assert not self._pool.closed, "a graph was replayed that was freed"
        assert self._pool.device.running is self._pool.device.compute, "not in the stream"
        self._pool.device.replays += 1
        self._work()
        self._pool.device.spoil()


class LatePool:
    """Counts what was recorded."""

    def __init__(self, device: LateDevice) -> None:
        self.device, self.closed, self.recorded = device, False, 0

    def capture(self, work: Callable[[], object]) -> Graph:
        self.device.before_capture()
        work()
        self.recorded += 1
        return LateGraph(self, work)

    @property
    def memory(self) -> int:
        return 1000 * self.recorded

    def close(self) -> None:
        self.closed, self.recorded = True, 0


class LateDevice:
    """Of the streams that can go on, chance says which does."""

    def __init__(self, seed: int = 0) -> None:
        self.upload, self.compute, self.download = (LateStream(self) for _ in range(3))
        self.running: LateStream | None = None
        self.done = self.replays = 0
        self.pools: list[LatePool] = []
        self.before_capture: Callable[[], object] = lambda: None
        """Called before each capture."""
        self.spoil: Callable[[], object] = lambda: None
        """Called after each replay."""
        self.failure: Exception | None = None
        """What any waiting ends with from now on."""
        self._memory: list[weakref.ref[Tensor]] = []
        self._chance, self._lock = random.Random(seed), threading.RLock()

    @property
    def held(self) -> int:
        """Bytes that somebody has of it, on both sides."""
        alive = (tensor for one in self._memory if (tensor := one()) is not None)
        return sum(tensor.nbytes for tensor in alive)

    def pinned(self, count: int) -> Tensor:
        return self.memory(count)

    def memory(self, count: int) -> Tensor:
        memory = torch.zeros(count, dtype=torch.uint8)
        self._memory.append(weakref.ref(memory))
        return memory

    def pool(self) -> Pool:
        self.pools.append(LatePool(self))
        return self.pools[-1]

    def lost(self, error: Exception) -> bool:
        return self.failure is not None

    def do_until(self, event: LateEvent) -> None:
        """Do this and that until an event has passed."""
        while not event.passed:
            with self._lock:
                if self.failure is not None:
                    raise self.failure
                if not event.passed:  # nor by who waited meanwhile
                    self._step()

    def _step(self) -> None:
        able = [one for one in (self.upload, self.compute, self.download) if one.can_go_on]
        assert able, "every stream waits for another one"
        self.running = self._chance.choice(able)
        step = self.running.steps.popleft()
        if isinstance(step, LateEvent):
            step.passed = True
        elif not isinstance(step, tuple):
            self.done += 1
            step()
        self.running = None


def as_device(late: LateDevice) -> Device:
    """For mypy: a stream of its own kind is a stream."""
    streams: tuple[Stream, ...] = (late.upload, late.compute, late.download)
    assert len(streams) == 3
    return cast("Device", late)
