"""What a worker's and a gateway's answers say, in the driver's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.running import invoke

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


@given(st.sampled_from([200, 404, 429, 502, 503, 504]), st.binary())
def test_whatever_a_proxy_answers_is_an_answer(status: int, content: bytes) -> None:
    found = gateway.answer_of(status, gateway.body_of(httpx.Response(status, content=content)))

    assert found.outcome is not Outcome.ANSWERED
    assert found.reason


@pytest.mark.parametrize(("status", "told"), [(502, "HTTP 502"), (200, "no answer of a gateway's")])
def test_a_page_is_a_call_that_failed(status: int, told: str) -> None:
    page = httpx.Response(status, html="<h1>Bad Gateway</h1>")

    assert gateway.answer_of(status, gateway.body_of(page)) == Answer(Outcome.FAILED, told)


# ---------------------------------------------------------------- behind a proxy

MODEL = {
    "id": "tiny",
    "version": "1",
    "default_model": True,
    "capabilities": ["embed_images"],
    "limits": {"max_items": 64},
    "input": {},
    "spaces": [],
}
Reply = tuple[int, bytes]
PAGE: Reply = (502, b"<html><h1>502 Bad Gateway</h1></html>")


@contextmanager
def proxy(listing: Reply, answers: Callable[[int], Reply]) -> Iterator[str]:
    """The address of a server that says of its models, and to its calls by number, this."""
    numbers = iter(range(10**9))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._say(listing)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._say(answers(next(numbers)))

        def _say(self, reply: Reply) -> None:
            status, content = reply
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


def written(value: object) -> Reply:
    return 200, json.dumps(value).encode()


@pytest.mark.parametrize(
    ("listing", "told"),
    [
        (PAGE, "{} answered 502: Bad Gateway"),
        ((200, PAGE[1]), "what answers at {} is no gateway: it lists no models at /v1/models"),
        (written({"models": []}), "what answers at {} is no gateway: it lists no models at"),
        (written({"data": [{"id": "gpt"}]}), "what answers at {} is no gateway: it lists no"),
        (written([]), "what answers at {} is no gateway: it lists no models at /v1/models"),
    ],
)
def test_what_is_no_gateway_is_said_to_be_none(listing: Reply, told: str) -> None:
    with proxy(listing, lambda _: PAGE) as address:
        result = invoke("bench", "--gateway", address, "--seconds", 0.2, "--warmup", 0)

    assert result.exit_code == 1
    assert told.format(address) in result.stderr


def test_a_page_in_the_middle_of_a_load_costs_one_call(tmp_path: Path) -> None:
    path, answer = tmp_path / "load.json", written(body({"embedding": {}}))

    with proxy(written({"data": [MODEL]}), lambda n: PAGE if n == 1 else answer) as address:
        flags = "--seconds", 0.5, "--warmup", 0, "--size", 8, "--json", path
        result = invoke("bench", "--gateway", address, *flags)

    assert result.exit_code == 0
    told = json.loads(path.read_text())["all"]
    assert told["reasons"] == {"HTTP 502": 1}
    assert told["outcomes"]["failed"] == 1
    assert told["outcomes"]["answered"] > 1
