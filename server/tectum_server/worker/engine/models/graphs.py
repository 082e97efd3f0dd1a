"""Recorded graphs for a model that is about to serve, and their end.

What serves is what was held against the golden outputs: they are asked again of the graphs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tectum_core.golden import GoldenMismatch, GoldenReport, check_golden
from tectum_core.launching import embedding_lane
from tectum_core.predictor import Predictor

__all__ = ["recorded", "with_graphs", "without_graphs"]

_log = logging.getLogger(__name__)


def with_graphs(predictor: Predictor, max_batch: int) -> GoldenReport | None:
    """Let a predictor embed by graphs, where its device has such and they reproduce the bundle.

    Args:
        predictor: which reproduces it without.
        max_batch: the largest batch.

    Returns:
        How close they come; None: it goes on without.
    """
    predictor.lane = embedding_lane(predictor, max_batch)
    if predictor.lane is None:
        return None
    model = predictor.bundle.name
    try:
        report = check_golden(predictor)
    except GoldenMismatch as error:
        without_graphs(predictor)
        _log.warning("graphs do not suit a model", extra={"model": model, "reason": str(error)})
        return None
    extra = {"model": model, "bytes": predictor.lane.memory, "without": predictor.lane.without}
    _log.info("graphs recorded", extra=extra)
    return report


def without_graphs(predictor: Predictor) -> None:
    """Free a predictor's graphs, once what was launched has been fetched."""
    lane = predictor.lane
    if lane is None:
        return
    try:
        lane.close()
    except TimeoutError as error:
        _log.error("graphs are not freed", extra={"reason": str(error)})
    predictor.lane = None


@contextmanager
def recorded(predictor: Predictor, max_batch: int) -> Iterator[None]:
    """Let a predictor embed as it would if it served, for as long as this lasts."""
    predictor.lane = embedding_lane(predictor, max_batch)
    try:
        yield
    finally:
        without_graphs(predictor)
