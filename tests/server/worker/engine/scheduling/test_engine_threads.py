"""A scheduler's threads: in order on each, beside each other, and their end."""

from __future__ import annotations

import asyncio
import threading

from tectum_server.worker.engine.scheduling.threads import Threads, on


async def test_what_is_done_on_one_thread_holds_up_none_of_the_others() -> None:
    threads, gate, done = Threads(), threading.Event(), list[str]()

    held = on(threads.compute, gate.wait)
    behind = on(threads.compute, lambda: done.append("computed"))
    await on(threads.fetch, lambda: done.append("fetched"))
    await on(threads.prepare, lambda: done.append("prepared"))
    gate.set()
    await asyncio.gather(held, behind)
    threads.close(stuck=False)

    assert done == ["fetched", "prepared", "computed"]


async def test_what_another_thread_has_done_between_batches_waits_for_its_turn() -> None:
    threads, gate, done = Threads(), threading.Event(), list[str]()
    held = on(threads.compute, gate.wait)

    asked = asyncio.create_task(
        asyncio.to_thread(
            threads.between_batches, lambda: done.append(threading.current_thread().name)
        )
    )
    await on(threads.fetch, lambda: None)
    assert done == []
    gate.set()
    await asyncio.gather(held, asked)

    assert done == ["compute_0"]
    threads.close(stuck=False)
    threads.between_batches(lambda: done.append("never"))
    assert done == ["compute_0"]


async def test_behind_a_thread_that_is_stuck_nobody_waits() -> None:
    threads, gate = Threads(), threading.Event()
    stuck = on(threads.compute, gate.wait)
    behind = threads.compute.submit(lambda: None)

    threads.close(stuck=True)

    assert behind.cancelled()
    gate.set()
    await stuck


async def test_a_thread_that_is_stuck_is_not_waited_for() -> None:
    threads, gate = Threads(), threading.Event()
    stuck = on(threads.compute, gate.wait)

    threads.close(stuck=True)

    assert not stuck.done()
    gate.set()
    assert await stuck
