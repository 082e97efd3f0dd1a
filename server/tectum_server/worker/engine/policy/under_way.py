"""Batches that the engine was given and has not finished: one that it computes, others behind it.

Pure bookkeeping, as `batching`. Times are whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tectum_server.worker.engine.policy.line import Waiting

__all__ = ["Ran", "UnderWay"]


@dataclass(slots=True, eq=False)
class _Begun:
    members: Sequence[Waiting]
    since_ms: int
    takes_ms: int


@dataclass(frozen=True, slots=True)
class Ran:
    """A batch that has ended."""

    members: Sequence[Waiting]
    took_ms: int
    """Of the engine's time: what it was computed behind is not in it."""


class UnderWay:
    """What the engine is at."""

    def __init__(self) -> None:
        self._batches: list[_Begun] = []
        self.since_ms = 0
        """When the engine began with what it computes now, or else has last computed."""

    @property
    def members(self) -> list[Waiting]:
        """Of all batches, in order."""
        return [member for batch in self._batches for member in batch.members]

    @property
    def requests(self) -> set[int]:
        """Of which something is in them."""
        return {one.request for one in self.members if one.request is not None}

    @property
    def until_ms(self) -> int:
        """When it will have finished all; 0: it has."""
        return self._batches[-1].since_ms + self._batches[-1].takes_ms if self._batches else 0

    def began(self, members: Sequence[Waiting], takes_ms: int, now_ms: int) -> None:
        """It was given one more."""
        if not self._batches:
            self.since_ms = now_ms
        self._batches.append(_Begun(members, max(self.until_ms, now_ms), takes_ms))

    def delayed(self, waits_ms: int) -> None:
        """The last one begins so much later, at most: it waits for what is newer."""
        if self._batches:
            self._batches[-1].takes_ms += waits_ms

    def ended(self, now_ms: int, *, last: bool = False) -> Ran | None:
        """It has finished the first batch; or the last one has come to nothing.

        Returns:
            The batch; None: there is none.
        """
        if not self._batches:
            return None
        batch = self._batches.pop(-1 if last else 0)
        if self._batches and not last:
            self._batches[0].since_ms = self.since_ms = now_ms
            for before, behind in pairwise(self._batches):
                behind.since_ms = before.since_ms + before.takes_ms
        return Ran(batch.members, max(now_ms - batch.since_ms, 0))
