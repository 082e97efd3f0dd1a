"""A request's items through the engine, so that one bad item costs only itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call, item_failure
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.jobs import Item, ItemFailure, ItemOutput, Job, Operation, Sequel

__all__ = ["compute_items", "compute_one", "job_of", "raise_if_all_failed", "run_items", "together"]


async def compute_items(
    calls: Calls, call: Call, operation: Operation, items: Sequence[Item | Failure], field: str
) -> list[ItemOutput | Failure]:
    """Run the items that could be read; keep the others' failures in their places.

    Raises:
        Failure: the job was refused, or no item at all has an answer.
    """
    readable = [item for item in items if not isinstance(item, Failure)]
    answered = iter(await run_items(calls, call, operation, readable))
    results: list[ItemOutput | Failure] = []
    for index, item in enumerate(items):
        output = item if isinstance(item, Failure) else next(answered)
        if isinstance(output, ItemFailure):
            output = item_failure(output, f"{field}[{index}]")
        results.append(output)
    raise_if_all_failed([r for r in results if isinstance(r, Failure)], len(results))
    return results


async def run_items(
    calls: Calls,
    call: Call,
    operation: Operation,
    items: Sequence[Item],
    sequel: Sequel | None = None,
) -> list[ItemOutput | ItemFailure]:
    """Run items as one job; none at all is no job.

    Raises:
        Failure: the job was refused, or what follows it would be.
    """
    if not items:
        return []
    return list((await calls.compute(call, job_of(call, operation, items, sequel))).outputs)


def job_of(
    call: Call, operation: Operation, items: Sequence[Item], sequel: Sequel | None = None
) -> Job:
    """A call's job for the engine, and what it will ask for after that."""
    return Job(
        model=call.served.entry.name,
        operation=operation,
        items=tuple(items),
        priority=call.priority,
        deadline=call.deadline,
        arrived=call.arrived,
        version=call.served.entry.version,
        request_id=call.request_id,
        sequel=sequel,
    )


async def compute_one(calls: Calls, call: Call, operation: Operation, item: Item) -> ItemOutput:
    """Run a single item.

    Raises:
        Failure: refused, or the item has no answer.
    """
    (output,) = await run_items(calls, call, operation, [item])
    if isinstance(output, ItemFailure):
        raise item_failure(output, "")
    return output


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Do parts of one request side by side; once one has failed, the others are withdrawn.

    Raises:
        Failure: the first one's.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


def raise_if_all_failed(failures: Sequence[Failure], total: int) -> None:
    """A request none of whose items has an answer fails as a whole, naming every field.

    Raises:
        Failure: the first item's, with all violations.
    """
    if not failures or len(failures) < total:
        return
    first = failures[0]
    raise Failure(
        first.reason,
        first.message,
        first.field,
        first.retry_after,
        tuple((failure.field, failure.message) for failure in failures),
    )
