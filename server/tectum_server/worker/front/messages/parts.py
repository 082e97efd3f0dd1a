"""Large pictures stay in the message as it came: what is unpacked has their names in their places.

Unpacking a message copies all that is in it, and so does asking it for a picture's bytes, while
nothing else of the process runs: 30 ms each for the largest message, of which every other caller
hears. So a picture's bytes are cut out before, and seen where they lie; without them a message is
small. A name is not to be guessed, so that nobody sends one.
"""

from __future__ import annotations

import os
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tectum.v1 import image_pb2
from tectum_server.worker.front.messages.fields import DELIMITED, GROUPS, as_varint, fields

__all__ = ["Parts", "Places", "pictures_in"]

LARGE = 2**20
"""Bytes of a message from which on that is done; a smaller one is copied in a millisecond."""
_PART = 2**16
"""Bytes of a picture that is left where it is."""
_PICTURES = (image_pb2.Image.DESCRIPTOR, image_pb2.RawImage.DESCRIPTOR)
Places = dict[int, Any]
"""By field number: the same of a message in that field, or None for a picture's bytes."""


class Parts:
    """The pictures that were left where they are, of one message."""

    def __init__(self) -> None:
        self._mark = os.urandom(16)
        self._parts: list[memoryview] = []

    def of(self, data: bytes) -> bytes | memoryview:
        """A picture's bytes, by what its message has in their place: their name, or themselves."""
        if len(data) != len(self._mark) + 4 or not data.startswith(self._mark):
            return data
        return self._parts[int.from_bytes(data[len(self._mark) :], "big")]

    def cut(self, data: bytes, places: Places) -> bytes:
        """The message with names in place of large pictures.

        One that is damaged, or small, is given back as it is: who unpacks it says the rest.
        """
        if len(data) < LARGE or not places:
            return data
        try:
            return self._cut(memoryview(data), 0, len(data), places)
        except IndexError:
            self._parts.clear()
            return data

    def _cut(self, data: memoryview, at: int, end: int, places: Places) -> bytes:
        """The same for what lies between."""
        pieces, copied = list[bytes | memoryview](), at
        for number, kind, named, begins, ends in fields(data, at, end):
            if kind in GROUPS:
                raise IndexError("groups are left to who unpacks them")
            if ends > end:
                raise IndexError("it ends before it should")
            inside = places.get(number, ()) if kind == DELIMITED else ()
            if inside is None and ends - begins >= _PART:
                piece = self._name(data[begins:ends])
            elif inside:
                piece = self._cut(data, begins, ends, inside)
            else:
                continue
            pieces += (data[copied:named], as_varint(len(piece)), piece)
            copied = ends
        return b"".join((*pieces, data[copied:end]))

    def _name(self, part: memoryview) -> bytes:
        self._parts.append(part)
        return self._mark + (len(self._parts) - 1).to_bytes(4, "big")


def pictures_in(message: Descriptor) -> Places:
    """Where a message has pictures' bytes; empty: nowhere."""
    places: Places = {}
    for field in message.fields:
        if field.message_type is not None:
            if inside := pictures_in(field.message_type):
                places[field.number] = inside
        elif field.type == FieldDescriptor.TYPE_BYTES and message in _PICTURES:
            places[field.number] = None
    return places
