"""Over a real socket: hang-ups, bounds on bodies and requests, and a clean end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.client.fake_worker import FakeWorker, wait_for
from tests.server.gateway.checks import checked
from tests.server.gateway.live import LiveGateway, read_from

from tectum_server.gateway import CannotListen, GatewaySettings, serve
from tectum_server.gateway.serve import listen

TEXTS = json.dumps({"texts": ["a"]})
GET_MODELS = b"GET /v1/models HTTP/1.1\r\nHost: gateway\r\n"


def head(path: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: gateway", "Content-Type: application/json", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def whole(path: str = "/v1/embed/texts", body: str = TEXTS) -> bytes:
    return head(path, f"Content-Length: {len(body)}") + body.encode()


def chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def in_flight(live: LiveGateway) -> float | None:
    return sample(live, "tectum_gateway_requests_in_flight", {})


def answered(live: LiveGateway, route: str, code: str) -> float | None:
    labels = {"route": route, "code": code}
    return sample(live, "tectum_gateway_request_duration_seconds_count", labels)


def sample(live: LiveGateway, name: str, labels: dict[str, str]) -> float | None:
    value: float | None = live.app.state.metrics.registry.get_sample_value(name, labels)
    return value


# Hang-ups


def test_a_caller_that_hangs_up_cancels_the_call_on_the_worker(
    live: LiveGateway, worker: FakeWorker
) -> None:
    worker.orders.delay = 5
    began = time.monotonic()
    with live.connect() as connection:
        connection.sendall(whole())
        wait_for(lambda: worker.seen)
    wait_for(lambda: worker.seen[0].cancelled)

    assert time.monotonic() - began < 3
    wait_for(lambda: answered(live, "/v1/embed/texts", "499") == 1)
    assert in_flight(live) == 0


@pytest.mark.parametrize("path", ["/v1/embed/texts", "/v1/embed/images"])
def test_a_caller_that_hangs_up_while_it_sends_costs_the_worker_nothing(
    path: str, live: LiveGateway, worker: FakeWorker
) -> None:
    with live.connect() as connection:
        connection.sendall(head(path, "Content-Length: 100") + b"{")
        wait_for(lambda: in_flight(live) == 1)
    wait_for(lambda: answered(live, path, "499") == 1)

    assert worker.seen == []


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny"])
def test_so_does_one_that_sent_no_body(path: str, live: LiveGateway, worker: FakeWorker) -> None:
    worker.orders.delay = 5
    with live.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n".encode())
        wait_for(lambda: worker.seen)

    wait_for(lambda: worker.seen[0].cancelled)
    wait_for(lambda: in_flight(live) == 0)
    assert len(worker.seen) == 1


def test_a_caller_that_stays_gets_its_answer_and_may_ask_again(
    live: LiveGateway, worker: FakeWorker
) -> None:
    worker.orders.delay = 0.2
    with live.connect() as connection:
        for _ in range(2):
            connection.sendall(whole())
            assert read_from(connection)[0] == 200


# Bounds


@pytest.mark.parametrize("path", ["/v1/embed/texts", "/v1/embed/images", "/v1/embeddings"])
def test_a_body_that_says_it_is_too_large_is_refused_unread(path: str, live: LiveGateway) -> None:
    with live.connect() as connection:
        connection.sendall(head(path, "Content-Length: 100001"))
        status, headers, problem = read_from(connection)

    assert status == 413
    if path == "/v1/embeddings":
        assert problem["error"]["code"] == "message_too_large"
    else:
        assert headers["content-type"] == "application/problem+json"
        assert problem["reason"] == "MESSAGE_TOO_LARGE"
        assert problem["request_id"] == headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/embed/texts", "/v1/embed/images", "/v1/embeddings"])
def test_a_body_in_chunks_is_counted_as_it_comes(path: str, live: LiveGateway) -> None:
    with live.connect() as connection:
        connection.sendall(head(path, "Transfer-Encoding: chunked"))
        for _ in range(11):
            connection.sendall(chunk(b" " * 10_000))
        assert read_from(connection)[0] == 413

    assert live.app.state.client is not None
    wait_for(lambda: in_flight(live) == 0)


def test_a_form_in_chunks_is_counted_as_it_comes(live: LiveGateway) -> None:
    form = head("/v1/embed/images", "Transfer-Encoding: chunked").replace(
        b"application/json", b"multipart/form-data; boundary=x"
    )
    part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    with live.connect() as connection:
        connection.sendall(form + chunk(part))
        for _ in range(11):
            connection.sendall(chunk(b"0" * 10_000))
        assert read_from(connection)[0] == 413


def test_a_body_in_chunks_within_the_bounds_is_answered(live: LiveGateway) -> None:
    with live.connect() as connection:
        connection.sendall(head("/v1/embed/texts", "Transfer-Encoding: chunked"))
        for letter in TEXTS:
            connection.sendall(chunk(letter.encode()))
        connection.sendall(chunk(b""))

        assert read_from(connection)[0] == 200


def test_a_body_that_does_not_come_is_given_up(live: LiveGateway) -> None:
    with live.connect() as connection:
        connection.sendall(head("/v1/embed/texts", "Content-Length: 100") + b"{")
        began = time.monotonic()
        status, headers, _ = read_from(connection)

    assert status == 408
    assert headers["content-type"] == "application/problem+json"
    assert 0.5 < time.monotonic() - began < 3


def test_more_requests_than_allowed_at_once_are_refused(
    live: LiveGateway, worker: FakeWorker
) -> None:
    worker.orders.delay = 5
    waiting = [live.connect() for _ in range(4)]
    for connection in waiting:
        connection.sendall(whole())
    wait_for(lambda: len(worker.seen) == 4)

    problem = checked(httpx.post(f"{live.address}/v1/embed/texts", json={"texts": ["a"]}), 429)

    assert (problem["reason"], problem["retry_after_ms"]) == ("QUEUE_FULL", 1000)
    assert live.ask("GET", "/healthz")[0] == 200, "a full gateway is alive"
    assert live.ask("GET", "/metrics")[0] == 200
    for connection in waiting:
        connection.close()
    worker.orders.delay = 0
    wait_for(lambda: live.ask("POST", "/v1/embed/texts", {"texts": ["a"]})[0] == 200)


def test_bodies_held_together_are_bounded_and_given_back(
    live: LiveGateway, worker: FakeWorker
) -> None:
    worker.orders.delay = 5
    large = json.dumps({"texts": ["a" * 40_000] * 2})
    with live.connect() as first:
        first.sendall(whole(body=large))
        wait_for(lambda: worker.seen)
        headers = {"Content-Type": "application/json"}
        refused = httpx.post(f"{live.address}/v1/embed/texts", content=large, headers=headers)
        problem = checked(refused, 429)
        assert (problem["reason"], problem["retry_after_ms"]) == ("QUEUE_FULL", 1000)

    wait_for(lambda: worker.seen[0].cancelled)
    worker.orders.delay = 0
    with live.connect() as third:
        third.sendall(whole(body=large))
        assert read_from(third)[0] == 200


def test_a_body_that_a_route_has_no_use_for_is_bounded_too(
    live: LiveGateway, worker: FakeWorker
) -> None:
    worker.orders.delay = 5
    with live.connect() as large, live.connect() as slow:
        large.sendall(GET_MODELS + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(11):
            large.sendall(chunk(b" " * 10_000))
        slow.sendall(GET_MODELS + b"Content-Length: 100\r\n\r\n{")
        answers = [read_from(large), read_from(slow)]

    assert [answer[0] for answer in answers] == [413, 408]
    assert answers[0][2]["reason"] == "MESSAGE_TOO_LARGE"
    wait_for(lambda: all(seen.cancelled for seen in worker.seen))


def test_a_connection_that_speaks_no_http_is_no_harm(live: LiveGateway) -> None:
    with live.connect() as connection:
        connection.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")

    assert live.ask("GET", "/healthz")[0] == 200


# Beginning and end

MAIN = """
import sys
from tectum_server.gateway import GatewaySettings, serve
serve(GatewaySettings(port=0, worker_address=sys.argv[1]))
"""


@pytest.fixture
def process(worker: FakeWorker) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A gateway in a process of its own, and its port."""
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, worker.address], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        port = None
        for line in process.stderr:
            said: dict[str, Any] = json.loads(line)
            port = said.get("port", port)
            if said["message"].startswith("Application startup complete"):
                break
        assert port is not None
        yield process, port
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_in_flight_finish_and_ends_well(
    number: signal.Signals, process: tuple[subprocess.Popen[str], int], worker: FakeWorker
) -> None:
    running, port = process
    worker.orders.delay = 0.7
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(whole())
        wait_for(lambda: worker.seen)
        os.kill(running.pid, number)
        assert read_from(connection)[0] == 200

    assert running.wait(5) == 0
    assert running.stderr is not None
    last = [json.loads(line) for line in running.stderr.read().splitlines()]
    assert last[-1]["message"] == "stopped"


def test_a_signal_before_the_server_begins_is_no_less_heard(worker: FakeWorker) -> None:
    early = """
import signal, uvicorn
run = uvicorn.Server.run
uvicorn.Server.run = lambda *a, **k: (signal.raise_signal(signal.SIGTERM), run(*a, **k))
"""

    done = subprocess.run(
        [sys.executable, "-c", early + MAIN, worker.address],
        stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0
    assert json.loads(done.stderr.splitlines()[-1])["message"] == "stopped"


def test_a_port_in_use_is_named_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found: list[BaseException] = []

        def try_to_serve() -> None:
            try:
                serve(GatewaySettings(port=port))
            except CannotListen as error:
                found.append(error)

        # In a thread, so that this process's signals stay as they are.
        thread = threading.Thread(target=try_to_serve)
        thread.start()
        thread.join(5)

    assert f"port {port} on 127.0.0.1 is in use" in str(found[0])


def test_every_interface_is_also_every_family() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with listen("::", 0) as listener:
        port = listener.getsockname()[1]
        callers = []
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=5), listener.accept()[0] as met:
                callers.append(met.getpeername()[0])

    assert callers == ["::ffff:127.0.0.1", "::1"]


@pytest.mark.parametrize("host", ["203.0.113.9", "no such host", "a..b"])
def test_an_address_of_another_machine_is_not_said_to_be_in_use(host: str) -> None:
    with pytest.raises(CannotListen, match=f"port 80 on {host}: .*; see --host") as found:
        listen(host, 80)

    assert "in use" not in str(found.value)
    assert "while attempting" not in str(found.value)
