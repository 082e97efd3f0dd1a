"""Every way a call can fail, and that nothing but TectumError comes out."""

import asyncio
import pickle
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from tests.client import fake_errors
from tests.client.fake_worker import FakeWorker, wait_for

import tectum
from tectum import errors, failures
from tectum.v1 import errors_pb2

PICTURE = np.zeros((2, 2, 3), np.uint8)
R = errors_pb2.ErrorReason
BARE_CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


async def raised(call: Callable[[], Any] | Awaitable[Any]) -> tectum.TectumError:
    """What a call raises: a sync one in a thread, or an awaitable."""
    with pytest.raises(tectum.TectumError) as caught:
        await (asyncio.to_thread(call) if callable(call) else call)
    return caught.value


def test_every_reason_of_the_contract_has_a_class() -> None:
    assert set(errors.CLASS_BY_REASON) == set(R.values()) - {R.ERROR_REASON_UNSPECIFIED}


def test_every_grpc_code_has_a_class() -> None:
    assert set(failures.CLASS_BY_CODE) == set(BARE_CODES)


def test_the_tests_own_table_is_total_too() -> None:
    assert set(fake_errors.CODE_BY_REASON) == set(errors.CLASS_BY_REASON)


@pytest.mark.parametrize("reason", fake_errors.REASONS, ids=fake_errors.name)
async def test_a_reason_raises_its_class_with_everything_the_worker_said(
    reason: int, worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    retry_after = 1.5 if reason in fake_errors.RETRYABLE else None
    worker.refuse(
        reason,
        times=2,
        retry_after=retry_after,
        violations=[("images[0]", "found this; allowed: that")],
        message="for people: 4×4",
    )

    sync = await raised(lambda: client.embed_images([PICTURE], retries=0, request_id="a-1"))
    parallel = await raised(aclient.embed_images([PICTURE], retries=0, request_id="a-1"))

    for error in (sync, parallel):
        assert type(error) is errors.CLASS_BY_REASON[reason]
        assert error.reason == fake_errors.name(reason)
        assert str(error) == "for people: 4×4"
        assert error.request_id == "a-1"
        assert error.violations == (("images[0]", "found this; allowed: that"),)
        assert error.retry_after == retry_after


@pytest.mark.parametrize("code", BARE_CODES, ids=lambda code: code.name)
async def test_a_code_without_details_still_raises_a_class_of_ours(
    code: grpc.StatusCode, worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    worker.orders.refusals += [code, code]

    sync = await raised(lambda: client.embed_texts(["a"]))
    parallel = await raised(aclient.embed_texts(["a"]))

    for error in (sync, parallel):
        assert type(error) is failures.CLASS_BY_CODE[code]
        assert error.reason == ""
        assert error.retry_after is None
        assert code.name in str(error)


async def test_a_reason_from_a_newer_worker_falls_back_on_its_code() -> None:
    status = fake_errors.status(R.ERROR_REASON_QUEUE_FULL, retry_after=0.5)
    info = error_details_pb2.ErrorInfo(reason="MOON_PHASE", domain="tectum.dev")
    status.details[0].Pack(info)

    error = failures.from_status(grpc.StatusCode.UNAVAILABLE, "later", status, "a-1")

    assert type(error) is tectum.Unavailable
    assert error.reason == "MOON_PHASE"
    assert error.retry_after == 0.5


async def test_anothers_reasons_are_not_taken_for_ours() -> None:
    status = fake_errors.status(R.ERROR_REASON_QUEUE_FULL)
    info = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="proxy.example")
    status.details[0].Pack(info)

    error = failures.from_status(grpc.StatusCode.UNAVAILABLE, "", status, "a-1")

    assert type(error) is tectum.Unavailable
    assert error.reason == ""


async def test_no_worker_at_the_address_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with tectum.Client(address) as client:
            sync = await raised(lambda: client.embed_texts(["a"]))
        async with tectum.AsyncClient(address) as aclient:
            parallel = await raised(aclient.embed_texts(["a"]))

    assert type(sync) is type(parallel) is tectum.Unavailable


async def test_a_worker_that_answers_too_late_is_a_deadline_exceeded(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    worker.orders.delay = 2

    sync = await raised(lambda: client.embed_texts(["a"], timeout=0.1))
    parallel = await raised(aclient.embed_texts(["a"], timeout=0.1))

    assert type(sync) is type(parallel) is tectum.DeadlineExceeded


@pytest.mark.parametrize("code", [grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN])
@pytest.mark.parametrize("said", ["Deadline Exceeded", "Stream removed (Deadline Exceeded)"])
def test_grpcs_words_for_a_deadline_become_a_sentence(code: grpc.StatusCode, said: str) -> None:
    error = failures.from_status(code, said, None, "a-1")

    assert type(error) is tectum.DeadlineExceeded
    assert str(error) == "the deadline passed before the answer came"


async def test_a_message_over_the_clients_own_limit_is_too_large(worker: FakeWorker) -> None:
    large = np.zeros((200, 200, 3), np.uint8)
    with tectum.Client(worker.address, max_message_bytes=100_000) as client:
        sync = await raised(lambda: client.embed_images([large]))
    async with tectum.AsyncClient(worker.address, max_message_bytes=100_000) as aclient:
        parallel = await raised(aclient.embed_images([large]))

    for error in (sync, parallel):
        assert type(error) is tectum.TooLarge
        assert error.reason == "MESSAGE_TOO_LARGE"
        ((field, description),) = error.violations
        assert field == "images"
        assert re.fullmatch(
            r"found a message of 120\d\d\d bytes; allowed: at most 100000; "
            r"send fewer or smaller items at once, or encode pictures as JPEG or PNG",
            description,
        )
        assert str(error) == f"images: {description}"
    assert worker.seen == []


async def test_an_answer_over_the_clients_own_limit_is_too_large(worker: FakeWorker) -> None:
    with tectum.Client(worker.address, max_message_bytes=100) as client:
        sync = await raised(lambda: client.embed_texts(["a"]))
    async with tectum.AsyncClient(worker.address, max_message_bytes=100) as aclient:
        parallel = await raised(aclient.embed_texts(["a"]))

    for error in (sync, parallel):
        assert type(error) is tectum.TooLarge
        assert re.fullmatch(
            r"answer: found a message of \d+ bytes; allowed: at most 100 "
            r"\(max_message_bytes\); ask for fewer items at once",
            str(error),
        )


async def test_a_frame_over_the_clients_own_limit_is_too_large_and_the_stream_goes_on(
    worker: FakeWorker,
) -> None:
    large, small = (tectum.Frame(np.zeros((side, side, 3), np.uint8)) for side in (200, 4))
    with (
        tectum.Client(worker.address, max_message_bytes=100_000) as client,
        client.stream(embed=True) as stream,
    ):
        sync = await raised(lambda: stream.send(large))
        assert stream.send(small) == 0  # the other one took no number
        stream.finish()
        assert [result.frame_id for result in stream] == [0]
    async with (
        tectum.AsyncClient(worker.address, max_message_bytes=100_000) as aclient,
        aclient.stream(embed=True) as astream,
    ):
        parallel = await raised(lambda: astream.send(large))
        assert astream.send(small) == 0
        astream.finish()
        assert [result.frame_id async for result in astream] == [0]

    for error in (sync, parallel):
        assert type(error) is tectum.TooLarge
        assert error.reason == "MESSAGE_TOO_LARGE"
        ((field, description),) = error.violations
        assert field == "image"
        assert re.fullmatch(
            r"found a message of 120\d\d\d bytes; allowed: at most 100000; "
            r"send fewer or smaller items at once, or encode pictures as JPEG or PNG",
            description,
        )


async def test_frames_given_as_an_iterable_end_with_one_that_is_too_large(
    worker: FakeWorker,
) -> None:
    large = tectum.Frame(np.zeros((200, 200, 3), np.uint8), 1.0)
    with (
        tectum.Client(worker.address, max_message_bytes=100_000) as client,
        pytest.raises(tectum.TooLarge) as caught,
        client.stream([large], embed=True) as stream,
    ):
        list(stream)

    assert [violation.field for violation in caught.value.violations] == ["image"]


async def test_a_message_over_the_workers_limit_is_too_large(
    client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    large = np.zeros((1800, 1800, 3), np.uint8)

    assert type(await raised(lambda: client.embed_images([large]))) is tectum.TooLarge
    assert type(await raised(aclient.embed_images([large]))) is tectum.TooLarge


async def test_a_call_beyond_what_grpc_takes_at_once_is_overloaded() -> None:
    with FakeWorker(most_calls=1) as worker, tectum.Client(worker.address) as client:
        worker.orders.delay = 30
        first = asyncio.create_task(raised(lambda: client.embed_texts(["a"])))
        await asyncio.to_thread(wait_for, lambda: worker.seen)
        async with tectum.AsyncClient(worker.address) as aclient:
            parallel = await raised(aclient.embed_texts(["a"], retries=0))
        sync = await raised(lambda: client.embed_texts(["a"], retries=0))
        client.close()
        await first

    for error in (sync, parallel):
        assert type(error) is tectum.Overloaded
        assert error.retry_after == 0.1


async def test_a_call_beyond_that_is_tried_again() -> None:
    with FakeWorker(most_calls=1) as worker, tectum.Client(worker.address) as client:
        worker.orders.delay = 0.2
        both = await asyncio.gather(
            *(asyncio.to_thread(client.embed_texts, ["a"], retries=5) for _ in range(2))
        )

    assert [answer.vectors.shape for answer in both] == [(1, 8)] * 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 8)"),
        (grpc.StatusCode.INTERNAL, "Concurrent RPC limit exceeded!"),
    ],
)
def test_no_other_bare_failure_is_taken_for_that(code: grpc.StatusCode, message: str) -> None:
    error = failures.from_status(code, message, None, "a-1")

    assert type(error) is failures.CLASS_BY_CODE[code]
    assert error.retry_after is None


async def test_an_answer_that_contradicts_itself_is_an_internal_error(
    worker: FakeWorker,
    client: tectum.Client,
    aclient: tectum.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "tests.client.fake_worker.fake_answers.embed", lambda *_: [{"embedding": {"values": {}}}]
    )

    sync = await raised(lambda: client.embed_texts(["a"], request_id="a-1"))
    parallel = await raised(aclient.embed_texts(["a"], request_id="a-1"))

    for error in (sync, parallel):
        assert type(error) is tectum.InternalError
        assert error.request_id == "a-1"


async def test_a_closed_client_says_so(worker: FakeWorker) -> None:
    client, aclient = tectum.Client(worker.address), tectum.AsyncClient(worker.address)
    client.close()
    await aclient.close()

    for error in (
        await raised(lambda: client.embed_texts(["a"])),
        await raised(aclient.embed_texts(["a"])),
        await raised(lambda: client.stream(embed=True)),
        await raised(lambda: aclient.stream(embed=True)),
    ):
        assert type(error) is tectum.ClientClosed


@pytest.mark.parametrize("seconds", [None, 4.0])
async def test_closing_a_client_ends_its_calls(seconds: float | None, worker: FakeWorker) -> None:
    worker.orders.delay = 5
    client, aclient = tectum.Client(worker.address), tectum.AsyncClient(worker.address)
    sync = asyncio.create_task(raised(lambda: client.embed_texts(["a"], timeout=seconds)))
    parallel = asyncio.create_task(raised(aclient.embed_texts(["a"], timeout=seconds)))
    await asyncio.to_thread(wait_for, lambda: len(worker.seen) == 2)
    client.close()
    await aclient.close()

    assert type(await sync) is type(await parallel) is tectum.Cancelled


async def test_cancelling_a_task_cancels_the_call_on_the_worker(
    worker: FakeWorker, aclient: tectum.AsyncClient
) -> None:
    worker.orders.delay = 5
    task = asyncio.create_task(aclient.embed_texts(["a"]))
    await asyncio.to_thread(wait_for, lambda: worker.seen)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(worker.seen[0].ended.wait, 2)


def test_errors_survive_being_pickled() -> None:
    error = errors.invalid("images[3]", "found this; allowed: that")

    again = pickle.loads(pickle.dumps(error))

    assert (str(again), again.violations, again.reason) == (
        str(error),
        error.violations,
        error.reason,
    )
