"""Who is let in although its own cost rules it out, to see what it takes now.

A refusal teaches nothing, and costs may have been learnt in a bad moment.

Pure bookkeeping, as `batching`. Times are whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Hashable, Set
from dataclasses import dataclass

__all__ = ["Probing"]

_PROBE_MS, _PROBE_COSTS = 1000, 10
"""So long, and so many times its cost, a key that is refused must not have run before a request is
let in to see: what then comes too late takes a tenth of the engine's time at most."""
_MOST_REFUSED = 512
"""As many keys as costs are known of."""


@dataclass(slots=True)
class _Refused:
    """A key that was refused, and has not run since."""

    since_ms: int
    ahead_ms: int
    """When a request that will ask for it was last let in, or the same."""


class Probing:
    """Keys that are refused."""

    def __init__(self) -> None:
        self._refused: dict[Hashable, _Refused] = {}

    def ran(self, key: Hashable) -> None:
        """A batch of it runs, and tells what it takes."""
        self._refused.pop(key, None)

    def lets_in(
        self,
        keys: Set[Hashable],
        alone_ms: float,
        waiting: Set[Hashable],
        now_ms: int,
        *,
        ahead: bool = False,
    ) -> bool:
        """Whether one is let in: one at a time, once none of its keys has run for long enough.

        Args:
            keys: that it would be refused for.
            alone_ms: what it costs.
            waiting: keys that wait already.
            now_ms: now.
            ahead: whether it asks for them only after what it asks for now.
        """
        for key in keys - self._refused.keys():
            if len(self._refused) >= _MOST_REFUSED:
                self._refused.pop(next(iter(self._refused)))
            self._refused[key] = _Refused(now_ms, now_ms)
        found = [self._refused.get(key, _Refused(now_ms, now_ms)) for key in keys]
        since_ms = max(one.ahead_ms if ahead else one.since_ms for one in found)
        if now_ms - since_ms < max(_PROBE_MS, _PROBE_COSTS * alone_ms) or keys & waiting:
            return False
        if ahead:
            for one in found:
                one.ahead_ms = now_ms
        return True
