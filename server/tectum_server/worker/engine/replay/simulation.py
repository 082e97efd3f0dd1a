"""Arrivals before the batching policy, as fast as it keeps its books: who is answered, and when.

For trying rules and limits on recorded or invented arrivals (`benchmarks/replay.py`), and for tests
that would take minutes of sleeping otherwise. An engine that does one batch at a time is assumed,
beside it one that does one preparation at a time, and nothing else: no decoding, no transport, no
clock. Live streams are `cameras`: whoever runs gives its newest frame as its batch begins, or, if
reading it takes time, is asked for it before (`looking`); what it lacks then is prepared by the
engine itself. Times are whole milliseconds.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from tectum_server.worker.engine.policy.asking import Needs
from tectum_server.worker.engine.policy.batching import Batch, Batching, Reason, Refused, Waiting
from tectum_server.worker.engine.policy.cost import Preparation
from tectum_server.worker.engine.replay.arrivals import Arrival, Told
from tectum_server.worker.engine.replay.cameras import Stream
from tectum_server.worker.engine.replay.looking import Looking

__all__ = ["simulate"]


def simulate(
    policy: Batching,
    arrivals: Iterable[Arrival],
    takes_ms: Callable[[Hashable, int], float],
    observe: Callable[[Hashable, int, float], None] = lambda *_: None,
    streams: Sequence[Stream] = (),
    prepares_ms: Callable[[Preparation], float] = lambda one: one.size,
    reads_ms: float | None = None,
) -> list[Told]:
    """Let arrivals come, and the engine run what the policy says, until nothing is left.

    Args:
        policy: empty, and driven as the scheduler drives it.
        arrivals: by time.
        takes_ms: what a batch of so many items of a key takes indeed.
        observe: told of each batch and preparation when it ends; `CostModel.observe`, where costs
            are learnt.
        streams: that are open beside; what becomes of their frames is told there.
        prepares_ms: what a preparation takes indeed.
        reads_ms: what reading a newer frame of a stream takes, for whose place it is asked; None:
            it is there at once, and asked for as the batch begins.

    Returns:
        What became of each arrival, in order.

    Raises:
        ValueError: an arrival is earlier than the one before it.
    """
    day = _Day(policy, takes_ms, observe, prepares_ms, streams, reads_ms)
    for arrival in arrivals:
        day.until(arrival.at_ms)
        day.come(arrival)
    day.until(None)
    return day.told


@dataclass(slots=True)
class _Running:
    """A batch on the engine."""

    key: Hashable
    items: tuple[int, ...]
    took_ms: float


class _Day:
    def __init__(
        self,
        policy: Batching,
        takes_ms: Callable[[Hashable, int], float],
        observe: Callable[[Hashable, int, float], None],
        prepares_ms: Callable[[Preparation], float],
        streams: Sequence[Stream],
        reads_ms: float | None,
    ) -> None:
        self.told: list[Told] = []
        self._policy = policy
        self._takes_ms = takes_ms
        self._observe = observe
        self._prepares_ms = prepares_ms
        self._prepared_ms: int | None = None
        """When the preparation under way ends."""
        self._under_way: int | None = None
        """Its item."""
        self._preparation: Preparation | None = None
        self._lacking: set[int] = set()
        """Items that need a preparation, and have not had it with the content of now."""
        self._now_ms = 0
        self._running: _Running | None = None
        self._beginning: Batch | None = None
        """Waits for its members' newest frames, before it runs."""
        self._wakes_ms: int | None = None
        """When the engine is free, or its pause is over."""
        self._requests: dict[int, int] = {}
        """Of each item that waits or runs, its request's place in `told`."""
        self._left: dict[int, set[int]] = {}
        """Items that each request under way has left to do."""
        self._leaving: list[tuple[int, int]] = []
        """When callers hang up, and on which request."""
        self._numbers = 0
        self._places: dict[int, Stream] = {}
        """Of each stream's item that waits or runs, the stream."""
        self._streams = streams
        self._looking: Looking | None = None
        if reads_ms is not None:
            self._looking = Looking(self._places, reads_ms, self._lacks, self._changed)
        self._frames: list[tuple[int, int]] = []
        """When streams' next frames are captured, and which streams'."""
        for number in range(len(streams)):
            self._film(number)

    def come(self, arrival: Arrival) -> None:
        """It is now, and a request comes."""
        told, request = Told(arrival), len(self.told)
        self.told.append(told)
        items = [
            Waiting(
                self._numbers + place,
                key,
                arrival.priority,
                arrival.at_ms + arrival.patience_ms,
                request,
                preparation=arrival.preparation,
            )
            for place, key in enumerate(arrival.keys)
        ]
        verdict = self._policy.admit(items, self._now_ms)
        if isinstance(verdict, Refused):
            told.reason = verdict.reason
            return
        self._numbers += len(items)
        self._left[request] = {item.item for item in items}
        self._requests |= dict.fromkeys(self._left[request], request)
        if arrival.preparation is not None:
            self._lacking |= self._left[request]
        if arrival.leaves_after_ms is not None:
            heapq.heappush(self._leaving, (arrival.at_ms + arrival.leaves_after_ms, request))
        if self._free:
            self._serve()
        self._prepare()

    def until(self, end_ms: int | None) -> None:
        """Let all happen that happens before a moment; None: until nothing waits."""
        if end_ms is not None and end_ms < self._now_ms:
            raise ValueError(f"an arrival at {end_ms} ms comes after one at {self._now_ms} ms")
        while (next_ms := self._next_ms()) is not None and (end_ms is None or next_ms <= end_ms):
            self._now_ms = next_ms
            while self._leaving and self._leaving[0][0] <= next_ms:
                self._forget(heapq.heappop(self._leaving)[1])
            while self._frames and self._frames[0][0] <= next_ms:
                self._capture(heapq.heappop(self._frames)[1])
            self._look()
            self._end_preparing()
            if self._wakes_ms is not None and self._wakes_ms <= next_ms:
                self._wakes_ms = None
                self._finish()
                self._serve()
            self._prepare()
        if end_ms is not None:
            self._now_ms = end_ms

    def _next_ms(self) -> int | None:
        """When something happens next by itself."""
        leaves = self._leaving[0][0] if self._leaving else None
        frame = self._frames[0][0] if self._frames else None
        look = None if self._looking is None else self._looking.next_ms
        moments = (self._wakes_ms, self._prepared_ms, leaves, frame, look)
        return min((at for at in moments if at is not None), default=None)

    def _capture(self, number: int) -> None:
        """A stream's camera has one more frame, and asks for a place if it has none."""
        stream = self._streams[number]
        stream.capture()
        self._film(number)
        self._ask(stream)
        if self._free:
            self._serve()

    def _film(self, number: int) -> None:
        """A stream's next frame is to come, if there is one."""
        next_ms = self._streams[number].next_ms
        if next_ms is not None:
            heapq.heappush(self._frames, (next_ms, number))

    def _ask(self, stream: Stream) -> None:
        """Ask for a place for the next frame of a stream that has none, if one waits."""
        while (waiting := stream.place(self._numbers, self._now_ms)) is not None:
            captured_ms = waiting.deadline_ms - stream.camera.lifespan_ms
            verdict = self._policy.admit([waiting], self._now_ms, captured_ms)
            if isinstance(verdict, Refused):
                stream.refused(verdict.reason)
                continue
            self._places[waiting.item] = stream
            self._numbers += 1
            if waiting.preparation is not None:
                self._lacking.add(waiting.item)

    def _renew(self, items: Iterable[int]) -> None:
        """Let the places be for their streams' newest frames."""
        for item in items:
            place = self._places.get(item)
            deadline_ms = None if place is None else place.renew(self._now_ms)
            if deadline_ms is not None:
                self._changed(item, deadline_ms)

    def _changed(self, item: int, deadline_ms: int) -> None:
        """A place is for a newer frame, which is stale then."""
        needs = self._needs(item)
        self._policy.renew({item: needs}, deadline_ms)
        if needs is not None:
            self._lacking.add(item)

    def _lacks(self, item: int) -> Needs:
        """What is to be prepared of an item."""
        needs = self._needs(item)
        stale = item in self._places and self._places[item].too_old(self._now_ms)
        takes_ms = 0.0 if needs is None else self._prepares_ms(needs)
        return Needs(takes_ms, item in self._lacking and not stale)

    def _needs(self, item: int) -> Preparation | None:
        """What is to be done to an item before it can run."""
        if item in self._places:
            return self._places[item].camera.preparation
        return self.told[self._requests[item]].arrival.preparation

    def _give_up(self, item: int) -> None:
        """The frame of a stream's place is stale."""
        if self._looking is not None:
            self._looking.withdraw((item,), self._now_ms)
        stream = self._places.pop(item)
        self._lacking.discard(item)
        stream.refused(Reason.DEADLINE_PASSED)
        self._ask(stream)

    def _forget(self, request: int) -> None:
        """Nobody waits for its answer any more."""
        left = self._left.pop(request, set())
        self._policy.cancel(left)
        self._lacking -= left
        for item in left:
            self._requests.pop(item, None)

    def _prepare(self) -> None:
        """Begin the next preparation, if none is under way; a stale frame needs none."""
        while self._prepared_ms is None:
            self._expire()
            begun = self._policy.begin_preparing(self._now_ms)
            if begun is None:
                return
            if begun.dropped is not None:
                self._lacking.add(begun.dropped)
            stream = self._places.get(begun.item)
            if stream is not None and stream.too_old(self._now_ms):
                self._policy.end_preparing()
                if self._free:
                    self._serve()
                continue
            self._under_way, self._preparation = begun.item, self._needs(begun.item)
            took = self._prepares_ms(self._preparation) if self._preparation else 0.0
            self._prepared_ms = self._now_ms + max(1, math.ceil(took))

    def _end_preparing(self) -> None:
        """The preparation has ended, if its time has come."""
        if self._prepared_ms is None or self._prepared_ms > self._now_ms:
            return
        item, self._under_way, self._prepared_ms = self._under_way, None, None
        if self._preparation is not None:
            took_ms = self._prepares_ms(self._preparation)
            self._observe(self._preparation.kind, self._preparation.size, took_ms)
        if self._policy.end_preparing() and item is not None:
            self._lacking.discard(item)
        if self._free:
            self._serve()

    def _expire(self) -> None:
        """What is late waits no longer."""
        late = self._policy.expire(self._now_ms)
        for request in {self._requests[item] for item in late if item not in self._places}:
            self.told[request].reason = Reason.DEADLINE_PASSED
            self._forget(request)
        for item in late:
            if item in self._places:
                self._give_up(item)

    def _finish(self) -> None:
        """The batch has ended, if one ran."""
        ran, self._running = self._running, None
        if ran is None:
            return
        if self._looking is not None:
            self._looking.ended(self._now_ms)
        self._policy.idle(self._now_ms)
        self._observe(ran.key, len(ran.items), ran.took_ms)
        for item in ran.items:
            if item in self._places:
                stream = self._places.pop(item)
                stream.answered(self._now_ms)
                self._ask(stream)
                continue
            request = self._requests.pop(item, None)
            if request is None:  # its caller has gone
                continue
            self._left[request].discard(item)
            if not self._left[request]:
                del self._left[request]
                self.told[request].answered_ms = self._now_ms
        if self._looking is None:  # who runs next was asked for what is newer while this ran
            self._renew(self._policy.upcoming(self._now_ms))

    def _serve(self) -> None:
        """Give a free engine its next batch, as the scheduler does."""
        beginning, self._beginning = self._beginning, None
        if beginning is not None and self._begin(beginning):
            return
        self._expire()
        pause = self._policy.pause(self._now_ms)
        if pause:
            self._wakes_ms = self._now_ms + pause
            return
        while (batch := self._policy.next_batch(self._now_ms)) is not None:
            if self._waits(batch) or self._begin(batch):
                return
        self._wakes_ms = None

    @property
    def _free(self) -> bool:
        """Whether no batch runs, or is about to."""
        return self._running is None and self._beginning is None

    def _expected_ms(self, items: Sequence[int]) -> float:
        """What a batch of these takes, by the key of the streams among them."""
        keys = [self._places[item].camera.key for item in items if item in self._places]
        return (self._policy.expected_ms(keys[0], len(items)) or 0.0) if keys else 0.0

    def _look(self) -> None:
        """Ask whoever runs next for what is newer, and let places be for what has been read."""
        if self._looking is None:
            return
        self._looking.end_reading(self._now_ms)
        if self._beginning is not None and not self._looking.reads_for(self._beginning.items):
            self._wakes_ms = self._now_ms
        if self._running is not None and self._looking.looks(self._now_ms):
            coming = self._policy.upcoming(self._now_ms)
            self._looking.look(coming, self._expected_ms(coming), self._now_ms)

    def _waits(self, batch: Batch) -> bool:
        """Whether a batch waits for its members' newest frames."""
        if self._looking is None or not self._policy.may_wait(self._now_ms):
            return False
        expected_ms = self._expected_ms(batch.items)
        until_ms = self._looking.freshen(batch.items, expected_ms, self._now_ms)
        if until_ms is None:
            return False
        self._policy.delayed(until_ms - self._now_ms)
        self._beginning, self._wakes_ms = batch, until_ms
        return True

    def _begin(self, batch: Batch) -> bool:
        """Let a batch run, if there is anything of it left; whether it does."""
        items = self._begun(batch.items)
        if not items:
            self._policy.idle(self._now_ms)
            return False
        lacking = [needs for one in items if one in self._lacking and (needs := self._needs(one))]
        self._lacking -= set(items)
        took = self._takes_ms(batch.key, len(items))
        self._running = _Running(batch.key, items, took)
        prepared_ms = sum(self._prepares_ms(needs) for needs in lacking)
        self._wakes_ms = self._now_ms + max(1, math.ceil(prepared_ms + took))
        if self._looking is not None:
            begins_ms = self._now_ms + math.ceil(prepared_ms)
            self._looking.began(begins_ms, self._expected_ms(items))
        return True

    def _begun(self, items: tuple[int, ...]) -> tuple[int, ...]:
        """Who runs of a batch, with the newest there is: no stream's place whose frame is stale."""
        if self._looking is None:
            self._renew(items)
        else:
            self._looking.withdraw(items, self._now_ms)
        for item in items:
            if item in self._places and not self._places[item].begin(self._now_ms):
                self._give_up(item)
        return tuple(one for one in items if one in self._places or one in self._requests)
