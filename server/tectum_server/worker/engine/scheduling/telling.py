"""What callers and the log are told of jobs that have no answer."""

from __future__ import annotations

import logging

from tectum.v1 import errors_pb2
from tectum_core.predictor import CapabilityMissing
from tectum_server.worker.engine.policy.batching import Reason, Refused
from tectum_server.worker.failure import Failure, unreachable
from tectum_server.worker.jobs import ItemFailure, Job

__all__ = ["deadline_passed", "item_failure", "named", "out_of_service", "refusal"]

_log = logging.getLogger(__name__)

_REASONS = {
    Reason.QUEUE_FULL: errors_pb2.ERROR_REASON_QUEUE_FULL,
    Reason.DEADLINE_UNREACHABLE: errors_pb2.ERROR_REASON_DEADLINE_UNREACHABLE,
    Reason.DEADLINE_INFEASIBLE: errors_pb2.ERROR_REASON_DEADLINE_INFEASIBLE,
    Reason.DEADLINE_PASSED: errors_pb2.ERROR_REASON_DEADLINE_PASSED,
}
_PASSED = "the deadline passed before the engine could take the request"


def item_failure(error: Exception, job: Job, index: int) -> ItemFailure:
    """An item's failure as its caller is told; what went wrong inside stays in the log."""
    whose = {**named(job), "item": index}
    if isinstance(error, Failure):
        failure = ItemFailure(error.reason, error.message, error.field)
    elif isinstance(error, CapabilityMissing):
        failure = ItemFailure(errors_pb2.ERROR_REASON_CAPABILITY_MISSING, str(error))
    else:
        _log.error("an item failed in the engine", exc_info=error, extra=whose)
        return ItemFailure(
            errors_pb2.ERROR_REASON_INTERNAL, "the engine failed on this item; the log says why"
        )
    _log.info("an item has no answer", extra={**whose, "error": failure.message})
    return failure


def refusal(verdict: Refused) -> Failure:
    """A refusal as its caller is told: what was found, and what it would take."""
    after = verdict.retry_after_ms
    found = verdict.forecast
    if found is not None and not found.alone and after is not None:
        return unreachable(found.left_ms, found.takes_ms, after)
    return Failure(
        _REASONS[verdict.reason], _why(verdict), retry_after=None if after is None else after / 1000
    )


def deadline_passed() -> Failure:
    """For who waited until it was too late."""
    return Failure(errors_pb2.ERROR_REASON_DEADLINE_PASSED, _PASSED)


def _why(verdict: Refused) -> str:
    if found := verdict.forecast:
        told = f"this takes about {found.takes_ms} ms alone"
        return f"the deadline is {found.left_ms} ms away; {told}"
    return _PASSED if verdict.reason is Reason.DEADLINE_PASSED else "the queue is full"


def named(job: Job) -> dict[str, str]:
    """Whose it is and what, for the log."""
    return {"request_id": job.request_id, "model": job.model, "op": _operations(job)}


def _operations(job: Job) -> str:
    """What a job asks for, each operation once."""
    return "+".join(dict.fromkeys(job.operation_of(index).name for index in range(len(job.items))))


def out_of_service() -> Failure:
    """For everybody, once a fault of its own has ended the service."""
    return Failure(
        errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE, "the engine has failed and is being restarted"
    )
