"""The bundle: a folder that training writes and the worker serves.

`config` says what is in it, `files` reads and writes it, `spaces` names the spaces of
its vectors, `repository` keeps many of them under names and versions. What checks a
bundle against its golden outputs lives in `golden`, beside the predictor it needs.
"""

from tectum_core.bundle.config import BundleConfig, GoldenTolerance, Part, TrainingSummary
from tectum_core.bundle.files import (
    Bundle,
    BundleError,
    Examined,
    examine_bundle,
    memory_of,
    read_bundle,
    read_examined,
    write_bundle,
)
from tectum_core.bundle.repository import BundleNotFound, Repository
from tectum_core.bundle.spaces import Space, spaces_of

__all__ = [
    "Bundle",
    "BundleConfig",
    "BundleError",
    "BundleNotFound",
    "Examined",
    "GoldenTolerance",
    "Part",
    "Repository",
    "Space",
    "TrainingSummary",
    "examine_bundle",
    "memory_of",
    "read_bundle",
    "read_examined",
    "spaces_of",
    "write_bundle",
]
