"""Engines on repositories of the tests' own, and what is asked of them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry
from safetensors.torch import load_file, save_file
from tests.bundles import picture, write_bare

from tectum_core.bundle import Repository
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.jobs import EmbedImages, Item, ItemOutput, Job, JobResult, Priority
from tectum_server.worker.metrics import EngineMetrics

Started = Callable[..., Awaitable[LocalEngine]]
"""Starts an engine on given models, with what its settings say otherwise."""
PATIENCE = 60.0
"""Seconds after which a test that waits has failed."""


def engine_for(root: Path, *models: str) -> LocalEngine:
    settings = EngineSettings(str(root), models, max_batch=2)
    return LocalEngine(settings, EngineMetrics(CollectorRegistry()))


def newer(root: Path, tmp_path: Path, seed: int = 5) -> str:
    """Publish another version of `arm`."""
    write_bare(tmp_path / f"seed-{seed}", seed)
    return Repository(root).publish(tmp_path / f"seed-{seed}", "arm")


def corrupt(root: Path, tmp_path: Path, what: str) -> str:
    """Publish a version of `arm` that cannot be served."""
    folder = tmp_path / "corrupt"
    write_bare(folder, 9)
    if what == "config":
        config = json.loads((folder / "config.json").read_text())
        config["model"]["vision"]["wings"] = 2
        (folder / "config.json").write_text(json.dumps(config))
    elif what == "golden":
        golden = load_file(folder / "golden.safetensors")
        golden["output/pooled"] += 0.1
        save_file(golden, folder / "golden.safetensors", metadata={"texts": "[]"})
    else:
        (folder / "model.safetensors").write_bytes(b"\0" * 100)
    return Repository(root).publish(folder, "arm")


def panicking(root: Path, tmp_path: Path, full_folder: Path, charsmap: str) -> str:
    """Publish a sound version of `arm` whose tokenizer makes the library panic.

    Args:
        root: the repository.
        tmp_path: where to make it.
        full_folder: of what.
        charsmap: `////fw==` panics as it is read, `AAAAAA==` as it reads a text.
    """
    folder = Path(shutil.copytree(full_folder, tmp_path / f"panicking-{charsmap[:1]}"))
    told = json.loads((folder / "tokenizer.json").read_text())
    told["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    (folder / "tokenizer.json").write_text(json.dumps(told))
    return Repository(root).publish(folder, "arm")


def job(model: str = "arm") -> Job:
    loop = asyncio.get_running_loop()
    return Job(
        model, EmbedImages("pooled"), (Item((picture(),)),), Priority.INTERACTIVE, loop.time() + 60
    )


def vector(result: JobResult) -> np.ndarray:
    output = result.outputs[0]
    assert isinstance(output, ItemOutput)
    return np.asarray(output.arrays[0])


def states(engine: LocalEngine) -> dict[str, str]:
    """Of each model."""
    return {name: entry.state for name, entry in engine.models.items()}


async def until(engine: LocalEngine, condition: Callable[[], bool]) -> None:
    """Look whenever the models have changed, until it is so."""
    changed = asyncio.Event()
    engine.on_change(changed.set)
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await changed.wait()
            changed.clear()
    engine.off_change(changed.set)
