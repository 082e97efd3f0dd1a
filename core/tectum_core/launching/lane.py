"""The way of a model's batches over a device, two of them at a time.

A batch is gathered in memory that copies reach by themselves, sent on one stream, computed on
another one by a recorded graph, and fetched on a third; the host waits for none of it. So one batch
is sent while another one is computed, and the device does not wait for the host to launch kernels.

All memory is there from the beginning and is used again and again: two slots, each with room for
the largest batch's inputs and outputs on both sides, and one input and output that all graphs
share, since one of them runs at a time.

Letters: B batch, n rows of it that are asked for, n ≤ B.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tectum_core.launching.device import Device, Event, Graph

__all__ = ["Flight", "Lane", "Program", "Row", "graph_sizes"]

_log = logging.getLogger(__name__)
_SLOTS = 2
_PATIENCE = 30.0
"""Seconds that closing waits for a batch to be fetched."""
_SAME = 0.9999
"""Cosine that each row of a graph's first answer has with what the same work gives unrecorded."""

_Found = TypeVar("_Found")
Row = NDArray[np.uint8] | NDArray[np.int64] | Tensor
"""One item's input: an array on the host, or a tensor that is on the device already."""


@dataclass(frozen=True, slots=True)
class Program:
    """What graphs are recorded of, one for each size of batch."""

    name: str
    example: Tensor
    """Of one row, on the host: its shape and type are all rows'."""
    forward: Callable[[Tensor], Tensor]
    """Rows [B, ...] on the device to float32[B, ...] there, each from its own row alone."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.example.nbytes


def graph_sizes(max_batch: int) -> list[int]:
    """Sizes of batch that graphs are recorded for: of any batch less than a third is padding.

    Powers of two, the middles between them, and the largest batch.
    """
    sizes = {max_batch}
    for power in range(max_batch.bit_length()):
        sizes |= {2**power, 3 * 2**power // 2}
    return sorted(size for size in sizes if size <= max_batch)


class Lane:
    """A model's graphs, and the memory that its batches pass through.

    Any thread may launch, and any other one fetch. All that cannot be recorded is left out, logged,
    and told by `without`.

    Args:
        device: where it is computed.
        made: what to record.
        sizes: of batches, ascending.
        model: for the log.

    Raises:
        torch.OutOfMemoryError, torch.AcceleratorError: there is no memory for what passes through
            it (`out_of_memory`), or the device is lost.
    """

    def __init__(
        self, device: Device, made: Sequence[Program], sizes: Sequence[int], model: str = ""
    ) -> None:
        self._device, self._sizes, self._model = device, list(sizes), model
        self._programs = {program.name: program for program in made}
        self._graphs: dict[tuple[str, int], Graph] = {}
        self._widths: dict[str, tuple[int, ...]] = {}
        self.without: dict[str, str] = {}
        """Why a program has no graphs, by its name."""
        self._launching, self._closed = threading.Lock(), False
        self._free: queue.Queue[_Slot] = queue.Queue()
        self._pool = device.pool()
        self._bytes_in = self.most * max((one.row_bytes for one in made), default=0)
        self._bytes_out = 0
        try:
            self._given, self._answer = device.memory(self._bytes_in), device.memory(0)
            self._measure()
            self._record()
            for _ in range(_SLOTS if self._graphs else 0):
                self._free.put(_Slot(device, self._bytes_in, self._bytes_out))
        except BaseException:
            with suppress(Exception):  # of a device that is lost nothing is freed
                self._pool.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """Programs that can be launched."""
        return tuple(name for name in self._programs if name in self._widths)

    @property
    def most(self) -> int:
        """Rows of the largest batch."""
        return self._sizes[-1]

    @property
    def memory(self) -> int:
        """Bytes that it holds on the device, beside the model's weights."""
        if self._closed:
            return 0
        slots = _SLOTS if self._graphs else 0
        return self._pool.memory + (1 + slots) * (self._bytes_in + self._bytes_out)

    def takes(self, name: str, count: int) -> bool:
        """Whether a batch of so many rows can be launched."""
        return not self._closed and name in self._widths and 0 < count <= self.most

    @torch.inference_mode()
    def launch(self, name: str, rows: Sequence[Row]) -> Flight | None:
        """Begin a batch, and do not wait for it, but for the one before the last to be fetched.

        Returns:
            What to fetch its answer from, which has to be done; None: it cannot be launched.

        Raises:
            ValueError: a row has another shape.
        """
        with self._launching:
            if not self.takes(name, len(rows)):
                return None
            slot = self._free.get()
            try:
                return self._launched(slot, self._programs[name], rows)
            except BaseException:
                self._free.put(slot)
                raise

    def close(self) -> None:
        """Free all of it, once what was launched has been fetched; nothing is launched any more.

        Raises:
            TimeoutError: it is not fetched within half a minute, and nothing is freed.
        """
        with self._launching:
            if self._closed:
                return
            self._closed = True
        try:
            for _ in range(_SLOTS if self._graphs else 0):
                self._free.get(timeout=_PATIENCE)
        except queue.Empty as error:
            raise TimeoutError(f"a batch of {self._model} was launched and not fetched") from error
        self._device.compute.mark().wait()
        self._graphs.clear()
        self._given = self._answer = torch.empty(0)
        self._pool.close()
        self._programs.clear()

    @torch.inference_mode()
    def _measure(self) -> None:
        """How large answers are; a program that does not even run is left out."""
        for name, program in self._programs.items():
            try:
                self._show(program, 1)
                answer = self._done(partial(program.forward, self._rows(program, 1)))
            except Exception as error:
                if self._device.lost(error):
                    raise
                self._leave_out(name, error)
            else:
                self._widths[name] = tuple(answer.shape[1:])
        widths = [math.prod(width) for width in self._widths.values()]
        self._bytes_out = 4 * self.most * max(widths, default=0)
        self._answer = self._device.memory(self._bytes_out)

    def _record(self) -> None:
        """Every program at every size, the largest first: what these leave, smaller ones use."""
        for name, program in self._programs.items():
            for size in reversed(self._sizes):
                if name not in self._widths:
                    break
                try:
                    self._graphs[name, size] = self._recorded(program, size)
                except Exception as error:
                    if self._device.lost(error):
                        raise
                    self._leave_out(name, error)

    @torch.inference_mode()
    def _recorded(self, program: Program, size: int) -> Graph:
        """A graph that was seen to answer as the work that it is of.

        Raises:
            Exception: it cannot be recorded.
            ArithmeticError: it answers otherwise.
        """
        answer = _view(self._answer, torch.float32, size, self._widths[program.name])

        def work() -> Tensor:
            return answer.copy_(program.forward(self._rows(program, size)))

        def replayed() -> Tensor:
            answer.zero_()
            graph.replay()
            return answer

        self._show(program, size)
        graph = self._pool.capture(work)
        wanted, found = (
            self._done(lambda run=run: run().clone()).cpu().flatten(1).double()  # type: ignore[misc]
            for run in (work, replayed)
        )
        cosine = float(F.cosine_similarity(found, wanted, dim=1).min())
        if not cosine >= _SAME:
            raise ArithmeticError(
                f"a graph for {size} answers with a cosine of {cosine:.5f} to what it was "
                f"recorded of, where {_SAME} is allowed"
            )
        return graph

    def _leave_out(self, name: str, error: Exception) -> None:
        why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        self._widths.pop(name, None)
        for key in [key for key in self._graphs if key[0] == name]:
            del self._graphs[key]
        self.without[name] = why
        extra = {"model": self._model, "operation": name, "reason": why}
        _log.warning("no graph: what cannot be recorded is launched kernel by kernel", extra=extra)

    def _launched(self, slot: _Slot, program: Program, rows: Sequence[Row]) -> Flight:
        """A batch on its way: those of the host first, then those that are there already."""
        device, count = self._device, len(rows)
        here = [place for place, row in enumerate(rows) if not isinstance(row, Tensor)]
        there = [place for place, row in enumerate(rows) if isinstance(row, Tensor)]
        present = [row for row in rows if isinstance(row, Tensor)]
        for row in rows:
            if tuple(row.shape) != tuple(program.example.shape):
                raise ValueError(
                    f"{program.name} takes rows of {tuple(program.example.shape)}, "
                    f"not {tuple(row.shape)}"
                )
        dtype, shape = program.example.dtype, tuple(program.example.shape)
        gathered, sent = (_view(one, dtype, len(here), shape) for one in (slot.given, slot.sent))
        into = gathered.numpy()
        for number, place in enumerate(here):
            np.copyto(into[number], rows[place])
        if here:
            device.upload.run(lambda: sent.copy_(gathered, non_blocking=True))
            device.compute.after(device.upload.mark())
        size = self._sizes[bisect_left(self._sizes, count)]
        graph, width = self._graphs[program.name, size], self._widths[program.name]
        own = self._rows(program, size)
        answers, found, fetched = (
            _view(one, torch.float32, count, width)
            for one in (self._answer, slot.answer, slot.fetched)
        )

        def compute() -> None:
            if here:
                own[: len(here)].copy_(sent)
            if present:
                own[len(here) : count].copy_(torch.stack(present))
            if count < size:  # what another program left there may be no input of this one
                own[count:].copy_(own[:1].expand_as(own[count:]))
            graph.replay()
            found.copy_(answers)

        device.compute.run(compute)
        device.download.after(device.compute.mark())
        device.download.run(lambda: fetched.copy_(found, non_blocking=True))
        return Flight(device.download.mark(), fetched, [*here, *there], slot, self._free, present)

    def _rows(self, program: Program, count: int) -> Tensor:
        """The first rows that graphs read."""
        return _view(self._given, program.example.dtype, count, tuple(program.example.shape))

    def _show(self, program: Program, count: int) -> None:
        """Put the example into so many."""
        rows = self._rows(program, count)
        self._done(lambda: rows.copy_(program.example.expand_as(rows)))

    def _done(self, work: Callable[[], _Found]) -> _Found:
        """What comes of work in the stream that computes."""
        found: list[_Found] = []
        self._device.compute.run(lambda: found.append(work()))
        self._device.compute.mark().wait()
        return found[0]


class _Slot:
    """The memory that one batch passes through."""

    def __init__(self, device: Device, bytes_in: int, bytes_out: int) -> None:
        self.given, self.fetched = device.pinned(bytes_in), device.pinned(bytes_out)
        self.sent, self.answer = device.memory(bytes_in), device.memory(bytes_out)


class Flight:
    """A batch that was launched."""

    def __init__(
        self,
        done: Event,
        fetched: Tensor,
        order: Sequence[int],
        slot: _Slot,
        free: queue.Queue[_Slot],
        held: object,
    ) -> None:
        self._done, self._fetched, self._order = done, fetched, order
        self._slot, self._free = slot, free
        self._held = held  # what is read from is not let go before

    def result(self) -> NDArray[np.float32]:
        """Wait for it; gives float32[n, ...] in the order given. To be called once.

        Raises:
            RuntimeError: the device has failed.
        """
        try:
            self._done.wait()
            fetched = self._fetched.numpy()
            answer = np.empty_like(fetched)
            answer[self._order] = fetched
        finally:
            self._held = None
            self._free.put(self._slot)
        return answer


def _view(memory: Tensor, dtype: torch.dtype, count: int, shape: tuple[int, ...]) -> Tensor:
    """The first rows of a piece of memory: dtype[count, *shape]."""
    size = count * math.prod(shape) * dtype.itemsize
    return memory[:size].view(dtype).view(count, *shape)
