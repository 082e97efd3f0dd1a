"""The bundle that comes with the package, `tectum-tiny`; importing this does not import torch."""

from __future__ import annotations

from pathlib import Path

__all__ = ["NAME", "repository"]

NAME = "tectum-tiny"
"""The embedded bundle's name."""


def repository() -> Path:
    """A repository that holds the embedded bundle."""
    return Path(__file__).parent
