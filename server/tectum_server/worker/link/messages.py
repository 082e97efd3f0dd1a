"""What fronts and engine say to each other, msgpack on a Unix socket; arrays stay outside.

A front books space in the request segment and writes there; the space is its own again
when the answer to that request has come. The engine does the same in the response
segment until the front says Released. Of a job that was given Newer items, the space of those that
are not computed is free once it is Settled which these are.
"""

from __future__ import annotations

import msgspec

from tectum_server.worker.jobs import FilledToken, ItemFailure, ModelEntry, Operation, Sequel
from tectum_server.worker.link.arrays import ArrayRef
from tectum_server.worker.outlook import Outlook

__all__ = [
    "Answer",
    "AnswerItem",
    "Beat",
    "Cancel",
    "Catalogue",
    "Due",
    "ExpectControl",
    "FromEngine",
    "FromFront",
    "Load",
    "Loaded",
    "Newer",
    "Refusal",
    "Released",
    "Settled",
    "Submit",
    "SubmitItem",
    "Unload",
    "Want",
]


class SubmitItem(msgspec.Struct, frozen=True):
    """One item of a job."""

    arrays: tuple[ArrayRef, ...]
    text: str
    operation: Operation | None = None


class Submit(msgspec.Struct, frozen=True, tag=True):
    """A job."""

    request: int
    model: str
    operation: Operation
    priority: int
    deadline: float
    items: tuple[SubmitItem, ...]
    arrived: float | None = None
    version: str = ""
    request_id: str = ""
    sequel: Sequel | None = None
    turn: float | None = None
    renewable: bool = False
    """Whether the front may have newer items while it waits."""


class Newer(msgspec.Struct, frozen=True, tag=True):
    """A job's items anew, one answer to each Due."""

    request: int
    items: tuple[SubmitItem, ...]
    """Empty: there is nothing newer, and nothing to settle."""
    deadline: float
    """As the job's, which it replaces."""


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """The caller of a job has gone; the engine still answers, so that its space comes back."""

    request: int


class Released(msgspec.Struct, frozen=True, tag=True):
    """The front has read an answer's arrays."""

    offset: int


class Load(msgspec.Struct, frozen=True, tag=True):
    """Load a model."""

    request: int
    name: str
    version: str
    make_default: bool


class Unload(msgspec.Struct, frozen=True, tag=True):
    """Drop a model."""

    request: int
    name: str


class Want(msgspec.Struct, frozen=True, tag=True):
    """A model that has made room is asked for; nothing is answered but a new Catalogue."""

    name: str


class ExpectControl(msgspec.Struct, frozen=True, tag=True):
    """A CONTROL call came and was refused before it was sent; nothing is answered."""


class AnswerItem(msgspec.Struct, frozen=True, tag=True):
    """One item's output."""

    arrays: tuple[ArrayRef, ...]
    tokens: tuple[FilledToken, ...]
    text: str


class Answer(msgspec.Struct, frozen=True, tag=True):
    """A job's outputs."""

    request: int
    version: str
    items: tuple[AnswerItem | ItemFailure, ...]
    queue_seconds: float
    compute_seconds: float
    batch_size: int
    span: int | None
    """Offset to release once the arrays are read; None: there are none."""


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """A job, a load or an unload that failed as a whole."""

    request: int
    reason: int
    message: str
    field: str
    retry_after: float | None


class Due(msgspec.Struct, frozen=True, tag=True):
    """A job's turn is near: what is newer is wanted."""

    request: int
    patient: bool
    """Whether it can wait until there is something; else a Newer is due at once."""


class Settled(msgspec.Struct, frozen=True, tag=True):
    """What became of Newer items: they have the place of what the job had before, or it runs."""

    request: int
    taken: bool


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """A load or an unload that is done."""

    request: int
    entry: ModelEntry | None


class Catalogue(msgspec.Struct, frozen=True, tag=True):
    """The models, in whatever state; sent at once on connection, and whenever it changes."""

    models: tuple[ModelEntry, ...]
    start_seconds: float | None = None
    """What the engine took from its beginning until it served; None: it does not yet, or nobody
    knows."""


class Beat(msgspec.Struct, frozen=True, tag=True):
    """The engine's event loop turns."""

    outlook: Outlook | None = None
    """What it has to do; None: nothing."""


FromFront = Submit | Newer | Cancel | Released | Load | Unload | Want | ExpectControl
FromEngine = Answer | Refusal | Due | Settled | Loaded | Catalogue | Beat
