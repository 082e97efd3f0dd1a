"""What an engine is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["EngineSettings"]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What an engine is told at its start."""

    repository: str
    """Where bundles are; a folder or an fsspec URL."""
    models: tuple[str, ...]
    """Names to load, optionally `name@version`, the first the default; `*`: all others as well."""
    device: str = "cpu"
    """A torch device."""
    threads: int = 0
    """Torch's threads for one operator; 0: torch's own choice."""
    precision: Literal["float32", "bfloat16", "int8", "auto"] = "float32"
    """What trunks compute in."""
    compiled: bool = False
    """Whether by torch.compile; `auto` decides itself."""
    graphs: bool = True
    """Whether what embeds is recorded and replayed where the device can, a GPU."""
    max_batch: int = 32
    """Largest batch."""
    max_queued_items: int = 256
    """Items that may wait at once."""
    max_block_ms: int | None = None
    """As in `batching`."""
    calls_block_ms: int | None = None
    """As in `batching`."""
    kept_share: float = 0.05
    """As in `batching`."""
    compute_timeout: float = 30.0
    """Seconds that a batch may take, as in `scheduler`."""
    model_memory_bytes: int | None = None
    """Bytes that models' weights and graphs may take together; None: as many as they do."""
    watch: float = 0.0
    """Seconds between two looks at the repository; 0: nobody looks."""
    record: str = ""
    """File of what comes and what it takes, as `recording` writes it; empty: none."""
    asked: tuple[str, ...] | None = None
    """For an engine that replaces one that served `models`: what the worker was asked for, which
    stands in for what is there no more; what does not load at all is left out. None: all or none
    of `models`."""
