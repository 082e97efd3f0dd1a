"""What is asked of CUDA, written down by stand-ins for torch's classes; their doing is CUDA's."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tectum_core.launching import device as device_module
from tectum_core.launching.device import Device, device_for


class Told:
    """What was called, in order, and in which stream."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.streams = 0
        self.current = "none"

    def __call__(self, what: str) -> None:
        self.calls.append(f"{what} in {self.current}")

    def since(self) -> list[str]:
        """What was called since it was asked last."""
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.name = ("upload", "compute", "download", "capture")[told.streams]
            told.streams += 1

        def wait_event(self, event: Event) -> None:
            told(f"{self.name} waits for {event.of}")

        def synchronize(self) -> None:
            told(f"{self.name} awaited")

    class Event:
        def __init__(self, blocking: bool) -> None:
            assert blocking
            self.of = ""

        def record(self, stream: Stream) -> None:
            self.of = stream.name

        def synchronize(self) -> None:
            told(f"event of {self.of} awaited")

    class Graph:
        def capture_begin(self, pool: Any, capture_error_mode: str) -> None:
            told(f"begin {pool} {capture_error_mode}")

        def capture_end(self) -> None:
            told("end")

        def reset(self) -> None:
            told("reset")

    @contextmanager
    def stream(own: Stream) -> Iterator[None]:
        before, told.current = told.current, own.name
        yield
        told.current = before

    for name, what in {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "stream": stream,
        "graph_pool_handle": lambda: (0, 7),
        "memory_snapshot": lambda: [
            {"segment_pool_id": (0, 7), "total_size": 100},
            {"segment_pool_id": (0, 0), "total_size": 1000},
            {"segment_pool_id": (0, 7), "total_size": 20},
        ],
    }.items():
        monkeypatch.setattr(torch.cuda, name, what)
    return told


@pytest.fixture
def cuda(told: Told) -> Device:
    made = device_module._Cuda(torch.device("cpu"))
    told.since()
    return made


def test_work_is_given_to_its_stream_and_events_join_streams(cuda: Device, told: Told) -> None:
    cuda.upload.run(lambda: told("copy"))
    event = cuda.upload.mark()
    cuda.compute.after(event)
    event.wait()

    assert told.since() == [
        "copy in upload",
        "compute waits for upload in none",
        "event of upload awaited in none",
    ]


def test_work_is_recorded_on_a_stream_of_its_own_after_some_runs_in_the_one_that_computes(
    cuda: Device, told: Told
) -> None:
    cuda.pool().capture(lambda: told("work"))

    assert told.since() == [
        *["work in compute"] * 3,
        "event of compute awaited in none",
        "begin (0, 7) thread_local in capture",
        "work in capture",
        "end in capture",
    ]


def test_nothing_is_collected_while_work_is_recorded(cuda: Device) -> None:
    collects: list[bool] = []

    cuda.pool().capture(lambda: collects.append(gc.isenabled()))

    assert collects == [True, True, True, False]
    assert gc.isenabled()


def test_what_cannot_be_recorded_ends_its_capture_and_the_next_one_begins(
    cuda: Device, told: Told
) -> None:
    pool, runs = cuda.pool(), iter(range(4))

    def work() -> None:
        if next(runs) == 3:
            raise RuntimeError("operation not permitted")

    with pytest.raises(RuntimeError, match="not permitted"):
        pool.capture(work)

    assert told.since()[-1].startswith("end")
    assert gc.isenabled()
    pool.capture(lambda: None)
    pool.close()
    assert told.since()[-1].startswith("reset")


def test_a_pools_memory_is_its_own_segments(cuda: Device) -> None:
    assert cuda.pool().memory == 120


def test_closing_frees_each_graph_once(cuda: Device, told: Told) -> None:
    pool = cuda.pool()
    for _ in range(2):
        pool.capture(lambda: None)
    told.since()

    pool.close()
    pool.close()

    assert [call.partition(" ")[0] for call in told.since()] == ["reset", "reset"]


def test_all_lanes_of_a_device_have_the_same_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.device] = []

    class Stub:
        def __init__(self, device: torch.device) -> None:
            made.append(device)

    monkeypatch.setattr(device_module, "_Cuda", Stub)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    device_module._cuda.cache_clear()

    found = [device_for(torch.device(name)) for name in ("cuda:1", "cuda", "cuda:0", "cuda:1")]

    device_module._cuda.cache_clear()
    assert found[0] is found[1] is found[3]
    assert found[0] is not found[2]
    assert made == [torch.device("cuda", 1), torch.device("cuda", 0)]
