"""Jobs that wait: each item has one place, for as long as it neither runs nor is given up."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from tests.server.worker.engine.gated import Clock, GatedPredictor

from tectum_core.predictor import Predictor
from tectum_server.worker.engine.policy.batching import Batching
from tectum_server.worker.engine.policy.cost import CostModel
from tectum_server.worker.engine.scheduling.progress import Progress
from tectum_server.worker.engine.scheduling.queue import Queue
from tectum_server.worker.engine.scheduling.renewing import Renewed
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Content, EmbedTexts, Item, Job, Priority

MOST = 4


class Waiting:
    """A queue of a few places, and jobs for it."""

    def __init__(self) -> None:
        self.clock, costs = Clock(), CostModel()
        self.policy = Batching(MOST, MOST, costs.cost)
        self.queue = Queue(self.policy, costs, self.clock, recorder=None)

    def job(self, *texts: str, within: float = 60.0) -> Progress:
        items = tuple(Item(text=text) for text in texts)
        deadline = self.clock.now + within
        job = Job("m", EmbedTexts(), items, Priority.INTERACTIVE, deadline)
        return Progress(
            job=job,
            predictor=cast(Predictor, GatedPredictor(self.clock)),
            arrived=self.clock.now,
            done=asyncio.get_running_loop().create_future(),
            outputs=[None] * len(items),
            renewed=Renewed(None, lambda _: False),
        )

    def admitted(self, *texts: str, within: float = 60.0) -> Progress:
        job = self.job(*texts, within=within)
        self.queue.admit(job)
        return job

    def texts(self) -> list[str | None]:
        return [place.item.text for place in self.queue.places.values()]


async def test_each_item_has_a_place_and_whoever_waits_for_that_hears_of_it() -> None:
    waiting = Waiting()

    waiting.admitted("a", "b")

    assert waiting.texts() == ["a", "b"]
    assert waiting.queue.changed.is_set()


async def test_what_is_refused_has_no_place() -> None:
    waiting = Waiting()
    waiting.admitted("a", "b", "c")

    with pytest.raises(Failure):
        waiting.admitted("d", "e")

    assert waiting.texts() == ["a", "b", "c"]


async def test_what_is_taken_waits_no_more_and_is_given_once() -> None:
    waiting = Waiting()
    job = waiting.admitted("a", "b")

    taken = waiting.queue.taken(job.items)

    assert [place.item.text for place in taken] == ["a", "b"]
    assert waiting.queue.taken(job.items) == []
    assert not waiting.queue.holds(job)


async def test_what_is_forgotten_is_in_nobodys_batch() -> None:
    waiting = Waiting()
    gone, stays = waiting.admitted("a"), waiting.admitted("b")

    waiting.queue.forget(gone.items)

    batch = waiting.policy.next_batch(waiting.queue.now_ms())
    assert batch is not None
    assert list(batch.items) == stays.items


async def test_newer_items_of_its_kind_take_a_jobs_place_and_its_deadline() -> None:
    waiting = Waiting()
    job = waiting.admitted("old", within=1.0)
    newer = Content((Item(text="new"),), waiting.clock.now + 9.0)

    assert waiting.queue.renew(job, newer)

    waiting.clock.now += 5.0
    waiting.queue.drop_expired()
    assert waiting.texts() == ["new"]


async def test_nothing_takes_the_place_of_what_was_taken() -> None:
    waiting = Waiting()
    job = waiting.admitted("old")
    waiting.queue.taken(job.items)

    assert not waiting.queue.renew(job, Content((Item(text="new"),), 1e6))
    assert job.job.items[0].text == "old"


async def test_as_many_items_as_before_are_asked_for() -> None:
    waiting = Waiting()
    job = waiting.admitted("old")

    assert not waiting.queue.renew(job, Content((Item(text="a"), Item(text="b")), 1e6))
    assert waiting.texts() == ["old"]


async def test_whose_time_is_over_is_told_and_has_no_place() -> None:
    waiting = Waiting()
    late, early = waiting.admitted("late", within=1.0), waiting.admitted("early", within=9.0)

    waiting.clock.now += 5.0
    waiting.queue.drop_expired()

    with pytest.raises(Failure, match="deadline"):
        late.done.result()
    assert not early.done.done()
    assert waiting.texts() == ["early"]
