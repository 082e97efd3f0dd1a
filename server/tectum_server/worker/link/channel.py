"""Messages on a Unix socket: a length, then msgpack. Knows no jobs.

What is said within one turn of the event loop leaves together, and what has arrived together is
heard without a turn between: where many small jobs cross, that is most of what crossing costs.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Generic, Self, TypeVar, cast

import msgspec

__all__ = ["Channel", "MessageTooLong"]

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_LENGTH = struct.Struct("<I")
_LARGEST = 64 * 2**20  # texts and references only; anything larger is a fault


class MessageTooLong(ValueError):
    """A message that the other end would not take; nothing of it was sent."""


class Channel(asyncio.Protocol, Generic[_In, _Out]):
    """One end: receives `_In`, sends `_Out`.

    Args:
        decoder: of everything that may arrive.
    """

    def __init__(self, decoder: msgspec.msgpack.Decoder[_In]) -> None:
        self._decoder = decoder
        self._encoder = msgspec.msgpack.Encoder()
        self._loop = asyncio.get_running_loop()
        self._listener: Callable[[_In], None] | None = None
        self._arrived = bytearray()
        """The beginning of a message whose end has not come."""
        self._outgoing: list[bytes] = []
        self._ended: asyncio.Future[Exception] = self._loop.create_future()

    @classmethod
    async def over(cls, sock: socket.socket, decoder: msgspec.msgpack.Decoder[_In]) -> Self:
        """A channel on a connected stream socket, which is its own from now on."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(decoder), sock=sock)
        return channel

    def send(self, message: _Out) -> None:
        """Queue a message for sending; how much may wait is bounded by what may be in flight.

        Raises:
            MessageTooLong: this one alone is lost; the channel goes on.
        """
        payload = self._encoder.encode(message)
        if len(payload) > _LARGEST:
            raise MessageTooLong(f"{len(payload)} bytes, at most {_LARGEST} are allowed")
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += (_LENGTH.pack(len(payload)), payload)

    async def hear(self, listener: Callable[[_In], None]) -> None:
        """Call `listener` with each message as it comes; what came before waits.

        Raises:
            ConnectionError: the other end has gone, as it does in the end.
            msgspec.DecodeError: what came is no message.
            Exception: the listener's; it hears no more.
        """
        self._listener = listener
        self._heard(b"")
        self._transport.resume_reading()
        raise await self._ended

    @property
    def backs_up(self) -> bool:
        """Whether the other end has not taken all that was sent."""
        return self._transport.get_write_buffer_size() > 0

    def close(self) -> None:
        """Close this end, once all is sent."""
        self._flush()
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        if self._listener is None:  # asyncio itself begins to read, whatever it was told before
            self._transport.pause_reading()
            self._arrived += data
        else:
            self._heard(data)

    def connection_lost(self, _: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._end(ConnectionError("the other end has gone"))

    def _heard(self, data: bytes) -> None:
        """Take what has arrived, and hear every message that is there as a whole."""
        if self._ended.done() or self._listener is None:
            return
        try:
            self._arrived += data
            self._read(self._listener)
        except Exception as error:
            self._end(error)

    def _read(self, listener: Callable[[_In], None]) -> None:
        arrived, at = self._arrived, 0
        while len(arrived) >= at + _LENGTH.size:
            (length,) = _LENGTH.unpack_from(arrived, at)
            if length > _LARGEST:
                raise ConnectionError(f"a message of {length} bytes cannot be genuine")
            begins = at + _LENGTH.size
            if len(arrived) < begins + length:
                break
            at = begins + length
            listener(self._decoder.decode(memoryview(arrived)[begins:at]))
        del arrived[:at]

    def _flush(self) -> None:
        waiting, self._outgoing = self._outgoing, []
        if waiting and not self._transport.is_closing():
            self._transport.write(b"".join(waiting))

    def _end(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_result(error)
