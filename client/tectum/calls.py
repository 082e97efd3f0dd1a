"""A call before it is made: what to send, how to read the answer, and by when.

Shared by both clients and by streams, and pure: the clock's reading and the dice are arguments.
`surface.py` makes calls, `client.py` and `aio.py` carry them out.
"""

import math
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar, cast

from google.protobuf.message import Message

from tectum.errors import DeadlineExceeded, InternalError, TectumError, invalid
from tectum.requests import check_size, text
from tectum.v1 import call_pb2
from tectum.vocabulary import Priority

Answer = TypeVar("Answer")

LONGEST_WAIT = {Priority.CONTROL: 60.0, Priority.INTERACTIVE: 60.0, Priority.BULK: 600.0}
"""Seconds after which the client gives up a call that set no deadline, so that a worker that has
hung never hangs its callers. The worker's own default for the class normally ends it first."""
LOADING_WAIT = 900.0
"""The same for loading a model, which reads, checks and warms it up."""
MAX_EXPECTED_SPACES = 8
"""Spaces one call may pin (RequestOptions.expected_space_ids)."""
MAX_RETRIES = 10
"""Retries one call may ask for."""

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TOKEN = re.compile(r"[\x21-\x7e]+")


class CallOptions(TypedDict, total=False):
    """What every call takes besides its own arguments; what is left out, the client decides."""

    timeout: float | None
    """Seconds until the answer is worthless. None: the worker's default for the priority."""
    request_id: str
    """Names the call in the worker's log, printable ASCII. Left out: a new one."""
    retries: int
    """How often to try again what the worker says can be tried again."""
    token: str | None
    """Bearer credentials."""


class InferenceOptions(CallOptions, total=False):
    """What every call to a model takes besides."""

    model: str
    """Model name, optionally `name@version`. Empty: the worker's default."""
    priority: Priority
    """Which work goes first when not all of it can."""
    expected_spaces: Sequence[str]
    """Spaces the caller relies on, at most 8; another one is refused with SpaceMismatch."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a client fills in where a call says nothing; meanings as in `InferenceOptions`."""

    model: str
    priority: Priority
    timeout: float | None
    retries: int
    token: str | None
    max_message_bytes: int
    """Largest message to send."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One rpc to make, on its own: nothing of a client in it yet."""

    path: str
    """The rpc, as `/package.Service/Method`."""
    request: Message
    """What to send; its options are filled in when the call is planned."""
    response: type[Message]
    """What comes back."""
    read: Callable[[Any], Answer]
    """From what came back to what the caller gets; ValueError if it contradicts itself."""
    options: CallOptions
    """What the caller said."""
    wait: float | None = None
    """For calls that are no inference: seconds to wait; the client's default does not apply."""


@dataclass(frozen=True, slots=True)
class Plan(Generic[Answer]):
    """One rpc with everything decided."""

    call: Call[Answer]
    request_id: str
    metadata: tuple[tuple[str, str], ...]
    deadline: float | None
    """Seconds, told to the worker as gRPC's deadline. None: the worker's default shall apply."""
    budget: float
    """Seconds until this side gives up, all retries included."""
    retries: int

    def read(self, response: Message) -> Answer:
        """Read the answer.

        Raises:
            InternalError: it contradicts itself.
        """
        try:
            return self.call.read(response)
        except ValueError as error:
            message = f"the worker's answer cannot be read: {error}"
            raise InternalError(message, request_id=self.request_id) from error

    def gave_up(self) -> DeadlineExceeded:
        """The error for a call that this side stopped waiting for."""
        message = f"no answer within {self.budget:g} s"
        return DeadlineExceeded(message, request_id=self.request_id)


def plan(call: Call[Answer], defaults: Defaults) -> Plan[Answer]:
    """Decide everything about a call.

    Raises:
        InvalidInput: an option lies outside what it allows.
        TooLarge: so is the message.
    """
    has_options = "options" in call.request.DESCRIPTOR.fields_by_name
    check_names(call.options, InferenceOptions if has_options else CallOptions)
    options = cast(InferenceOptions, call.options)
    priority = known_priority(options.get("priority", defaults.priority))
    default_timeout = defaults.timeout if call.wait is None else None
    deadline = timeout(options.get("timeout", default_timeout))
    longest = LONGEST_WAIT[priority] if call.wait is None else call.wait
    request_id, metadata = credentials(options, defaults)
    if has_options:
        call.request.MergeFrom(
            type(call.request)(options=request_options(options, defaults, priority))
        )
    check_size(call.request, defaults.max_message_bytes)
    return Plan(
        call=call,
        request_id=request_id,
        metadata=metadata,
        deadline=deadline,
        budget=longest if deadline is None else deadline,
        retries=bounded_retries(options.get("retries", defaults.retries)),
    )


def check_names(options: CallOptions, known: type[CallOptions]) -> None:
    """Refuse a misspelt option, which Python lets through where options are `**options`.

    Raises:
        TypeError: as for any keyword argument that a function does not have.
    """
    unknown = options.keys() - known.__annotations__.keys()
    if unknown:
        allowed = ", ".join(sorted(known.__annotations__))
        raise TypeError(f"unexpected options {', '.join(sorted(unknown))}; allowed: {allowed}")


def request_options(
    options: InferenceOptions, defaults: Defaults, priority: Priority
) -> call_pb2.RequestOptions:
    """What a request says about itself."""
    spaces = options.get("expected_spaces", ())
    if isinstance(spaces, str) or len(spaces) > MAX_EXPECTED_SPACES:
        one = isinstance(spaces, str)
        raise invalid(
            "expected_spaces",
            f"found {'one str' if one else len(spaces)}; allowed: at most 8, in a list",
            reason="FIELD_OUT_OF_RANGE" if one else "TOO_MANY_ITEMS",
        )
    return call_pb2.RequestOptions(
        model=text(options.get("model", defaults.model), "model", empty=True),
        priority=call_pb2.Priority.ValueType(known_priority(priority)),
        expected_space_ids=[text(s, f"expected_spaces[{i}]") for i, s in enumerate(spaces)],
    )


def credentials(
    options: CallOptions, defaults: Defaults
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The request id, and the metadata that carries it and the token."""
    request_id = options.get("request_id") or uuid.uuid4().hex
    if not _REQUEST_ID.fullmatch(request_id):
        raise invalid("request_id", "allowed: 1 to 128 printable ASCII characters, no spaces")
    token = options.get("token", defaults.token)
    if token is None:
        return request_id, (("x-request-id", request_id),)
    if not _TOKEN.fullmatch(token):
        raise invalid("token", "allowed: printable ASCII, no spaces")
    return request_id, (("x-request-id", request_id), ("authorization", f"Bearer {token}"))


def timeout(value: float | None) -> float | None:
    """A timeout that can be kept: None, or finite and above 0."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise invalid("timeout", f"found {value!r} s; allowed: finite and above 0, or None")
    return value


def pause_before_retry(
    error: TectumError, *, attempt: int, retries: int, remaining: float, dice: float
) -> float | None:
    """Whether a failed attempt is worth another, and after how long.

    Only what the worker itself called retryable is retried, and only where the pause leaves time
    for the answer. The pause is drawn from one to one and a half times what the worker asked
    for, so that callers refused together do not come back together; what it adds is at most half
    of the time that would be left, so that no draw costs a call what it could have had.

    Args:
        error: Why the attempt failed.
        attempt: Which attempt it was, from 0.
        retries: How many more the caller allows after the first.
        remaining: Seconds left of the call's budget.
        dice: Uniform in [0, 1).

    Returns:
        Seconds to wait, or None: raise the error.
    """
    if error.retry_after is None or attempt >= retries or error.retry_after >= remaining:
        return None
    return error.retry_after + dice / 2 * min(error.retry_after, remaining - error.retry_after)


def bounded_retries(value: int) -> int:
    """A number of retries that is one."""
    if not 0 <= value <= MAX_RETRIES:
        raise invalid("retries", f"found {value}; allowed: 0 to {MAX_RETRIES}")
    return value


def known_priority(value: int) -> Priority:
    """A priority that is one."""
    try:
        return Priority(value)
    except ValueError:
        raise invalid("priority", f"found {value!r}; allowed: a tectum.Priority") from None
