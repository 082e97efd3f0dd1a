"""A failure as the wire tells it, and who may call."""

import hashlib
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from tests.server.worker.asking import ADMIN, STRANGER, USER

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import CODES, RETRYABLE, Failure, reason_name
from tectum_server.worker.front.door.access import Access
from tectum_server.worker.front.methods.batches import raise_if_all_failed
from tectum_server.worker.front.status import DOMAIN, brief, code_of, item_error, to_grpc

REASONS = st.sampled_from(sorted(CODES))


def details(failure: Failure, request_id: str = "r") -> tuple[status_pb2.Status, dict[str, Any]]:
    """The google.rpc.Status in the trailing metadata, and its details by type."""
    sent = to_grpc(failure, request_id)
    (metadata,) = [v for k, v in sent.trailing_metadata if k == "grpc-status-details-bin"]
    status = status_pb2.Status.FromString(metadata)
    kinds = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
    )
    found: dict[str, Any] = {}
    for detail in status.details:
        for kind in kinds:
            if detail.Is(kind.DESCRIPTOR):
                found[kind.__name__] = kind.FromString(detail.value)
    assert len(found) == len(status.details)
    assert (sent.code.value[0], sent.details) == (status.code, status.message)
    return status, found


@given(
    REASONS,
    st.text(max_size=50),
    st.sampled_from(["", "images[3]"]),
    st.none() | st.floats(0.001, 100),
)
def test_every_failure_is_told_whole(
    reason: Any, message: str, field: str, after: float | None
) -> None:
    failure = Failure(reason, message, field, after)

    status, found = details(failure, "id-7")

    assert status.code == CODES[reason]
    assert status.message == (f"{field}: {message}" if field else message)
    info = found["ErrorInfo"]
    assert (info.domain, info.reason) == (DOMAIN, reason_name(reason))
    assert dict(info.metadata) == {"request_id": "id-7"}
    assert ("BadRequest" in found) is bool(field)
    if field:
        (violation,) = found["BadRequest"].field_violations
        assert (violation.field, violation.description) == (field, message)
    assert ("RetryInfo" in found) is (reason in RETRYABLE)
    if reason in RETRYABLE:
        wanted = RETRYABLE[reason] if after is None else after
        delay = found["RetryInfo"].retry_delay.ToNanoseconds() / 1e9
        assert delay == pytest.approx(wanted, abs=1e-9)


def test_several_violations_are_all_told() -> None:
    pairs = (("images[0]", "no image"), ("images[1]", "too large"))
    failure = Failure(
        errors_pb2.ERROR_REASON_IMAGE_UNREADABLE, "no image", "images[0]", violations=pairs
    )

    _, found = details(failure)

    told = [(v.field, v.description) for v in found["BadRequest"].field_violations]
    assert tuple(told) == pairs


@given(
    st.lists(st.tuples(st.text(max_size=30), st.text(max_size=3000)), min_size=1, max_size=80),
    st.text(max_size=3000),
)
def test_what_is_told_always_has_room_in_the_trailing_metadata(
    pairs: list[tuple[str, str]], message: str
) -> None:
    failure = Failure(errors_pb2.ERROR_REASON_QUEUE_FULL, message, "f", violations=tuple(pairs))

    status, found = details(failure, "x" * 128)

    assert status.ByteSize() <= 4096
    told = found["BadRequest"].field_violations
    assert [v.field for v in told] == [field for field, _ in pairs[: len(told)]]
    if len(told) < len(pairs):
        assert told[-1].description.endswith(f" (and {len(pairs) - len(told)} more)")
    # As gRPC writes the two: each byte of the message as up to three, details in base 64.
    assert 3 * len(status.message.encode()) + status.ByteSize() * 4 / 3 < 8000


@given(st.text(max_size=2000))
def test_a_message_is_told_whole_unless_it_is_long(text: str) -> None:
    told = brief(text)

    assert len(told.encode()) <= 512
    if len(text.encode()) <= 512:
        assert told == text
    else:
        assert told.endswith("…")
        assert text.startswith(told[:-1])
        assert len(told.encode()) > 500
    assert item_error(Failure(errors_pb2.ERROR_REASON_INTERNAL, text), "f").message == told


@given(REASONS)
def test_a_failures_grpc_code_is_its_google_code(reason: Any) -> None:
    assert code_of(Failure(reason, "")).value[0] == CODES[reason]
    assert code_of(Failure(reason, "")) is not grpc.StatusCode.OK


@given(REASONS, st.sampled_from(["", "images[3].encoded"]))
def test_an_items_error_is_the_same_failure(reason: Any, field: str) -> None:
    error = item_error(Failure(reason, "because", field), "images[3]")

    assert (error.code, error.reason, error.message) == (CODES[reason], reason, "because")
    assert error.field == (field or "images[3]")
    assert error.HasField("retry_delay") is (reason in RETRYABLE)


def test_a_request_fails_as_a_whole_only_if_every_item_did() -> None:
    first = Failure(errors_pb2.ERROR_REASON_QUEUE_FULL, "full", "images[0]", 2.0)
    other = Failure(errors_pb2.ERROR_REASON_NOT_FINITE, "NaN", "images[1]")

    raise_if_all_failed([], 0)
    raise_if_all_failed([first], 2)
    with pytest.raises(Failure, match="full") as caught:
        raise_if_all_failed([first, other], 2)

    assert caught.value.reason == errors_pb2.ERROR_REASON_QUEUE_FULL
    assert caught.value.retry_delay == 2.0
    assert caught.value.violations == (("images[0]", "full"), ("images[1]", "NaN"))


# ---------------------------------------------------------------- who may call


def metadata(value: str | bytes) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "x"), ("authorization", value)]


@pytest.mark.parametrize(
    ("sent", "role", "reason"),
    [
        (metadata(f"Bearer {ADMIN}"), "admin", None),
        (metadata(f"bearer {ADMIN}"), "infer", None),
        (metadata(f"BEARER  {USER} "), "infer", None),
        (metadata(f"Bearer {USER}".encode()), "infer", None),
        (metadata(f"Bearer {USER}"), "admin", errors_pb2.ERROR_REASON_PERMISSION_MISSING),
        (metadata(f"Bearer {STRANGER}"), "infer", errors_pb2.ERROR_REASON_CREDENTIALS_INVALID),
        (metadata("Bearer "), "infer", errors_pb2.ERROR_REASON_CREDENTIALS_INVALID),
        (metadata(f"Basic {USER}"), "infer", errors_pb2.ERROR_REASON_CREDENTIALS_INVALID),
        (metadata(USER), "infer", errors_pb2.ERROR_REASON_CREDENTIALS_INVALID),
        ([], "infer", errors_pb2.ERROR_REASON_CREDENTIALS_INVALID),
        (
            metadata("Bearer " + hashlib.sha256(USER.encode()).hexdigest()),
            "infer",
            errors_pb2.ERROR_REASON_CREDENTIALS_INVALID,
        ),
    ],
)
def test_a_call_passes_with_a_known_token_and_the_role(
    tokens: Path, sent: Any, role: Any, reason: int | None
) -> None:
    access = Access(tokens)

    if reason is None:
        access.check(sent, role)
        return
    with pytest.raises(Failure) as caught:
        access.check(sent, role)
    assert caught.value.reason == reason
    assert USER not in caught.value.message


def test_without_a_file_everybody_infers_and_nobody_administers() -> None:
    access = Access(None)

    access.check([], "infer")
    with pytest.raises(Failure, match="started without tokens"):
        access.check(metadata(f"Bearer {ADMIN}"), "admin")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"tokens": [{"name": "a", "sha256": "short", "roles": []}]}',
        '{"tokens": [{"name": "a", "sha256": "%s", "roles": ["root"]}]}' % ("0" * 64),
        '{"tokens": [], "extra": 1}',
        '{"tokens": [{"name": "a", "token": "in the clear", "roles": []}]}',
    ],
)
def test_a_file_that_is_no_token_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(content)

    with pytest.raises(ValueError, match="is no token file"):
        Access(file)


def test_the_file_holds_no_token_in_the_clear(tokens: Path) -> None:
    known = json.loads(tokens.read_text())["tokens"]

    assert all(len(one["sha256"]) == 64 for one in known)
    assert USER not in tokens.read_text()
