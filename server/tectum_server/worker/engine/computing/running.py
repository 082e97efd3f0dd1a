"""Prepares items, and runs or launches a batch, so that one bad item fails alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from tectum_core.launching.faults import device_lost
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.computing.operations import launch_batch, run_batch
from tectum_server.worker.engine.computing.pictures import prepared
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Item, ItemOutput, Operation

__all__ = ["Answers", "launch_safely", "prepare_safely", "run_safely"]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What came of a batch."""

    outputs: list[ItemOutput | Exception]
    clean: bool
    """Whether it ran as one batch, all of it; what it took says nothing of others else."""


def prepare_safely(item: Item, predictor: Predictor) -> Item | Exception:
    """The item prepared, or why it cannot be.

    Raises:
        torch.AcceleratorError: as `run_safely`.
    """
    try:
        return prepared(item, predictor)
    except Exception as error:
        if device_lost(error, predictor.device):
            raise
        return error


def run_safely(predictor: Predictor, work: list[tuple[Operation, Item]]) -> Answers:
    """Run a batch; if it fails, run its halves, so that one bad item fails alone.

    One bad item costs the others about two more batches: the first, then ever smaller halves.

    Raises:
        torch.AcceleratorError: the device is lost, for this process for good (`device_lost`).
    """
    try:
        outputs = run_batch(predictor, work)
    except Exception as error:
        if device_lost(error, predictor.device):
            raise
        if len(work) == 1:
            return Answers([error], clean=False)
    else:
        return _answers(outputs)
    half = len(work) // 2
    halves = [run_safely(predictor, part) for part in (work[:half], work[half:])]
    return Answers([output for part in halves for output in part.outputs], clean=False)


def launch_safely(
    predictor: Predictor, work: list[tuple[Operation, Item]]
) -> Callable[[], Answers] | None:
    """Begin a batch on a device that computes by itself.

    Returns:
        What waits for its answers, and has to be called; it raises as `run_safely`. None: it is for
        that, which finds out whose fault it is.

    Raises:
        torch.AcceleratorError: as `run_safely`.
    """
    try:
        fetch = launch_batch(predictor, work)
    except Exception as error:
        if device_lost(error, predictor.device):
            raise
        return None
    return None if fetch is None else partial(_fetched, fetch, len(work), predictor.device)


def _fetched(
    fetch: Callable[[], Sequence[ItemOutput | Failure]], count: int, device: torch.device
) -> Answers:
    """What came of a batch that was launched, or for each of so many why nothing did."""
    try:
        return _answers(fetch())
    except Exception as error:
        if device_lost(error, device):
            raise
        return Answers([error] * count, clean=False)


def _answers(outputs: Sequence[ItemOutput | Failure]) -> Answers:
    return Answers(list(outputs), clean=not any(isinstance(o, Failure) for o in outputs))
