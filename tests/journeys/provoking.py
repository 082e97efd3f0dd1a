"""Ways to make the real product refuse, fail or be away; each gives what REST then answers.

The engine is held still (SIGSTOP) where a test needs it busy: then nothing depends on how fast
the machine is.
"""

from __future__ import annotations

import base64
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
from tests.bundles import picture, png
from tests.journeys.openapi import Operation
from tests.journeys.product import ADMIN, Pair, in_thread
from tests.server.worker.serving import until

MOST_BYTES, MOST_QUEUED, MOST_AT_ONCE = 200_000, 16, 256
"""What the provoked pair takes: bytes of a body, items that wait, requests in a gateway."""
TEXTS, PICTURES = "/v1/embed/texts", "/v1/embed/images"
ONE = {"texts": ["open the door"]}
UNHURRIED = {"X-Tectum-Deadline-Ms": "60000"}
NOWHERE = "0" * 16

# ---------------------------------------------------------------- each of the contract's reasons


def message_too_large(pair: Pair) -> httpx.Response:
    """A body beyond the gateway's limit."""
    return pair.http.post(TEXTS, json={"texts": ["a" * MOST_BYTES]})


def credentials_invalid(pair: Pair) -> httpx.Response:
    """A token that nobody was given."""
    return pair.http.post(TEXTS, json=ONE, headers={"Authorization": "Bearer nobodys"})


def permission_missing(pair: Pair) -> httpx.Response:
    """A token that may load models and not ask them."""
    return pair.http.post(TEXTS, json=ONE, headers={"Authorization": f"Bearer {ADMIN}"})


def model_not_found(pair: Pair) -> httpx.Response:
    """A model that is not loaded."""
    return pair.http.get("/v1/models/leg")


def capability_missing(pair: Pair) -> httpx.Response:
    """A model without the head."""
    return pair.http.post(TEXTS, json={**ONE, "model": "slow"})


def space_mismatch(pair: Pair) -> httpx.Response:
    """A space that no model of this worker has."""
    return pair.http.post(TEXTS, json=ONE, headers={"X-Tectum-Expected-Space": NOWHERE})


def queue_full(pair: Pair) -> httpx.Response:
    """One more item than may wait."""
    with queue_taken(pair):
        return pair.http.post(TEXTS, json=ONE, headers=UNHURRIED)


def deadline_passed(pair: Pair) -> httpx.Response:
    """A control loop's call without a deadline, whose class's own passes while it waits."""
    with pair.held():
        return pair.http.post(TEXTS, json=ONE, headers={"X-Tectum-Priority": "control"})


def deadline_infeasible(pair: Pair) -> httpx.Response:
    """Half the time that the slow model takes for this picture alone."""

    def ask() -> httpx.Response:
        headers = {"X-Tectum-Deadline-Ms": str(0.5 * slow_ms(pair))}
        return pair.http.post(PICTURES, json=slow(), headers=headers)

    return first(ask, "DEADLINE_INFEASIBLE")


def deadline_unreachable(pair: Pair) -> httpx.Response:
    """Time enough for this picture alone, but others go first."""
    urgent = UNHURRIED | {"X-Tectum-Priority": "control"}

    def ask() -> httpx.Response:
        headers = {"X-Tectum-Deadline-Ms": str(2 * slow_ms(pair))}
        ahead = [
            in_thread(lambda: pair.http.post(PICTURES, json=slow(), headers=urgent))
            for _ in range(4)
        ]
        answer = pair.http.post(PICTURES, json=slow(), headers=headers)
        assert [one.result().status_code for one in ahead] == [200] * 4
        return answer

    return first(ask, "DEADLINE_UNREACHABLE")


def engine_unavailable(pair: Pair) -> httpx.Response:
    """The engine is killed; another one comes."""
    os.kill(pair.engine(), signal.SIGKILL)
    answer = first(lambda: pair.http.post(TEXTS, json=ONE), "ENGINE_UNAVAILABLE")
    until(pair.ready)
    return answer


def draining(pair: Pair) -> httpx.Response:
    """The worker was told to end while it has work; it ends."""
    with queue_taken(pair):
        pair.worker.interrupt(signal.SIGTERM)
        return first(lambda: pair.http.post(TEXTS, json=ONE), "DRAINING")


REASONS: dict[str, Callable[[Pair], httpx.Response]] = {
    provoke.__name__.upper(): provoke
    for provoke in (
        message_too_large, credentials_invalid, permission_missing, model_not_found,
        capability_missing, space_mismatch, queue_full, deadline_passed, deadline_infeasible,
        deadline_unreachable, engine_unavailable,
    )
}  # fmt: skip
"""How to provoke each, in an order that leaves the pair serving; `draining` comes last of all."""

# ---------------------------------------------------------------- each documented status


def asked(
    pair: Pair, operation: Operation, body: Any = None, content: bytes | None = None, **headers: str
) -> httpx.Response:
    """Ask an operation with its own example, changed in some way."""
    path = operation.path.format(name="full")
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if content is not None:
        sent = {"Content-Type": "application/json", **sent}
        return pair.http.request(operation.method, path, content=content, headers=sent)
    example = operation.body
    given = None if example is None else {**example, **(body or {})}
    return pair.http.request(operation.method, path, json=given, headers=sent)


def unknown_model(pair: Pair, operation: Operation) -> httpx.Response:
    """A model that is not loaded, in the path or in the body."""
    if "{name}" in operation.path:
        return pair.http.request(operation.method, operation.path.format(name="leg"))
    return asked(pair, operation, body={"model": "leg"})


@contextmanager
def crowded(pair: Pair) -> Iterator[None]:
    """While the gateway is full of requests whose bodies do not come."""
    in_flight = "tectum_gateway_requests_in_flight"
    fields = "Host: gateway\r\nContent-Type: application/json\r\nContent-Length: 9"
    head = f"POST {TEXTS} HTTP/1.1\r\n{fields}\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(MOST_AT_ONCE):
            connection = socket.create_connection(("127.0.0.1", pair.gateway_port))
            stack.enter_context(connection).sendall(head.encode())
        until(lambda: pair.gateway_metric(in_flight) > MOST_AT_ONCE)
        yield
    until(lambda: pair.gateway_metric(in_flight) == 1)  # the scrape itself


STATUSES: dict[int, Callable[[Pair, Operation], httpx.Response]] = {
    400: lambda pair, operation: asked(pair, operation, content=b"{"),
    401: lambda pair, operation: asked(pair, operation, Authorization="Bearer nobodys"),
    403: lambda pair, operation: asked(pair, operation, Authorization=f"Bearer {ADMIN}"),
    404: unknown_model,
    409: lambda pair, operation: asked(pair, operation, X_Tectum_Expected_Space=NOWHERE),
    413: lambda pair, operation: asked(pair, operation, content=b" " * (MOST_BYTES + 1)),
    415: lambda pair, operation: asked(pair, operation, content=b"a", Content_Type="text/plain"),
    422: lambda pair, operation: asked(pair, operation, X_Tectum_Priority="urgent"),
    429: asked,
    504: lambda pair, operation: asked(pair, operation, X_Tectum_Deadline_Ms="1e-6"),
}
"""How to provoke each of any operation that documents it, while the worker lives; 429 within
`crowded`."""

# ---------------------------------------------------------------- means


@contextmanager
def queue_taken(pair: Pair) -> Iterator[None]:
    """While the engine stands still and one request has every place; it is answered afterwards."""
    every = {"texts": ["open the door"] * MOST_QUEUED}
    with pair.held():
        # Either may come first; who had the places before gives them back, many times before the
        # engine has been silent for so long that it is away.
        waiting = in_thread(lambda: accepted(pair, every))
        brief = {"X-Tectum-Deadline-Ms": "40"}
        first(lambda: pair.http.post(TEXTS, json=ONE, headers=brief), "QUEUE_FULL")
        yield
    assert all("embedding" in result for result in waiting.result().json()["results"])


def accepted(pair: Pair, body: Any) -> httpx.Response:
    """Ask until there is room, and wait for the answer."""
    while True:
        answer = pair.http.post(TEXTS, json=body, headers=UNHURRIED)
        if answer.status_code != 429:
            return answer.raise_for_status()


def slow() -> dict[str, Any]:
    """A picture for the slow model."""
    return {"images": [base64.b64encode(png(picture())).decode()], "model": "slow"}


def slow_ms(pair: Pair) -> float:
    """Milliseconds that the slow model takes for it."""
    answer = pair.http.post(PICTURES, json=slow(), headers=UNHURRIED)
    assert answer.status_code == 200, answer.text
    return float(answer.json()["info"]["timings"]["compute_ms"])


def first(ask: Callable[[], httpx.Response], reason: str) -> httpx.Response:
    """Ask again and again until this is why there is no answer."""
    found: list[httpx.Response] = []

    def asks() -> bool:
        found.append(ask())
        return bool(found[-1].json().get("reason") == reason)

    until(asks)
    return found[-1]
