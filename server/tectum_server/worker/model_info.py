"""`tectum_model_info`: what serves now, and nothing of what did.

Versions come without end, and prometheus-client's files for several processes never let go of a
label: each process writes what serves into a small file of its own instead, anew at every change.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

__all__ = ["ModelInfo", "SharedModelInfo", "forget_model_info"]

_log = logging.getLogger(__name__)
_Labels = tuple[str, ...]
"""Model, version, space id."""


class ModelInfo(Collector):
    """What this process says.

    Args:
        registry: where it is to be found.
        folder: where processes write; None: `registry` is what is scraped.
    """

    def __init__(self, registry: CollectorRegistry, folder: Path | None) -> None:
        self._serves: frozenset[_Labels] = frozenset()
        self._file = None if folder is None else _file(os.getpid(), folder)
        registry.register(self)

    def tell(self, serves: Iterable[_Labels]) -> None:
        """So much serves, and nothing else."""
        self._serves = frozenset(serves)
        if self._file is None:
            return
        draft = self._file.with_suffix(".draft")
        try:
            draft.write_text(json.dumps(sorted(self._serves)))
            draft.replace(self._file)
        except OSError as error:  # who asks a model need not know
            _log.warning("the metrics are not up to date", extra={"reason": str(error)})

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """As prometheus-client's collectors."""
        return [_told(())]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """As prometheus-client's collectors."""
        return [_told(self._serves)]


class SharedModelInfo(Collector):
    """What all living processes say, each thing once.

    Args:
        folder: where they write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """As prometheus-client's collectors."""
        return [_told(())]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """As prometheus-client's collectors."""
        serves = set[_Labels]()
        for file in self._folder.glob("model_info_*.json"):
            with suppress(FileNotFoundError):  # its process has ended meanwhile
                serves.update(map(tuple, json.loads(file.read_text())))
        return [_told(serves)]


def forget_model_info(pid: int, folder: Path) -> None:
    """Drop what a process said that is dead."""
    _file(pid, folder).unlink(missing_ok=True)


def _file(pid: int, folder: Path) -> Path:
    return folder / f"model_info_{pid}.json"


def _told(serves: Iterable[_Labels]) -> GaugeMetricFamily:
    found = GaugeMetricFamily(
        "tectum_model_info",
        "1 for each space of each model that serves.",
        labels=("model", "version", "space_id"),
    )
    for labels in sorted(serves):
        found.add_metric(labels, 1)
    return found
