"""Whose fault it is that a batch fails: an item's, all of it, or the device's, which is lost."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import pytest
import torch

from tectum_core.predictor import Predictor
from tectum_server.worker.engine.computing import running
from tectum_server.worker.engine.computing.running import (
    launch_safely,
    prepare_safely,
    run_safely,
)
from tectum_server.worker.jobs import EmbedTexts, Item, ItemOutput, Operation

GPU = torch.device("cuda")
PREDICTOR = cast("Predictor", types.SimpleNamespace(device=GPU))
ERROR = torch.AcceleratorError("CUDA error: invalid configuration argument")
Work = list[tuple[Operation, Item]]


def work_of(*texts: str) -> Work:
    return [(EmbedTexts(), Item(text=text)) for text in texts]


def run(predictor: Predictor, batch: Sequence[tuple[Operation, Item]]) -> list[ItemOutput]:
    """An error of the device for what is odd."""
    if any(item.text == "odd" for _, item in batch):
        raise ERROR
    return [ItemOutput((np.ones(1, np.float32),)) for _ in batch]


def failing(*_: object) -> Callable[[], list[ItemOutput]]:
    """What fails as it is fetched."""
    return lambda: run(PREDICTOR, work_of("odd"))


def odd(*_: object) -> object:
    raise ERROR


@pytest.fixture(autouse=True)
def lost(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the device is; asked of its own errors alone."""
    is_lost = [False]

    def device_lost(error: Exception, device: torch.device) -> bool:
        assert (error, device) == (ERROR, GPU)
        return is_lost[0]

    monkeypatch.setattr(running, "device_lost", device_lost)
    monkeypatch.setattr(running, "run_batch", run)
    monkeypatch.setattr(running, "launch_batch", failing)
    monkeypatch.setattr(running, "prepared", odd)
    return is_lost


def test_one_item_that_a_device_will_not_compute_fails_alone() -> None:
    answers = run_safely(PREDICTOR, work_of("a", "odd", "b", "c"))

    assert [answer is ERROR for answer in answers.outputs] == [False, True, False, False]
    assert not answers.clean


def test_what_fails_as_it_is_prepared_or_fetched_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = launch_safely(PREDICTOR, work_of("odd", "b"))

    assert prepare_safely(Item(), PREDICTOR) is ERROR
    assert fetch is not None
    assert fetch().outputs == [ERROR, ERROR]
    monkeypatch.setattr(running, "launch_batch", odd)
    assert launch_safely(PREDICTOR, work_of("odd")) is None


@pytest.mark.parametrize(
    "begin",
    [
        lambda: run_safely(PREDICTOR, work_of("a", "odd")),
        lambda: prepare_safely(Item(), PREDICTOR),
        lambda: (launch_safely(PREDICTOR, work_of("odd")) or run_safely)(),  # type: ignore[call-arg]
    ],
    ids=["run", "prepare", "fetch"],
)
def test_a_device_that_is_lost_is_no_answer(begin: Callable[[], object], lost: list[bool]) -> None:
    lost[0] = True

    with pytest.raises(torch.AcceleratorError):
        begin()
