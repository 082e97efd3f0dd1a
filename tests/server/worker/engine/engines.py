"""Engines on repositories of the tests' own, and what is asked of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry
from tests.bundles import picture, write_bare

from tectum_core.bundle import Repository
from tectum_server.worker.engine.local import EngineSettings, LocalEngine
from tectum_server.worker.jobs import EmbedImages, Item, ItemOutput, Job, JobResult, Priority
from tectum_server.worker.metrics import EngineMetrics


def engine_for(root: Path, *models: str) -> LocalEngine:
    settings = EngineSettings(str(root), models, max_batch=2)
    return LocalEngine(settings, EngineMetrics(CollectorRegistry()))


def newer(root: Path, tmp_path: Path, seed: int = 5) -> str:
    """Publish another version of `arm`."""
    write_bare(tmp_path / f"seed-{seed}", seed)
    return Repository(root).publish(tmp_path / f"seed-{seed}", "arm")


def job(model: str = "arm") -> Job:
    loop = asyncio.get_running_loop()
    return Job(
        model, EmbedImages("pooled"), (Item((picture(),)),), Priority.INTERACTIVE, loop.time() + 60
    )


def vector(result: JobResult) -> np.ndarray:
    output = result.outputs[0]
    assert isinstance(output, ItemOutput)
    return np.asarray(output.arrays[0])
