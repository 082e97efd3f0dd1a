"""What is not the same in two trees of settings. Knows JSON, and no recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["differences", "differing"]


def differences(old: Any, new: Any) -> Iterator[str]:
    """Every setting that is not the same in two trees of JSON: `dotted.key: old → new`."""
    for key, *values in differing(old, new):
        yield f"{key}: {' → '.join(json.dumps(one, ensure_ascii=False) for one in values)}"


def differing(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, old and new value of each setting that is not the same in both trees."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            below = f"{path}.{key}" if path else str(key)
            yield from differing(old.get(key), new.get(key), below)
    elif old != new:
        yield path, old, new
