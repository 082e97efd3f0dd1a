"""Data sets that say of themselves how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def says(split: Path, options: Mapping[str, str]) -> None:
    """Have a data set say that it was made with these options."""
    path = split / "meta" / "world.json"
    command = " ".join(["python --out DIR", *(f"{k} {v}".rstrip() for k, v in options.items())])
    path.write_text(json.dumps({**json.loads(path.read_text()), "command": command}))
