"""Messages come packed, and are counted through before they are unpacked.

Both are left to whoever gets them, who knows first whether the caller may ask at all.

An empty item is two bytes on the wire and a hundred once it is unpacked: the largest message
would be gigabytes, and unpacking it would keep every other caller waiting for seconds. So a
message with more in it than any request has use for is not unpacked at all. Counting goes
through the message's fields, not its bytes: for pictures that is a handful of steps.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.messages.fields import DELIMITED, fields
from tectum_server.worker.front.messages.parts import Parts, pictures_in

__all__ = ["Packed", "Unpacking", "elements"]

_MOST, _PER_ITEM = 2**16, 16
"""Fields and list elements in one message: so many, and so many more for each item allowed."""
_Known = dict[int, Any]
"""By field number: what a message in that field knows, or None for numbers packed together."""
_UNPACKED = {
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_MESSAGE,
    FieldDescriptor.TYPE_GROUP,
}


@dataclass(frozen=True, slots=True)
class Packed:
    """A request as it came."""

    data: bytes
    """The message."""
    unpack: Callable[[bytes, Parts | None], Any]
    """Makes the message of it; raises Failure if there is too much in it, or it is damaged. Large
    pictures are left where they are, if there are parts to take them."""


class Unpacking(grpc.aio.ServerInterceptor):
    """What calls of these services get for a request: Packed.

    Args:
        services: whose requests are counted through.
        max_items: items that one request may have.
    """

    def __init__(self, services: tuple[ServiceDescriptor, ...], max_items: int) -> None:
        self._most = _MOST + _PER_ITEM * max_items
        self._known = {
            f"/{service.full_name}/{method.name}": (
                _known(method.input_type),
                pictures_in(method.input_type),
            )
            for service in services
            for method in service.methods
        }

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, with a counter before what unpacks its requests, once asked to."""
        handler = await continuation(handler_call_details)
        found = self._known.get(handler_call_details.method)
        if handler is None or found is None:
            return handler
        known, pictures = found
        unpack = handler.request_deserializer

        def counted(data: bytes, parts: Parts | None) -> Any:
            # In so few bytes there cannot be more than is allowed.
            if len(data) > _MOST and elements(data, known, self._most) > self._most:
                raise Failure(
                    errors_pb2.ERROR_REASON_TOO_MANY_ITEMS,
                    f"the message has more than {self._most} fields and list elements, "
                    "no more are allowed",
                )
            try:
                return unpack(data if parts is None else parts.cut(data, pictures))
            except DecodeError as error:
                raise Failure(
                    errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE, "the message is damaged"
                ) from error

        return handler._replace(request_deserializer=lambda data: Packed(data, counted))


def elements(data: bytes, known: _Known, most: int) -> int:
    """Fields and packed bytes in a message and all that is in it; counting ends beyond `most`.

    A message that is damaged is counted as far as it can be read: who unpacks it says the rest.
    """
    return most + 1 - _left(data, 0, len(data), known, most + 1)


def _left(data: bytes, at: int, end: int, known: _Known, left: int) -> int:
    """How many more there may be, after those in a part of the bytes."""
    with suppress(IndexError):
        for number, kind, _, begins, ends in fields(data, at, end):
            left -= 1  # a group begins or ends: its fields are counted like any
            if kind == DELIMITED and number in known:
                inside = known[number]
                if inside is None:
                    left -= ends - begins
                else:
                    left = _left(data, begins, min(ends, end), inside, left)
            if left <= 0:
                break
    return max(left, 0)


def _known(message: Descriptor) -> _Known:
    known: _Known = {}
    for field in message.fields:
        if field.message_type is not None:
            known[field.number] = _known(field.message_type)
        elif field.is_repeated and field.type not in _UNPACKED:
            known[field.number] = None
    return known
