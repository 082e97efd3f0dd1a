"""Texts as they come off the wire: checked, never changed."""

from __future__ import annotations

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure

__all__ = ["checked_text"]


def checked_text(text: str, max_bytes: int, field: str) -> str:
    """The text itself, if it is one the model may read.

    Raises:
        Failure: empty, too long, or with a NUL.
    """
    if not text.strip():
        raise Failure(errors_pb2.ERROR_REASON_FIELD_MISSING, "the text is empty", field)
    size = len(text.encode())
    if size > max_bytes:
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE,
            f"{size} bytes, at most {max_bytes} are allowed",
            field,
        )
    if "\0" in text:
        raise Failure(errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE, "the text holds a NUL", field)
    return text
