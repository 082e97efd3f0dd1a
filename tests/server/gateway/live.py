"""A gateway on a real port, in a thread of the test's own process."""

import contextlib
import http.client
import json
import socket
import threading
import time
from typing import Any, Self

import uvicorn

from tectum_server.gateway import GatewaySettings, create_app
from tectum_server.gateway.serve import listen


class LiveGateway:
    """Serves while it is entered."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.app = create_app(settings)
        self._listener = listen(settings.host, settings.port)
        self.port: int = self._listener.getsockname()[1]
        config = uvicorn.Config(
            self.app, log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        ends = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < ends, "the gateway did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()

    @property
    def address(self) -> str:
        """Where it is found."""
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """One request: status, headers in lower case, and the body, parsed where it is JSON."""
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        ) as connection:
            content = None if body is None else json.dumps(body)
            given = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, content, given)
            return read(connection.getresponse())


def read(response: http.client.HTTPResponse) -> tuple[int, dict[str, str], Any]:
    """An answer's status, headers in lower case, and body, parsed where it is JSON."""
    headers = {name.lower(): value for name, value in response.getheaders()}
    content = response.read()
    is_json = "json" in headers.get("content-type", "")
    return response.status, headers, json.loads(content) if is_json else content


def read_from(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """The answer to what was written to a bare connection."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return read(response)
