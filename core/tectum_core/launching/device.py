"""What of a device a lane needs: streams, events, memory on both sides, and graphs.

Small, so that tests have another one that is as asynchronous as the device and forgives less.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from tectum_core.launching.faults import CAPTURING, device_lost, out_of_memory

__all__ = ["Device", "Event", "Graph", "Pool", "Stream", "device_for"]

_BEFORE_CAPTURE = 3
"""Runs before a capture: what is compiled, set up or chosen at first is so by then."""


class Event(Protocol):
    """A place in a stream's work."""

    def wait(self) -> None:
        """Return once all before it is done; other threads run meanwhile."""


class Stream(Protocol):
    """Work that is done in its order, beside other streams'."""

    def run(self, work: Callable[[], object]) -> None:
        """Have this done; it only enqueues, and nothing that it touches may be let go before."""

    def mark(self) -> Event:
        """Behind all that it was given so far."""

    def after(self, event: Event) -> None:
        """What it is given from now on waits for another stream's event."""


class Graph(Protocol):
    """Work that was recorded, and is launched as one."""

    def replay(self) -> None:
        """Do it again on the same memory; inside `Stream.run`."""


class Pool(Protocol):
    """Graphs that share the memory between their inputs and outputs: one of them runs at a time."""

    def capture(self, work: Callable[[], object]) -> Graph:
        """Record work, which is run a few times before.

        Raises:
            Exception: it cannot be recorded; as many kinds as there are.
        """

    @property
    def memory(self) -> int:
        """Bytes that they hold."""

    def close(self) -> None:
        """Free them and give their memory back; none of them runs any more."""


class Device(Protocol):
    """A device, as a lane sees it. Its streams are all lanes' together."""

    @property
    def upload(self) -> Stream:
        """Copies to the device."""

    @property
    def compute(self) -> Stream:
        """All that is computed, of all lanes."""

    @property
    def download(self) -> Stream:
        """Copies from it."""

    def pinned(self, count: int) -> Tensor:
        """uint8[count] on the host, which copies reach by themselves."""

    def memory(self, count: int) -> Tensor:
        """uint8[count] on the device, zeros."""

    def pool(self) -> Pool:
        """A pool without graphs."""

    def lost(self, error: Exception) -> bool:
        """Whether it does nothing any more, after an error."""


class _CudaStream:
    def __init__(self, device: torch.device) -> None:
        self.own = torch.cuda.Stream(device)

    def run(self, work: Callable[[], object]) -> None:
        with torch.cuda.stream(self.own):
            work()

    def mark(self) -> _CudaEvent:
        return _CudaEvent(self.own)

    def after(self, event: Event) -> None:
        if isinstance(event, _CudaEvent):
            self.own.wait_event(event.own)


class _CudaEvent:
    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.own = torch.cuda.Event(blocking=True)  # who waits leaves the processor to others
        self.own.record(stream)

    def wait(self) -> None:
        self.own.synchronize()


class _CudaPool:
    def __init__(
        self, device: torch.device, compute: _CudaStream, capture: torch.cuda.Stream
    ) -> None:
        self._device, self._compute, self._capture = device, compute, capture
        self._ids = [torch.cuda.graph_pool_handle()]
        self._graphs: list[torch.cuda.CUDAGraph] = []

    def capture(self, work: Callable[[], object]) -> Graph:
        for _ in range(_BEFORE_CAPTURE):
            self._compute.run(work)
        self._compute.mark().wait()
        try:
            return self._captured(work)
        except Exception as error:
            if not out_of_memory(error):
                raise
        # While it records, torch gives nothing back that it has cached for others.
        _give_back()
        return self._captured(work)

    def _captured(self, work: Callable[[], object]) -> torch.cuda.CUDAGraph:
        graph, pool = torch.cuda.CUDAGraph(), self._ids[-1]
        with CAPTURING, torch.cuda.stream(self._capture):
            _set_up_products(self._device)
            self._capture.synchronize()
            try:
                # Other threads serve meanwhile: what they do must not break what this one records.
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                with _nothing_collected():
                    work()
                graph.capture_end()
            except BaseException:  # which is the reason; what ending it says is not
                with suppress(Exception):
                    graph.capture_end()
                with suppress(Exception):  # torch before its #180395 goes on recording else
                    device = self._capture.device_index
                    torch._C._cuda_endAllocateToPool(device, pool)  # noqa: SLF001
                # Nobody may share a pool that all graphs have left, as the failed one may have.
                self._ids.append(torch.cuda.graph_pool_handle())
                raise
        self._graphs.append(graph)
        return graph

    @property
    def memory(self) -> int:
        segments, own = torch.cuda.memory_snapshot(), set(map(tuple, self._ids))
        return sum(one["total_size"] for one in segments if tuple(one["segment_pool_id"]) in own)

    def close(self) -> None:
        with CAPTURING:
            for graph in self._graphs:
                graph.reset()
        self._graphs.clear()
        _give_back()


class _Cuda:
    """All that is recorded is so on one stream, on which nothing else runs.

    A matrix product may use scratch memory that belongs to the stream which it was recorded on and
    the thread which did so, the same for all graphs: they run in one stream.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.upload, self.compute, self.download = (_CudaStream(device) for _ in range(3))
        self._capture = torch.cuda.Stream(device)

    def pinned(self, count: int) -> Tensor:
        with torch.cuda.device(self._device):
            return torch.zeros(count, dtype=torch.uint8, pin_memory=True)

    def memory(self, count: int) -> Tensor:
        zeros = torch.zeros(count, dtype=torch.uint8, device=self._device)
        # The streams above do not wait for the one that this is done on.
        torch.cuda.current_stream(self._device).synchronize()
        return zeros

    def pool(self) -> Pool:
        _give_back()
        return _CudaPool(self._device, self.compute, self._capture)

    def lost(self, error: Exception) -> bool:
        return device_lost(error, self._device)


def _set_up_products(device: torch.device) -> None:
    """Let products have their scratch memory in this thread and stream: it outlasts any graph."""
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.ones(16, 16, dtype=dtype, device=device)
        torch.addmm(square[0], square, square) + square @ square


def _give_back() -> None:
    """Return to the driver what torch has cached and nobody uses."""
    with CAPTURING:
        torch.cuda.empty_cache()


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """A graph or an event that is found to be garbage and freed would break what is recorded."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def device_for(device: torch.device) -> Device | None:
    """What a lane needs of a device; None: it has no such thing, and is not asynchronous."""
    if device.type != "cuda":
        return None
    return _cuda(torch.cuda.current_device() if device.index is None else device.index)


@cache  # torch has 32 streams of a device, and gives them out in turns
def _cuda(index: int) -> Device:
    return _Cuda(torch.device("cuda", index))
