"""Everything the SDK raises.

    TectumError
    ├── InvalidInput            the request can never succeed as it is
    ├── TooLarge                the message is too big: send fewer or smaller items
    ├── NotFound                no such model here: load it or name another
    ├── PreconditionFailed      the model serving now cannot do this, another might
    │   ├── CapabilityMissing   it has no such head, path or option
    │   ├── SpaceMismatch       it is not the one whose space the caller pinned
    │   └── BundleRejected      the bundle did not load, or failed its golden check
    ├── Unauthenticated         show credentials, or other ones
    ├── PermissionDenied        these credentials do not allow this
    ├── Overloaded              shed before it ran; safe to retry after `retry_after` seconds
    ├── DeadlineTooShort        refused before it ran: the model alone takes longer
    ├── DeadlineExceeded        may have run; retry only if repeating is harmless
    ├── Unavailable             no worker answered
    ├── Cancelled               this side gave the call up
    ├── InternalError           the worker's fault; its log has `request_id`
    ├── ItemFailed              the call was answered, some of its items were not
    └── ClientClosed            the client was closed before the call

Which of the contract's reasons raises which class is one total table, `CLASS_BY_REASON`. This
module knows the contract's reasons but not how they travel; `failures.py` does.
"""

# The names are what a caller reads in `except tectum.Overloaded`; "Error" would add nothing.

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tectum.v1 import errors_pb2

if TYPE_CHECKING:
    from tectum.results import ItemError


class Violation(NamedTuple):
    """One thing wrong with a request."""

    field: str
    """Path into the request: `images[3]`."""
    description: str
    """What was found and what is allowed."""


class TectumError(Exception):
    """The root of everything the SDK raises.

    Attributes:
        reason: Name in the contract's ErrorReason, without its prefix. Empty: the failure arose
            on the way (no connection, a message over the transport's limit), not in the worker.
        request_id: Names the call in the worker's log. Empty: it was never sent.
        violations: What was wrong with the request, field by field.
        retry_after: Seconds after which a retry can help. None: a retry cannot help.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        request_id: str = "",
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.request_id = request_id
        self.violations = tuple(violations)
        self.retry_after = retry_after


class InvalidInput(TectumError):
    """The request can never succeed as it is; `violations` names the fields."""


class TooLarge(TectumError):
    """The message is larger than the transport or the worker's Limits allow."""


class NotFound(TectumError):
    """No such model or version is loaded, or exists."""


class PreconditionFailed(TectumError):
    """The worker cannot do this as it stands now."""


class CapabilityMissing(PreconditionFailed):
    """The model has no such head, path or option."""


class SpaceMismatch(PreconditionFailed):
    """A vector, or the caller's pin, belongs to another space than the model's."""


class BundleRejected(PreconditionFailed):
    """A bundle could not be loaded, or did not reproduce its golden outputs."""


class Unauthenticated(TectumError):
    """No credentials, or none that the worker knows."""


class PermissionDenied(TectumError):
    """The credentials do not allow this call."""


class Overloaded(TectumError):
    """Shed before it ran; safe to retry after `retry_after` seconds."""


class DeadlineTooShort(TectumError):
    """Refused before it ran: the deadline is shorter than the model's cost alone."""


class DeadlineExceeded(TectumError):
    """The deadline passed; the call may have run."""


class Unavailable(TectumError):
    """No worker answered: not reachable, draining, or its engine is restarting."""


class Cancelled(TectumError):
    """The call was given up before its answer."""


class InternalError(TectumError):
    """A fault of the worker's own; its log has the request id."""


class ItemFailed(TectumError):
    """Some items of an answered batch failed, and the caller asked for all of them.

    Attributes:
        errors: The failed items' errors by their place in the batch.
    """

    def __init__(self, errors: "Mapping[int, ItemError]", total: int, request_id: str) -> None:
        first = next(iter(errors.values()))
        indices = ", ".join(str(index) for index in errors)
        super().__init__(
            f"{len(errors)} of {total} items failed (at {indices}); the first: {first.message}",
            reason=first.reason,
            request_id=request_id,
            violations=[Violation(error.field, error.message) for error in errors.values()],
        )
        self.errors = dict(errors)


class ClientClosed(TectumError):
    """The client was closed before the call, so nothing was sent."""


_Reason = errors_pb2.ErrorReason

CLASS_BY_REASON: Mapping[int, type[TectumError]] = {
    _Reason.ERROR_REASON_FIELD_MISSING: InvalidInput,
    _Reason.ERROR_REASON_FIELD_OUT_OF_RANGE: InvalidInput,
    _Reason.ERROR_REASON_SHAPE_MISMATCH: InvalidInput,
    _Reason.ERROR_REASON_NOT_FINITE: InvalidInput,
    _Reason.ERROR_REASON_TOO_MANY_ITEMS: InvalidInput,
    _Reason.ERROR_REASON_IMAGE_UNREADABLE: InvalidInput,
    _Reason.ERROR_REASON_IMAGE_UNSUPPORTED: InvalidInput,
    _Reason.ERROR_REASON_IMAGE_TOO_LARGE: InvalidInput,
    _Reason.ERROR_REASON_INTERVAL_MISMATCH: InvalidInput,
    _Reason.ERROR_REASON_MESSAGE_TOO_LARGE: TooLarge,
    _Reason.ERROR_REASON_QUEUE_FULL: Overloaded,
    _Reason.ERROR_REASON_DEADLINE_UNREACHABLE: Overloaded,
    _Reason.ERROR_REASON_DEADLINE_INFEASIBLE: DeadlineTooShort,
    _Reason.ERROR_REASON_DEADLINE_PASSED: DeadlineExceeded,
    _Reason.ERROR_REASON_MODEL_NOT_FOUND: NotFound,
    _Reason.ERROR_REASON_CAPABILITY_MISSING: CapabilityMissing,
    _Reason.ERROR_REASON_SPACE_MISMATCH: SpaceMismatch,
    _Reason.ERROR_REASON_BUNDLE_REJECTED: BundleRejected,
    _Reason.ERROR_REASON_DRAINING: Unavailable,
    _Reason.ERROR_REASON_ENGINE_UNAVAILABLE: Unavailable,
    _Reason.ERROR_REASON_MODEL_LOADING: Unavailable,
    _Reason.ERROR_REASON_CREDENTIALS_INVALID: Unauthenticated,
    _Reason.ERROR_REASON_PERMISSION_MISSING: PermissionDenied,
    _Reason.ERROR_REASON_CANCELLED: Cancelled,
    _Reason.ERROR_REASON_INTERNAL: InternalError,
}
"""Which class each of the contract's reasons raises; total but for UNSPECIFIED."""

REASON_PREFIX = "ERROR_REASON_"
"""What ErrorReason's names start with in the contract and not on the wire."""


def class_for_reason(reason: str) -> type[TectumError] | None:
    """The class for a reason's name without prefix; None for one this SDK has not learnt."""
    number = errors_pb2.ErrorReason.DESCRIPTOR.values_by_name.get(REASON_PREFIX + reason)
    return None if number is None else CLASS_BY_REASON.get(number.number)


def invalid(field: str, description: str, *, reason: str = "FIELD_OUT_OF_RANGE") -> InvalidInput:
    """An InvalidInput about one field, as the SDK raises before it sends anything."""
    return InvalidInput(
        f"{field}: {description}", reason=reason, violations=[Violation(field, description)]
    )
