"""A caller below grpc: it sends of a long message what the server lets it, and counts.

Source: HTTP/2 (RFC 9113), sections 4.1 (frames), 6.5 (settings), 6.9 (flow control); literal
header fields as HPACK (RFC 7541), section 6.2.2, has them.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_INITIAL_WINDOW = 4
_FIRST_WINDOW, _LARGEST_FRAME = 65_535, 16_384


class Stranger:
    """One call with a request of so many bytes, of which the last never comes.

    Attributes:
        sent: bytes of it that the server let through so far.
        ended: the server has ended the call.
    """

    def __init__(self, port: int, method: str, size: int) -> None:
        self.sent, self.ended = 0, False
        self._length = size + 4  # its prefix of five bytes, less the last of all
        self._prefix = b"\0" + size.to_bytes(4, "big")
        self._connection_window = self._stream_window = self._initial = _FIRST_WINDOW
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._frame(_SETTINGS)
        fields = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "x"}
        fields |= {"content-type": "application/grpc", "te": "trailers"}
        block = b"".join(b"\x10" + _text(name) + _text(value) for name, value in fields.items())
        self._frame(_HEADERS, _END_HEADERS, 1, block)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """Go away."""
        with suppress(OSError):  # the server may have been first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    @property
    def said_all(self) -> bool:
        """Whether there is nothing left to send but the last byte."""
        return self.sent == self._length

    def _run(self) -> None:
        received = self._socket.makefile("rb")
        try:
            while not self.ended:
                self._send()
                head = received.read(9)
                if len(head) < 9:
                    return
                payload = received.read(int.from_bytes(head[:3], "big"))
                self._hear(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
        except OSError:
            return

    def _send(self) -> None:
        while room := min(
            self._connection_window,
            self._stream_window,
            _LARGEST_FRAME,
            self._length - self.sent,
        ):
            if room < 0:
                return
            data = self._prefix[self.sent :][:room]
            self._frame(_DATA, stream=1, payload=data + bytes(room - len(data)))
            self._connection_window -= room
            self._stream_window -= room
            self.sent += room

    def _hear(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW and stream:
            self._stream_window += int.from_bytes(payload, "big")
        elif kind == _WINDOW:
            self._connection_window += int.from_bytes(payload, "big")
        elif kind == _SETTINGS and not flags & _ACK:
            for start in range(0, len(payload), 6):
                if int.from_bytes(payload[start : start + 2], "big") == _INITIAL_WINDOW:
                    initial = int.from_bytes(payload[start + 2 : start + 6], "big")
                    self._stream_window += initial - self._initial
                    self._initial = initial
            self._frame(_SETTINGS, _ACK)
        elif kind == _PING and not flags & _ACK:
            self._frame(_PING, _ACK, payload=payload)
        elif kind in (_RESET, _GOAWAY) or (kind == _HEADERS and flags & _END_STREAM):
            self.ended = True

    def _frame(self, kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> None:
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
        self._socket.sendall(head + payload)


def _text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()
