"""The port that metrics are scraped from: few connections at once, and none for long.

prometheus-client's own server has a thread for whoever connects, for as long as they like. What is
answered is its own; who is listened to, and for how long, is settled here.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from socketserver import BaseServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

__all__ = ["Scrapes", "answer_scrapes"]

_log = logging.getLogger(__name__)
_MOST = 8
"""Connections at once, each with a thread: a scraper has one, and a person looks now and then."""
_SECONDS = 10.0
"""From a connection to its end: Prometheus does not wait longer for an answer by default."""
_MAKING_ROOM = 0.2
"""Seconds for a connection that is cut off to be gone; one that is being answered takes longer."""


class Scrapes(ThreadingMixIn, WSGIServer):
    """A server of one registry.

    Args:
        host, port: where; port 0 picks a free one.
        registry: what is told.
        most: connections at once; for one more, the oldest is cut off.
        seconds: from a connection to its end.

    Raises:
        OSError: nothing can listen there.
    """

    daemon_threads = True

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        most: int = _MOST,
        seconds: float = _SECONDS,
    ) -> None:
        self._room = threading.Semaphore(most)
        self._seconds = seconds
        self._since: dict[socket.socket, float] = {}
        """Open connections, the oldest first; monotonic seconds."""
        self._lock = threading.Lock()
        self.address_family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        super().__init__((str(address[0]), port), _Quiet)
        self.set_app(make_wsgi_app(registry))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread, if there is one left, or the oldest connection can make room."""
        if not self._room.acquire(blocking=False):
            with self._lock:
                oldest = next(iter(self._since), None)
                if oldest is not None:
                    _cut(oldest)
            if not self._room.acquire(timeout=_MAKING_ROOM):
                self.shutdown_request(request)
                return
        with self._lock:
            self._since[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no thread to give
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread's work."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def shutdown_request(self, request: Any) -> None:
        """A connection is at its end."""
        with self._lock:  # so that nobody cuts off another that has its number
            self._since.pop(request, None)
            super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: who has been here too long is cut off."""
        last = time.monotonic() - self._seconds
        with self._lock:
            for connection, since in self._since.items():
                if since > last:
                    break
                _cut(connection)

    def handle_error(self, *_: object) -> None:
        """Whoever goes away in the middle is no fault of the worker's."""
        _log.debug("a scrape failed", exc_info=True)


class _Quiet(WSGIRequestHandler):
    """As prometheus-client's: scrapes are not logged."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def answer_scrapes(host: str, port: int, registry: CollectorRegistry) -> None:
    """Answer on threads of its own, until the process ends.

    Raises:
        OSError: nothing can listen there.
    """
    server: BaseServer = Scrapes(host, port, registry)
    threading.Thread(target=server.serve_forever, daemon=True, name="scrapes").start()


def _cut(connection: socket.socket) -> None:
    """End what is read from it and written to it, and so the thread that does."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the client was first
        return
