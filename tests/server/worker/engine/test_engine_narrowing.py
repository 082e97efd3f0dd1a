"""Which GPU an engine sees, by a table; what CUDA would make of it is told by a stand-in."""

from __future__ import annotations

import os

import pytest
import torch

from tectum_server.worker.engine.narrowing import left_to_see, see_only


@pytest.mark.parametrize(
    ("device", "visible", "left"),
    [
        ("cpu", None, None),
        ("cpu", "0,1", None),
        ("cuda", None, None),
        ("cuda", "3", None),
        ("cuda:0", None, "0"),
        ("cuda:3", None, "3"),
        ("cuda:0", "4,7", "4"),
        ("cuda:1", "4, 7", "7"),
        ("cuda:1", "GPU-8f2,GPU-a01", "GPU-a01"),
        ("cuda:0", "2,-1,5", "2"),
    ],
)
def test_an_engine_sees_its_own_gpu_of_those_that_are_seen(
    device: str, visible: str | None, left: str | None
) -> None:
    assert left_to_see(device, visible) == left


@pytest.mark.parametrize(
    ("device", "visible", "words"),
    [
        (
            "cuda:2",
            "4,7",
            "device 'cuda:2': allowed of CUDA_VISIBLE_DEVICES=4,7 is cpu or cuda:0 to cuda:1",
        ),
        ("cuda:1", "4", "device 'cuda:1': allowed of CUDA_VISIBLE_DEVICES=4 is cpu or cuda:0"),
        ("cuda:1", "2,-1,5", "device 'cuda:1': allowed of CUDA_VISIBLE_DEVICES=2,-1,5 is"),
        (
            "cuda:0",
            "",
            "device 'cuda:0': allowed of CUDA_VISIBLE_DEVICES= is cpu, for there is no GPU",
        ),
    ],
)
def test_what_is_not_seen_is_named_with_what_is(device: str, visible: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        left_to_see(device, visible)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with four."""

    def count() -> int:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2,3")
        return sum(one in ("0", "1", "2", "3") for one in visible.split(","))

    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", count)


@pytest.mark.parametrize(("visible", "left"), [(None, "2"), ("3,1,0", "0")])
@pytest.mark.usefixtures("gpus")
def test_from_then_on_it_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, left: str
) -> None:
    _set(monkeypatch, visible)

    assert see_only("cuda:2") == "cuda"

    assert os.environ["CUDA_VISIBLE_DEVICES"] == left


@pytest.mark.parametrize("device", ["cpu", "cuda", "gpu"])
@pytest.mark.usefixtures("gpus")
def test_what_names_no_gpu_by_its_number_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    _set(monkeypatch, None)

    assert see_only(device) == device

    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.usefixtures("gpus")
def test_a_number_beyond_the_machines_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _set(monkeypatch, None)

    with pytest.raises(ValueError, match="'cuda:4': allowed is cpu or cuda:0 to cuda:3"):
        see_only("cuda:4")

    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def _set(monkeypatch: pytest.MonkeyPatch, visible: str | None) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")  # to be as it was afterwards
    if visible is None:
        del os.environ["CUDA_VISIBLE_DEVICES"]
