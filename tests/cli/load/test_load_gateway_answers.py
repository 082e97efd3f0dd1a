"""What a worker's and a gateway's answers say, in the driver's words."""

from __future__ import annotations

from typing import Any

import pytest

from tectum_cli.load import gateway
from tectum_cli.load.driving import Answer, Outcome

TIMINGS = {"queue_ms": 1.0, "compute_ms": 20.0, "total_ms": 30.0, "batch_size": 4}
TOLD: dict[str, Any] = {"queue": 0.001, "decode": None, "compute": 0.02, "total": 0.03, "batch": 4}


def body(*results: dict[str, Any]) -> dict[str, Any]:
    return {"info": {"timings": TIMINGS}, "results": list(results)}


def test_an_answer_tells_its_times_in_seconds() -> None:
    assert gateway.answer_of(200, body({"embedding": {}})) == Answer(Outcome.ANSWERED, **TOLD)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("RESOURCE_EXHAUSTED", Outcome.REFUSED),
        ("DEADLINE_EXCEEDED", Outcome.EXPIRED),
        ("INVALID_ARGUMENT", Outcome.FAILED),
    ],
)
def test_a_call_with_an_item_that_failed_is_not_answered(code: str, outcome: Outcome) -> None:
    wrong = {"error": {"code": code, "reason": "WHY"}}

    assert gateway.answer_of(200, body({"embedding": {}}, wrong)) == Answer(outcome, "WHY", **TOLD)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (429, Outcome.REFUSED),
        (504, Outcome.EXPIRED),
        (422, Outcome.FAILED),
        (503, Outcome.FAILED),
    ],
)
def test_a_problem_is_told_by_its_reason_or_its_status(status: int, outcome: Outcome) -> None:
    assert gateway.answer_of(status, {"reason": "WHY"}) == Answer(outcome, "WHY")
    assert gateway.answer_of(status, {}) == Answer(outcome, f"HTTP {status}")
