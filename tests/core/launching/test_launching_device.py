"""What is asked of CUDA, written down by stand-ins for torch's classes; their doing is CUDA's."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tectum_core.launching import Lane, Program
from tectum_core.launching import device as device_module
from tectum_core.launching.device import Device, device_for


class Told:
    """What was called, in order, and in which stream."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.streams = 0
        self.current = "none"
        self.invalid = False
        """Whether what is recorded is so in vain, and ending it says nothing but that."""

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
        device_index = 0

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
            if told.invalid:
                raise torch.AcceleratorError("CUDA error: operation failed due to a previous error")

        def reset(self) -> None:
            told("reset")

    @contextmanager
    def stream(own: Stream) -> Iterator[None]:
        before, told.current = told.current, own.name
        try:
            yield
        finally:
            told.current = before

    pools = iter(range(7, 99))
    for name, what in {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "stream": stream,
        "graph_pool_handle": lambda: (0, next(pools)),
        "empty_cache": lambda: told("give back"),
        "memory_snapshot": lambda: [
            {"segment_pool_id": (0, 7), "total_size": 100},
            {"segment_pool_id": (0, 0), "total_size": 1000},
            {"segment_pool_id": (0, 7), "total_size": 20},
            {"segment_pool_id": (0, 8), "total_size": 3},
        ],
    }.items():
        monkeypatch.setattr(torch.cuda, name, what)
    monkeypatch.setattr(
        torch._C, "_cuda_endAllocateToPool", lambda device, pool: told(f"record no more to {pool}")
    )
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
        "give back in none",
        *["work in compute"] * 3,
        "event of compute awaited in none",
        "capture awaited in capture",
        "begin (0, 7) thread_local in capture",
        "work in capture",
        "end in capture",
    ]


def test_nothing_is_collected_while_work_is_recorded(cuda: Device) -> None:
    collects: list[bool] = []

    cuda.pool().capture(lambda: collects.append(gc.isenabled()))

    assert collects == [True, True, True, False]
    assert gc.isenabled()


def failing(*errors: Exception) -> Callable[[], None]:
    """Work that runs, and of which each recording fails by the next of these, then none."""
    left = list(errors)

    def work() -> None:
        if left and not gc.isenabled():
            raise left.pop(0)

    return work


def test_what_cannot_be_recorded_ends_its_capture_and_says_why(cuda: Device, told: Told) -> None:
    pool = cuda.pool()
    told.invalid = True

    with pytest.raises(RuntimeError, match="not permitted"):
        pool.capture(failing(RuntimeError("operation not permitted")))

    assert told.since()[-2:] == ["end in capture", "record no more to (0, 7) in capture"]
    assert gc.isenabled()


def test_after_what_cannot_be_recorded_others_are_in_a_pool_that_is_new(
    cuda: Device, told: Told
) -> None:
    pool = cuda.pool()
    pool.capture(lambda: None)
    with pytest.raises(RuntimeError, match="not permitted"):
        pool.capture(failing(RuntimeError("operation not permitted")))
    told.since()

    pool.capture(lambda: None)

    assert "begin (0, 8) thread_local in capture" in told.since()
    assert pool.memory == 123
    pool.close()
    assert [call.partition(" ")[0] for call in told.since()] == ["reset", "reset", "give"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
)
def test_where_memory_runs_out_what_is_cached_is_given_back_and_it_is_recorded_again(
    cuda: Device, told: Told, error: Exception
) -> None:
    pool = cuda.pool()
    told.since()

    pool.capture(failing(error))

    kinds = [call.partition(" ")[0] for call in told.since()]
    assert [kind for kind in kinds if kind in ("begin", "give")] == ["begin", "give", "begin"]


def test_where_memory_runs_out_again_it_is_not_recorded(cuda: Device) -> None:
    none = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    with pytest.raises(torch.OutOfMemoryError):
        cuda.pool().capture(failing(none, none))


def test_a_pools_memory_is_its_own_segments(cuda: Device) -> None:
    assert cuda.pool().memory == 120


def test_closing_frees_each_graph_once_and_gives_the_memory_back(cuda: Device, told: Told) -> None:
    pool = cuda.pool()
    for _ in range(2):
        pool.capture(lambda: None)
    told.since()

    pool.close()
    pool.close()

    kinds = [call.partition(" ")[0] for call in told.since()]
    assert kinds == ["reset", "reset", "give", "give"]


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


# ---------------------------------------------------------------- on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_what_cannot_be_recorded_leaves_the_allocator_and_others_as_they_were() -> None:
    def waiting(rows: torch.Tensor) -> torch.Tensor:
        return rows.float() * rows.sum().item()

    def twice(rows: torch.Tensor) -> torch.Tensor:
        return rows.float() * 2 + 1

    found = device_for(torch.device("cuda"))
    assert found is not None
    example = torch.arange(1, 4)

    lane = Lane(found, [Program("waits", example, waiting), Program("good", example, twice)], [1])

    assert lane.names == ("good",)
    assert "captur" in lane.without["waits"]
    flight = lane.launch("good", [example.numpy()])
    assert flight is not None
    assert flight.result().tolist() == [[3.0, 5.0, 7.0]]
    lane.close()
    torch.empty(2**28, dtype=torch.uint8, device="cuda")
    reserved = torch.cuda.memory_reserved()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= reserved - 2**28
