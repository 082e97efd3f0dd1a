"""The recipes that come with the package, one YAML file each, by name.

Light on purpose: listing them needs neither torch nor a check of what they say.
"""

from __future__ import annotations

from pathlib import Path

import yaml

__all__ = ["RENAMED", "descriptions", "named"]

RENAMED = {"latent-action": "latent-action-small"}
"""What recipes are called now, by what they were called in older versions."""

_FOLDER = Path(__file__).parent


def named() -> dict[str, Path]:
    """Each recipe's name and file, by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}


def descriptions() -> dict[str, str]:
    """Each recipe's name and what it says of itself."""
    return {
        name: yaml.safe_load(path.read_text(encoding="utf-8"))["description"].strip()
        for name, path in named().items()
    }
