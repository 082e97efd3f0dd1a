"""Deadlines, retries, metadata and defaults: first as pure rules, then as the worker sees them."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client import fake_errors
from tests.client.fake_errors import R
from tests.client.fake_worker import FakeWorker

import tectum
from tectum import calls


def pause(retry_after: float | None, **changes: Any) -> float | None:
    settings: dict[str, Any] = {"attempt": 0, "retries": 2, "remaining": 10.0, "dice": 0.0}
    error = tectum.Overloaded("full", retry_after=retry_after)
    return calls.pause_before_retry(error, **(settings | changes))


def test_what_the_worker_does_not_call_retryable_is_never_retried() -> None:
    assert pause(None) is None


def test_a_retry_waits_as_long_as_the_worker_asked_for() -> None:
    assert pause(0.2) == 0.2


def test_retries_are_bounded() -> None:
    assert pause(0.2, attempt=1) == 0.2
    assert pause(0.2, attempt=2) is None
    assert pause(0.2, retries=0) is None


def test_a_retry_that_leaves_no_time_for_the_answer_is_not_made() -> None:
    assert pause(0.2, remaining=0.2) is None


@given(st.floats(0, 100), st.floats(0, 1, exclude_max=True), st.floats(-1, 100))
def test_a_pause_is_spread_and_always_ends_before_the_deadline(
    retry_after: float, dice: float, remaining: float
) -> None:
    waited = pause(retry_after, dice=dice, remaining=remaining)

    assert (waited is None) == (retry_after >= remaining)
    assert waited is None or retry_after <= waited <= 1.5 * retry_after
    assert waited is None or remaining - waited >= (remaining - retry_after) / 2 - 1e-9
    assert waited is None or waited < remaining


def test_a_default_call_outlasts_an_engine_that_starts_half_as_long_again_as_it_was_to() -> None:
    budget, starts, now = calls.LONGEST_WAIT[tectum.Priority.INTERACTIVE], 12.0, 0.0
    for attempt in range(2):  # a client's default
        told = 8.5 - now if now < 8.5 else now / 2
        waited = pause(told, attempt=attempt, remaining=budget - now)
        assert waited is not None
        now += waited

    assert now > starts


@pytest.mark.parametrize("reason", sorted(fake_errors.RETRYABLE), ids=fake_errors.name)
async def test_a_refused_call_is_tried_again_when_the_worker_says_so(
    reason: int, worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    worker.refuse(reason, times=2, retry_after=0.01)
    assert (await asyncio.to_thread(client.embed_texts, ["a"])).vectors.shape == (1, 8)
    worker.refuse(reason, times=2, retry_after=0.01)
    assert (await aclient.embed_texts(["a"])).vectors.shape == (1, 8)

    assert len(worker.seen) == 6
    ids = {seen.metadata["x-request-id"] for seen in worker.seen}
    assert len(ids) == 2, "one id a call, the same for all its attempts"


async def test_a_call_gives_up_after_its_retries(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    worker.refuse(R.ERROR_REASON_QUEUE_FULL, times=6, retry_after=0.01)

    with pytest.raises(tectum.Overloaded):
        await asyncio.to_thread(client.embed_texts, ["a"])
    with pytest.raises(tectum.Overloaded):
        await aclient.embed_texts(["a"])

    assert len(worker.seen) == 6


@pytest.mark.parametrize("reason", fake_errors.REASONS, ids=fake_errors.name)
async def test_without_retry_info_nothing_is_ever_tried_again(
    reason: int, worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    worker.refuse(reason, times=2)

    with pytest.raises(tectum.TectumError):
        await asyncio.to_thread(client.embed_texts, ["a"], retries=5)
    with pytest.raises(tectum.TectumError):
        await aclient.embed_texts(["a"], retries=5)

    assert len(worker.seen) == 2


@pytest.mark.parametrize("reason", sorted(fake_errors.RETRYABLE), ids=fake_errors.name)
async def test_a_retry_never_outlives_the_deadline(
    reason: int, worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    worker.refuse(reason, times=2, retry_after=5.0)
    began = time.monotonic()

    with pytest.raises(tectum.TectumError) as refused:
        await asyncio.to_thread(client.embed_texts, ["a"], timeout=3)
    with pytest.raises(tectum.TectumError) as arefused:
        await aclient.embed_texts(["a"], timeout=3)

    assert [e.value.reason for e in (refused, arefused)] == [fake_errors.name(reason)] * 2
    assert len(worker.seen) == 2
    assert time.monotonic() - began < 3


async def test_a_retry_has_only_what_is_left_of_the_deadline(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    worker.refuse(R.ERROR_REASON_QUEUE_FULL, retry_after=0.3)
    await asyncio.to_thread(client.embed_texts, ["a"], timeout=2)
    worker.refuse(R.ERROR_REASON_QUEUE_FULL, retry_after=0.3)
    await aclient.embed_texts(["a"], timeout=2)

    for first, second in (worker.seen[:2], worker.seen[2:]):
        assert first.deadline is not None
        assert second.deadline is not None
        assert first.deadline == pytest.approx(2, abs=0.2)
        assert second.deadline < first.deadline - 0.25


async def test_a_call_without_a_timeout_tells_the_worker_none(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    await asyncio.to_thread(client.embed_texts, ["a"])
    await aclient.embed_texts(["a"])

    assert [seen.deadline for seen in worker.seen] == [None, None]


async def test_a_call_without_a_timeout_ends_all_the_same(
    worker: FakeWorker,
    client: tectum.Client,
    aclient: tectum.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(calls.LONGEST_WAIT, tectum.Priority.INTERACTIVE, 0.1)
    worker.orders.delay = 3

    with pytest.raises(tectum.DeadlineExceeded, match="no answer within"):
        await asyncio.to_thread(client.embed_texts, ["a"])
    with pytest.raises(tectum.DeadlineExceeded, match="no answer within"):
        await aclient.embed_texts(["a"])

    for seen in worker.seen:
        assert await asyncio.to_thread(seen.ended.wait, 2), "the worker was told"


async def test_what_a_client_was_made_with_is_what_its_calls_say(worker: FakeWorker) -> None:
    made_with: dict[str, Any] = {
        "model": "tiny",
        "token": "secret",
        "priority": tectum.Priority.BULK,
        "timeout": 7.0,
    }
    worker.orders.token = "secret"
    with tectum.Client(worker.address, **made_with) as client:
        await asyncio.to_thread(client.embed_texts, ["a"], request_id="mine")
    async with tectum.AsyncClient(worker.address, **made_with) as aclient:
        await aclient.embed_texts(["a"], request_id="mine")

    for seen in worker.seen:
        assert seen.request.options.model == "tiny"
        assert seen.request.options.priority == 3
        assert seen.metadata["authorization"] == "Bearer secret"
        assert seen.metadata["x-request-id"] == "mine"
        assert seen.metadata["user-agent"].startswith(f"tectum/{tectum.__version__}")
        assert seen.deadline == pytest.approx(7, abs=0.5)


async def test_a_call_may_say_otherwise_than_its_client(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    said: tectum.InferenceOptions = {
        "model": "other@1",
        "priority": tectum.Priority.CONTROL,
        "timeout": 0.5,
        "expected_spaces": ["joint-1", "latent-1"],
        "token": "mine",
    }
    await asyncio.to_thread(lambda: client.embed_texts(["a"], **said))
    await aclient.embed_texts(["a"], **said)

    for seen in worker.seen:
        options = seen.request.options
        assert (options.model, options.priority) == ("other@1", 1)
        assert list(options.expected_space_ids) == ["joint-1", "latent-1"]
        assert seen.metadata["authorization"] == "Bearer mine"
        assert seen.deadline is not None
        assert seen.deadline < 0.6


async def test_loading_a_model_is_not_bound_by_the_clients_default(worker: FakeWorker) -> None:
    async with tectum.AsyncClient(worker.address, timeout=0.05) as aclient:
        worker.orders.delay = 0.2
        await aclient.load_model("other")

    assert worker.seen[0].deadline is None


async def test_a_misspelt_option_is_refused(
    client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    misspelt: Any = {"tiemout": 1}

    with pytest.raises(TypeError, match="unexpected options tiemout; allowed: expected_spaces"):
        client.embed_texts(["a"], **misspelt)
    with pytest.raises(TypeError, match="unexpected options tiemout; allowed: request_id"):
        await aclient.list_models(**misspelt)
    with pytest.raises(TypeError, match="unexpected options tiemout"):
        client.stream(embed=True, **misspelt)


def test_a_client_is_not_made_with_what_no_call_allows() -> None:
    made_with: list[Any] = [{"timeout": 0}, {"retries": 11}, {"priority": 4}]
    for options in made_with:
        with pytest.raises(tectum.InvalidInput):
            tectum.Client(**options)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("timeout", {"timeout": 0}),
        ("timeout", {"timeout": float("nan")}),
        ("retries", {"retries": -1}),
        ("retries", {"retries": 1000}),
        ("priority", {"priority": 7}),
        ("request_id", {"request_id": "two words"}),
        ("request_id", {"request_id": "é"}),
        ("token", {"token": "line\nbreak"}),
        ("expected_spaces", {"expected_spaces": ["s"] * 9}),
        ("expected_spaces", {"expected_spaces": "joint-1"}),
        ("expected_spaces[1]", {"expected_spaces": ["s", ""]}),
        ("model", {"model": "\0"}),
    ],
)
def test_an_option_outside_what_it_allows_is_refused_before_anything_is_sent(
    field: str, options: Any, worker: FakeWorker, client: tectum.Client
) -> None:
    with pytest.raises(tectum.InvalidInput) as caught:
        client.embed_texts(["a"], **options)

    assert [violation.field for violation in caught.value.violations] == [field]
    assert worker.seen == []


def test_more_spaces_than_can_be_pinned_are_too_many_items(client: tectum.Client) -> None:
    with pytest.raises(tectum.InvalidInput) as caught:
        client.embed_texts(["a"], expected_spaces=["s"] * 9)

    assert caught.value.reason == "TOO_MANY_ITEMS"
