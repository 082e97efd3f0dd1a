"""Messages on a Unix socket: a length, then msgpack. Knows no jobs."""

from __future__ import annotations

import asyncio
import struct
from typing import Generic, TypeVar

import msgspec

__all__ = ["Channel", "MessageTooLong"]

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_LENGTH = struct.Struct("<I")
_LARGEST = 64 * 2**20  # texts and references only; anything larger is a fault


class MessageTooLong(ValueError):
    """A message that the other end would not take; nothing of it was sent."""


class Channel(Generic[_In, _Out]):
    """One end: receives `_In`, sends `_Out`.

    Args:
        reader, writer: of a connected stream socket.
        decoder: of everything that may arrive.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: msgspec.msgpack.Decoder[_In],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = decoder
        self._encoder = msgspec.msgpack.Encoder()

    def send(self, message: _Out) -> None:
        """Queue a message for sending; how much may wait is bounded by what may be in flight.

        Raises:
            MessageTooLong: this one alone is lost; the channel goes on.
        """
        payload = self._encoder.encode(message)
        if len(payload) > _LARGEST:
            raise MessageTooLong(f"{len(payload)} bytes, at most {_LARGEST} are allowed")
        self._writer.write(_LENGTH.pack(len(payload)) + payload)

    async def receive(self) -> _In:
        """The next message.

        Raises:
            ConnectionError: the other end has gone.
        """
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > _LARGEST:
                raise ConnectionError(f"a message of {length} bytes cannot be genuine")
            return self._decoder.decode(await self._reader.readexactly(length))
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the other end has gone") from error

    def close(self) -> None:
        """Close this end."""
        self._writer.close()
