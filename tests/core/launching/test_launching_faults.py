"""What an error of a device means, asked of stand-ins for CUDA."""

from __future__ import annotations

import pytest
import torch

from tectum_core.launching.faults import CAPTURING, device_lost, out_of_memory

ASSERT = torch.AcceleratorError("CUDA error: device-side assert triggered")
GPU, CPU = torch.device("cuda", 1), torch.device("cpu")


@pytest.mark.parametrize(
    ("error", "is_so"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (ASSERT, False),
        (RuntimeError("out of memory"), False),
    ],
)
def test_memory_runs_out_by_two_kinds_of_error(error: Exception, is_so: bool) -> None:
    assert out_of_memory(error) == is_so


@pytest.mark.parametrize("stays", [True, False])
def test_a_device_is_lost_if_waiting_for_it_fails_as_well(
    monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    waited: list[tuple[torch.device, bool]] = []

    def synchronize(device: torch.device) -> None:
        waited.append((device, CAPTURING.locked()))
        if stays:
            raise ASSERT

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)

    assert device_lost(ASSERT, GPU) == stays
    assert waited == [(GPU, True)]  # while nothing is recorded
    assert not CAPTURING.locked()


@pytest.mark.parametrize(("error", "device"), [(ASSERT, CPU), (RuntimeError("shape"), GPU)])
def test_no_processor_is_lost_and_no_device_by_an_error_of_torchs_own(
    monkeypatch: pytest.MonkeyPatch, error: Exception, device: torch.device
) -> None:
    def synchronize(device: torch.device) -> None:
        pytest.fail("waited for")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)

    assert not device_lost(error, device)
