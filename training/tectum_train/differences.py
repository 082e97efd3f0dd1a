"""What is not the same in two trees of settings. Knows JSON, and no recipe.

A list's entries are named by their `kind`, as `--set` takes it, where each has one of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["differences", "differing", "kinds"]


def differences(old: Any, new: Any) -> Iterator[str]:
    """Every setting that is not the same in two trees of JSON: `dotted.key: old → new`."""
    for key, *values in differing(old, new):
        yield f"{key}: {' → '.join(json.dumps(one, ensure_ascii=False) for one in values)}"


def differing(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, old and new value of each setting that is not the same in both trees."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        own = kinds(old)
        names: Sequence[str | int] = own if own and own == kinds(new) else range(len(old))
        old, new = (dict(zip(names, entries, strict=True)) for entries in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            below = f"{path}.{key}" if path else str(key)
            yield from differing(old.get(key), new.get(key), below)
    elif old != new:
        yield path, old, new


def kinds(entries: Sequence[Any]) -> list[str] | None:
    """Each entry's `kind`; None where one has none, or shares it with another."""
    found = [one.get("kind") if isinstance(one, dict) else None for one in entries]
    named = [one for one in found if isinstance(one, str)]
    return named if len(set(named)) == len(entries) else None
