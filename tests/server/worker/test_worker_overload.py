"""Ten times as much as the engine can do, in milliseconds that are counted, not waited for.

A front that judges by what the engine told, and one that decodes whatever comes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from tectum_server.worker.engine.policy.batching import Admitted, Batching, Waiting
from tectum_server.worker.engine.policy.cost import CostModel
from tectum_server.worker.engine.scheduling.foretelling import outlook
from tectum_server.worker.link.beating import BEAT_SECONDS
from tectum_server.worker.outlook import Asked, Outlook, done

KEY, MODEL, OPERATION = ("arm@1", "embed_images", "pooled"), "arm@1", "embed_images"
MOST, FIXED_MS, EACH_MS = 4, 10, 15
BEAT_MS = int(1000 * BEAT_SECONDS)
DECODE_MS, THREADS, DAY_MS = 5, 2, 12_000


@dataclass
class Call:
    """One picture, by number."""

    number: int
    came_ms: int
    asked: Asked
    sent: float | None = None


class Day:
    """A front that decodes, on threads, and an engine.

    Args:
        judges: whether the front refuses by what the engine told.
        load: so many times what the engine can do comes.
        patience_ms: from a call to its deadline.
        eases_ms: from then on half of what the engine can do comes.
    """

    def __init__(
        self, *, judges: bool, load: float, patience_ms: int = 2000, eases_ms: int = DAY_MS
    ) -> None:
        self.answered = self.idle_ms = 0
        self.refused = list[tuple[int, int]]()
        """When each came that was refused, and when that was told."""
        self._judges, self._patience_ms = judges, patience_ms
        self._dice, self._costs = random.Random(0), CostModel()
        for size in range(1, MOST + 1):
            self._costs.observe(KEY, size, FIXED_MS + EACH_MS * size)
        self._policy = Batching(256, MOST, self._costs.cost)
        self._told: Outlook | None = None
        self._open = dict[int, Call]()
        self._waiting, self._decoding = list[Call](), list[tuple[int, Call]]()
        self._batch, self._began_ms, self._ends_ms = list[int](), 0, 0
        can, coming, number = MOST / (FIXED_MS + EACH_MS * MOST), 0.0, 0
        for now in range(DAY_MS):
            coming += self._dice.expovariate(1.0) * can * (load if now < eases_ms else 0.5)
            while coming >= 1:
                coming, number = coming - 1, number + 1
                self._come(number, now)
            self._decode(now)
            self._compute(now)
            if now % BEAT_MS == 0:
                self._told = outlook(self._policy, self._costs, MOST, now)

    def _come(self, number: int, now: int) -> None:
        due = (now + self._patience_ms) / 1000
        call = Call(number, now, Asked(MODEL, {OPERATION: 1}, 2, due))
        if self._judges and self._hopeless(call.asked, now):
            self.refused.append((now, now))
            return
        self._open[number] = call
        self._waiting.append(call)

    def _hopeless(self, asked: Asked, now: int) -> bool:
        """As `bookings` judges; of an engine that has nothing of this front's it knows nothing."""
        others = [(one.asked, one.sent) for one in self._open.values()]
        asks = any(sent is not None for _, sent in others)
        moment = done(asked, [self._told if asks else None], others, now / 1000)
        return moment is not None and moment > asked.deadline

    def _decode(self, now: int) -> None:
        for ready_ms, call in list(self._decoding):
            if ready_ms <= now:
                self._decoding.remove((ready_ms, call))
                self._send(call, now)
        while self._waiting and len(self._decoding) < THREADS:
            self._decoding.append((now + DECODE_MS, self._waiting.pop(0)))

    def _send(self, call: Call, now: int) -> None:
        call.sent = now / 1000
        due_ms = round(call.asked.deadline * 1000)
        item = Waiting(call.number, KEY, 2, due_ms, request=call.number)
        if not isinstance(self._policy.admit([item], now, call.came_ms), Admitted):
            self.refused.append((call.came_ms, now))
            del self._open[call.number]

    def _compute(self, now: int) -> None:
        if self._batch and now >= self._ends_ms:
            self._policy.idle(now)
            self._costs.observe(KEY, len(self._batch), now - self._began_ms)
            for one in self._batch:
                self.answered += now <= self._open.pop(one).asked.deadline * 1000
            self._batch = []
        if not self._batch:
            for one in self._policy.expire(now):
                del self._open[one]
            found = self._policy.next_batch(now)
            self.idle_ms += found is None
            if found is not None:
                self._batch, self._began_ms = list(found.items), now
                takes_ms = FIXED_MS + EACH_MS * len(self._batch)
                self._ends_ms = now + round(takes_ms * self._dice.uniform(0.9, 1.1))


@pytest.mark.parametrize("patience_ms", [500, 2000])
def test_in_overload_refusals_are_told_at_once_and_the_engine_has_always_something_to_do(
    patience_ms: int,
) -> None:
    plain = Day(judges=False, load=10, patience_ms=patience_ms)
    judged = Day(judges=True, load=10, patience_ms=patience_ms)

    waits_ms = sorted(told_ms - came_ms for came_ms, told_ms in judged.refused)
    can = DAY_MS * MOST / (FIXED_MS + EACH_MS * MOST)
    assert waits_ms[len(waits_ms) * 99 // 100] <= 20
    assert sum(wait_ms > 0 for wait_ms in waits_ms) <= 0.05 * len(waits_ms)  # decoded in vain
    assert judged.idle_ms <= 0.01 * DAY_MS
    assert judged.answered >= 0.95 * can > 1.5 * plain.answered


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_below_what_the_engine_can_do_nobody_is_refused(load: float) -> None:
    assert Day(judges=True, load=load).refused == []


def test_after_an_overload_whoever_comes_is_answered() -> None:
    day = Day(judges=True, load=10, eases_ms=4000)

    assert [came_ms for came_ms, _ in day.refused if came_ms > 4000 + BEAT_MS] == []
