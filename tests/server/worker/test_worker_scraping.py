"""Whoever connects to the metrics' port and how: it takes few threads, and none for long."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from tests.server.worker.serving import PATIENCE, until

from tectum_server.worker.scraping import Scrapes

UNHURRIED = 3600.0


class Scraped:
    """A server on its thread."""

    def __init__(self, most: int, seconds: float) -> None:
        self.registry = CollectorRegistry()
        Counter("asked", "How often.", registry=self.registry).inc(3)
        self._server = Scrapes("127.0.0.1", 0, self.registry, most, seconds)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def connect(self, holds: int = 0) -> socket.socket:
        """A client that has said nothing, with room for so many bytes that it has not read."""
        made = socket.socket()
        if holds:  # else as many as the system lets it grow to
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, holds)
        made.settimeout(PATIENCE)
        made.connect(("127.0.0.1", self.port))
        return made

    def scrape(self) -> str:
        """As Prometheus does."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE
        ) as answer:
            return str(answer.read().decode())

    @property
    def open(self) -> int:
        """Connections that have threads."""
        return len(self._server._since)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def scraped() -> Iterator[Callable[..., Scraped]]:
    started: list[Scraped] = []

    def start(most: int = 2, seconds: float = UNHURRIED) -> Scraped:
        started.append(Scraped(most, seconds))
        return started[-1]

    yield start
    for one in started:
        one.close()


def threads() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def ended(connection: socket.socket) -> bool:
    """Whether the server has hung up; waits for it."""
    return connection.recv(1) == b""


def test_a_scrape_is_prometheus_own(scraped: Callable[..., Scraped]) -> None:
    assert "asked_total 3.0" in scraped().scrape()


def test_however_many_are_silent_few_have_threads_and_a_scrape_is_answered(
    scraped: Callable[..., Scraped],
) -> None:
    server = scraped(most=4)
    with ExitStack() as clients:
        silent = [clients.enter_context(server.connect()) for _ in range(60)]

        assert "asked_total 3.0" in server.scrape()

        assert threads() <= 4
        assert all(ended(one) for one in silent[:-4])


def test_for_one_more_the_oldest_makes_room(scraped: Callable[..., Scraped]) -> None:
    server = scraped(most=2)
    with server.connect() as first, server.connect() as second, server.connect() as third:
        assert ended(first)

        for one in (second, third):
            one.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert one.recv(12) == b"HTTP/1.0 200"


def test_who_says_nothing_is_not_listened_to_for_ever(scraped: Callable[..., Scraped]) -> None:
    server = scraped(seconds=0.05)

    with server.connect() as silent:
        assert ended(silent)

    until(lambda: server.open == 0 and threads() == 0)


def test_who_says_a_little_now_and_then_has_no_longer(scraped: Callable[..., Scraped]) -> None:
    server = scraped(seconds=0.3)

    def drips() -> None:
        with server.connect() as dripping:
            while True:
                dripping.sendall(b"x")
                threading.Event().wait(0.02)

    with pytest.raises(OSError):
        drips()


def test_who_does_not_read_its_answer_is_cut_off(scraped: Callable[..., Scraped]) -> None:
    server = scraped(seconds=0.5)
    many = Gauge("many", "x" * 100, ("number",), registry=server.registry)
    for number in range(4000):
        many.labels("y" * 2000 + str(number)).set(1)  # more than its own socket holds

    with server.connect(holds=65536) as deaf:
        deaf.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        until(lambda: server.open == 1)
        until(lambda: server.open == 0 and threads() == 0)
        with deaf.makefile("rb") as answer, suppress(ConnectionResetError):
            came = b""
            while part := answer.read1():
                came += part

    assert b"asked_total" in came
    assert b"y" * 2000 + b"3999" not in came  # what did not fit was not sent


def test_while_all_are_being_answered_one_more_is_turned_away(
    scraped: Callable[..., Scraped],
) -> None:
    server, asked, go_on = scraped(most=1), threading.Event(), threading.Event()

    class Slow:
        def collect(self) -> Iterator[object]:
            asked.set()
            go_on.wait(PATIENCE)
            yield from ()

    server.registry.register(Slow())  # type: ignore[arg-type] # it describes nothing
    asked.clear()
    with server.connect() as first:
        first.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert asked.wait(PATIENCE)
        with server.connect() as second:
            assert ended(second)
            assert threads() == 1
        go_on.set()


def test_a_port_that_is_taken_is_an_error(scraped: Callable[..., Scraped]) -> None:
    server = scraped()

    with pytest.raises(OSError, match="in use"):
        Scrapes("127.0.0.1", server.port, server.registry)
