"""Where this user's caches are: what can be made again, kept so that it need not be."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["user_cache"]


def user_cache(what: str) -> Path:
    """A folder for one kind of thing, by the XDG base directory specification; it may not exist."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tectum" / what
