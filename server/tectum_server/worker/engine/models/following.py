"""What a worker that watches its repository makes of what it finds there. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from tectum_server.worker.jobs import ModelEntry

__all__ = ["ALL", "Asked", "Change", "changes"]

ALL = "*"
"""Among the models asked for: whatever else the repository has."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a worker was asked to serve."""

    named: tuple[str, ...]
    """`name` or `name@version`, the default first."""
    everything: bool
    """Whether what else the repository has is served too."""

    @classmethod
    def of(cls, models: Sequence[str]) -> Self:
        """Read what the settings say."""
        return cls(tuple(model for model in models if model != ALL), ALL in models)

    def follows(self, name: str) -> bool:
        """Whether the repository's latest version of a name is the one to serve."""
        return name in self.named or (self.everything and not self._pins(name))

    def asks_for(self, name: str) -> bool:
        """Whether a name was asked for by itself."""
        return name in self.named or self._pins(name)

    def _pins(self, name: str) -> bool:
        return any(one.partition("@")[0] == name for one in self.named if "@" in one)


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done about one name."""

    name: str
    what: Literal["load", "unload", "settle"]
    """`settle`: what serves is the latest again, and what was rejected need not be spoken of."""


def changes(
    asked: Asked, found: Mapping[str, str | None], entries: Mapping[str, ModelEntry]
) -> Iterator[Change]:
    """What to do so that what serves is what the repository has.

    A version that was rejected is not tried again until another one is the latest. A model that has
    made room is not brought back for this: it comes in its latest version when it is asked for.

    Args:
        asked: what the worker is to serve.
        found: the latest version of every name in the repository: empty where that says none, None
            where it is not known and nothing is to be done.
        entries: what it knows of.
    """
    for name, latest in found.items():
        if latest is None or not asked.follows(name):
            continue
        entry = entries.get(name)
        if entry is None:
            yield Change(name, "load")
        elif entry.state == "ready" and entry.version == latest:
            if entry.rejection is not None:
                yield Change(name, "settle")
        elif entry.rejection is not None and entry.rejection.version == latest:
            continue
        elif entry.state in ("ready", "failed"):
            yield Change(name, "load")
    for name, entry in entries.items():
        gone = name not in found and asked.follows(name) and not asked.asks_for(name)
        if gone and not entry.default:
            yield Change(name, "unload")
