"""What a worker refuses for want of time, room, rights or life, as a REST caller sees it.

The tests share one pair and leave it serving, but for the last ones, which end it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest
from tests.bundles import bare_model, stack, vision
from tests.contract.table import ROWS
from tests.journeys import provoking
from tests.journeys.openapi import Documentation
from tests.journeys.product import USER, Pair, in_thread, write_tokens
from tests.journeys.provoking import MOST_BYTES, MOST_QUEUED, TEXTS, UNHURRIED
from tests.server.gateway.checks import checked
from tests.server.worker.asking import texts
from tests.server.worker.refusals import INPUTS, REQUESTS
from tests.server.worker.serving import Caller, Told, until

from tectum_core.bundle import Repository
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.untrained import write_untrained

SLOW_SIDE = 224
NOT_OVER_REST = {
    "BUNDLE_REJECTED": "REST loads no models",
    "CANCELLED": "its caller has gone; logs and metrics have it, as 499",
    "INTERNAL": "a fault; none is known that a caller could cause",
    "MODEL_LOADING": "this worker's models may take as much memory as they do",
}
"""Reasons that no REST caller can provoke."""
NOT_PROVOKED = {
    408: "a body may take a minute to arrive",
    500: "a fault; none is known that a caller could cause",
    503: "asked last, of a worker that has gone",
}
"""Documented statuses that are not asked of a living worker."""


@pytest.fixture(scope="module")
def pair(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A worker with tokens, little room and a slow model, and a gateway that takes small bodies."""
    folder = tmp_path_factory.mktemp("slow")
    # Thousands of small patches: slow by attention, at a size that is soon written and read.
    patches = vision(transformer=stack(width=64, depth=4), image_size=SLOW_SIDE, patch_size=4)
    preprocessing = ImagePreprocessing(size=SLOW_SIDE)
    write_untrained(folder / "bundle", bare_model(vision=patches), preprocessing)
    Repository(repository).publish(folder / "bundle", "slow")
    worker: list[object] = ["--model", "full", "--model", "slow", "--max-batch", 1]
    worker += ["--max-queued-items", MOST_QUEUED]
    worker += ["--tokens", write_tokens(folder / "tokens.json"), "--log-level", "debug"]
    with Pair(folder, repository, worker, ["--max-body-bytes", MOST_BYTES]) as pair:
        pair.http.headers["Authorization"] = f"Bearer {USER}"
        yield pair


def judged(response: httpx.Response) -> str:
    """A problem's reason, after what the table says of it and what holds for every problem."""
    reason: str = response.json()["reason"]
    row = ROWS[reason]
    checked(response, row.status)
    assert ("retry-after" in response.headers) == row.retryable
    assert ("www-authenticate" in response.headers) == (row.status == 401)
    if row.retryable:
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["retry_after_ms"] > 0
    return reason


def test_every_reason_is_provoked_over_rest_or_named_here() -> None:
    refused = {row.reason for row in (INPUTS | REQUESTS).values()}

    assert refused | set(provoking.REASONS) | {"DRAINING"} | set(NOT_OVER_REST) == set(ROWS)


@pytest.mark.parametrize("reason", provoking.REASONS)
def test_a_refusal_says_why_and_when_to_come_back(pair: Pair, reason: str) -> None:
    assert judged(provoking.REASONS[reason](pair)) == reason


@pytest.mark.parametrize("status", provoking.STATUSES)
def test_every_operation_answers_as_it_documents(pair: Pair, status: int) -> None:
    documentation = Documentation.of(pair.http)
    operations = [o for o in documentation.operations() if status in o.statuses]
    with provoking.crowded(pair) if status == 429 else nullcontext():
        answers = {o: provoking.STATUSES[status](pair, o) for o in operations}

    assert answers
    assert {str(o): a.status_code for o, a in answers.items() if a.status_code != status} == {}
    assert {str(o): w for o, a in answers.items() if (w := documentation.wrong_with(o, a))} == {}


def test_every_documented_status_is_provoked_or_named_here(pair: Pair) -> None:
    documented = {status for o in Documentation.of(pair.http).operations() for status in o.statuses}

    assert documented - {200} == set(provoking.STATUSES) | set(NOT_PROVOKED)


# ---------------------------------------------------------------- more than there is room for

CALLERS, EACH = 24, 4
ROOM = MOST_QUEUED * 7 // 8  # the rest is kept for CONTROL
FITTING = ROOM // EACH


def test_a_flood_over_rest_is_taken_as_far_as_there_is_room_and_refused_beyond(pair: Pair) -> None:
    body = {"texts": ["open the door"] * EACH}
    refused_before = pair.metric("tectum_requests_refused_total", reason="queue_full")

    with pair.held():
        calls = [
            in_thread(lambda: pair.http.post(TEXTS, json=body, headers=UNHURRIED))
            for _ in range(CALLERS)
        ]
        until(lambda: sum(call.done() for call in calls) == CALLERS - FITTING)
        told = [call.result() for call in calls if call.done()]

    for response in told:
        assert judged(response) == "QUEUE_FULL"
        assert f"at most {ROOM}" in response.json()["detail"]
    answered = [call.result() for call in calls if call.result() not in told]
    assert [len(response.raise_for_status().json()["results"]) for response in answered] == [
        EACH
    ] * FITTING
    refused = pair.metric("tectum_requests_refused_total", reason="queue_full") - refused_before
    assert refused == CALLERS - FITTING
    assert pair.http.post(TEXTS, json=body).status_code == 200, "there is room again"


def test_a_flood_over_grpc_is_taken_as_far_as_there_is_room_and_refused_beyond(pair: Pair) -> None:
    caller = Caller(pair.port, USER)
    request = texts(*["open the door"] * EACH)

    with pair.held():
        calls = [caller.begin("EmbedTexts", request) for _ in range(CALLERS)]
        until(lambda: sum(call.done() for call in calls) == CALLERS - FITTING)
        told = [Told.of(call.exception()) for call in calls if call.done()]

    assert Counter((t.code, t.reason, t.retries) for t in told) == {
        ("RESOURCE_EXHAUSTED", "QUEUE_FULL", True): CALLERS - FITTING
    }
    errors = [call.exception() for call in calls]
    assert errors.count(None) == FITTING
    assert [len(c.result().results) for c in calls if c.exception() is None] == [EACH] * FITTING
    caller.close()


def test_the_queue_stays_bounded_under_a_flood_that_the_engine_works_on(pair: Pair) -> None:
    slow = provoking.slow()
    body = {**slow, "images": slow["images"] * EACH}
    calls = [
        in_thread(lambda: pair.http.post(provoking.PICTURES, json=body, headers=UNHURRIED))
        for _ in range(CALLERS)
    ]
    depths = []

    def done() -> bool:
        depths.append(pair.metric("tectum_queue_depth"))
        return all(call.done() for call in calls)

    until(done)

    assert max(depths) <= MOST_QUEUED
    statuses = Counter(call.result().status_code for call in calls)
    assert set(statuses) <= {200, 429}
    assert statuses[200] >= FITTING
    for call in calls:
        if call.result().status_code == 200:
            assert all("embedding" in result for result in call.result().json()["results"])
    assert pair.metric("tectum_queue_depth") == 0


def test_a_caller_that_hangs_up_is_counted_as_gone_by_gateway_and_worker(pair: Pair) -> None:
    count = "tectum_gateway_request_duration_seconds_count"

    def gone() -> tuple[float, float]:
        worker = "tectum_request_duration_seconds_count"
        return pair.gateway_metric(count, code="499"), pair.metric(worker, code="CANCELLED")

    before = gone()

    def hung_up() -> bool:
        # It may leave so early that the worker never hears of it, or that the gateway hears of both
        # at once and has its answer before it looks who waits; then once more.
        over = pair.gateway_metric(count, route=TEXTS)
        with pair.held(), pytest.raises(httpx.ReadTimeout):
            pair.http.post(TEXTS, json=provoking.ONE, headers=UNHURRIED, timeout=0.5)
        until(lambda: pair.gateway_metric(count, route=TEXTS) > over)
        return all(now > then for now, then in zip(gone(), before, strict=True))

    until(hung_up)
    assert pair.http.post(TEXTS, json=provoking.ONE).status_code == 200


# ---------------------------------------------------------------- the end, for nobody needs it now


def test_a_worker_told_to_end_answers_what_it_took_and_refuses_what_is_new(pair: Pair) -> None:
    assert judged(provoking.draining(pair)) == "DRAINING"

    assert pair.worker.ended() == 0
    assert pair.worker.family() == []
    assert "Traceback" not in pair.worker.output


def test_without_a_worker_every_operation_that_needs_one_says_so(pair: Pair) -> None:
    documentation = Documentation.of(pair.http)
    operations = [o for o in documentation.operations() if 503 in o.statuses]
    answers = {o: provoking.asked(pair, o) for o in operations}

    assert {str(o): a.status_code for o, a in answers.items() if a.status_code != 503} == {}
    assert {str(o): w for o, a in answers.items() if (w := documentation.wrong_with(o, a))} == {}
    assert pair.http.get("/healthz").status_code == 200, "the gateway itself is alive"


def test_the_gateway_ends_well_without_its_worker(pair: Pair) -> None:
    pair.gateway.interrupt()

    assert pair.gateway.ended() == 0
    assert pair.gateway.family() == []
    assert "Traceback" not in pair.gateway.output
