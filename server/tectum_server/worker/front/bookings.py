"""What this front's calls ask of the engine, from before their pictures are read to their answers.

A call that cannot be in time is refused here, as the engine would, before anything is decoded for
it. Pure bookkeeping: the caller says what the time is, and what the engines told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure, unreachable
from tectum_server.worker.front.call import Call
from tectum_server.worker.outlook import Asked, Outlook, done
from tectum_server.worker.shares import has_room, share

__all__ = ["Bookings"]


class Bookings:
    """Items under way in this front.

    Args:
        places: for so many; the higher classes keep theirs.
        missed: told the class of each call that is refused because it would be late.
    """

    def __init__(self, places: int, missed: Callable[[int], None] = lambda _: None) -> None:
        self._places = places
        self._missed = missed
        self.items = 0
        """Places that are taken."""
        self._under_way: dict[int, tuple[Asked, Call]] = {}

    @contextmanager
    def book(
        self,
        places: int,
        call: Call,
        items: Mapping[str, int],
        outlooks: Sequence[Outlook | None],
        now: float,
    ) -> Iterator[None]:
        """While a call is under way.

        Args:
            places: that it takes.
            call: whose.
            items: what it asks for first, by operation.
            outlooks: as `jobs.Engine.outlooks`.
            now: on the monotonic clock.

        Raises:
            Failure: QUEUE_FULL, or DEADLINE_UNREACHABLE.
        """
        if not has_room(self._places, self.items, places, call.priority):
            raise Failure(
                errors_pb2.ERROR_REASON_QUEUE_FULL,
                f"{self.items} items are waiting, at most {share(self._places, call.priority)} may",
            )
        entry = call.served.entry
        asked = Asked(f"{entry.name}@{entry.version}", items, call.priority, call.deadline)
        self._refuse_if_hopeless(asked, outlooks, now)
        self.items += places
        self._under_way[id(call)] = (asked, call)
        try:
            yield
        finally:
            self.items -= places
            del self._under_way[id(call)]

    def _refuse_if_hopeless(
        self, asked: Asked, outlooks: Sequence[Outlook | None], now: float
    ) -> None:
        unheard = ((other, call.sent) for other, call in self._under_way.values())
        moment = done(asked, outlooks, unheard, now)
        if moment is not None and moment > asked.deadline > now:
            left_ms, takes_ms = (round(1000 * (one - now)) for one in (asked.deadline, moment))
            after_ms = max(1, math.ceil(1000 * (moment - asked.deadline)))
            self._missed(asked.priority)
            raise unreachable(left_ms, takes_ms, after_ms)
