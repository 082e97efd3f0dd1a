"""What several engines serve, told as if it were one that does. Pure bookkeeping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from tectum_server.worker.jobs import ModelEntry

__all__ = ["merged"]

_STATES = ("loading", "evicted", "failed")
"""Of a model that serves nowhere: what it is if it is that in any engine, the first that holds."""


def merged(
    catalogues: Sequence[Mapping[str, ModelEntry]], before: Mapping[str, ModelEntry]
) -> dict[str, ModelEntry]:
    """One catalogue of all models.

    While a version takes another one's place in one engine after the other, what is announced
    stays as long as no other version serves in more engines: an engine that comes back with an
    older one changes nothing for those who ask.

    Args:
        catalogues: of each engine; empty: it is away.
        before: what was announced last.
    """
    names = dict.fromkeys(name for catalogue in catalogues for name in catalogue)
    leader = next((catalogue for catalogue in catalogues if catalogue), {})
    found = dict[str, ModelEntry]()
    for name in names:
        entries = [catalogue[name] for catalogue in catalogues if name in catalogue]
        chosen = _chosen(entries, before.get(name))
        # Of a version that serves, an engine's failure to load it too is no rejection.
        serving = chosen.version if chosen.state == "ready" else None
        rejections = [
            entry.rejection
            for entry in (chosen, *entries)
            if entry.rejection is not None and entry.rejection.version != serving
        ]
        found[name] = msgspec.structs.replace(
            chosen,
            default=name in leader and leader[name].default,
            memory_bytes=sum(entry.memory_bytes for entry in entries),
            rejection=next(iter(rejections), None),
        )
    return found


def _chosen(entries: Sequence[ModelEntry], before: ModelEntry | None) -> ModelEntry:
    """Whichever engine's speaks for all."""
    ready = [entry for entry in entries if entry.state == "ready"]
    if not ready:
        return min(entries, key=lambda entry: _STATES.index(entry.state))
    counts = Counter(entry.version for entry in ready)
    most = max(counts.values())
    version = next(entry.version for entry in ready if counts[entry.version] == most)
    if before is not None and counts[before.version] == most:
        version = before.version
    return next(entry for entry in ready if entry.version == version)
