"""The contract says of every reason which code it comes with; worker, SDK and gateway agree."""

import re
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2

from tectum import errors
from tectum.errors import CLASS_BY_REASON, TectumError
from tectum.v1 import errors_pb2
from tectum_server.gateway.problems import STATUS_BY_REASON
from tectum_server.worker.failure import CODES, RETRYABLE, Failure, reason_name
from tectum_server.worker.front.status import code_of

PROTO = Path(__file__).parents[2] / "proto" / "tectum" / "v1" / "errors.proto"
# `// CODE[, with RetryInfo]: why.`, perhaps over several lines, then the reason it stands for.
_ENTRY = re.compile(
    r"// (?P<code>[A-Z_]+)(?P<retry>, with RetryInfo)?: (?:[^\n]*\n\s*//)*[^\n]*\n"
    r"\s*ERROR_REASON_(?P<name>[A-Z_]+) = (?P<number>\d+);"
)
CONTRACT = {
    int(found["number"]): (found["name"], found["code"], bool(found["retry"]))
    for found in _ENTRY.finditer(PROTO.read_text())
}
NUMBERS = sorted(CONTRACT)
HTTP = {
    "INVALID_ARGUMENT": 422,
    "RESOURCE_EXHAUSTED": 429,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "INTERNAL": 500,
    "CANCELLED": 499,
}
"""The design's table; a body that is too large is the one exception to its code."""


def test_every_reason_of_the_contract_states_its_code() -> None:
    declared = {value for value in errors_pb2.ErrorReason.values() if value}

    assert set(CONTRACT) == declared
    assert {reason_name(n): n for n in declared} == {CONTRACT[n][0]: n for n in declared}


def test_worker_sdk_and_gateway_know_every_reason_and_no_other() -> None:
    assert set(CODES) == set(CLASS_BY_REASON) == set(STATUS_BY_REASON) == set(CONTRACT)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: CONTRACT[n][0])
def test_the_worker_answers_with_the_contracts_code(
    number: errors_pb2.ErrorReason.ValueType,
) -> None:
    _, code, retries = CONTRACT[number]

    assert code_pb2.Code.Name(CODES[number]) == code
    assert code_of(Failure(number, "")) is grpc.StatusCode[code]
    assert (number in RETRYABLE) is retries
    assert all(delay > 0 for delay in RETRYABLE.values())


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: CONTRACT[n][0])
def test_the_gateway_answers_with_the_designs_status(number: int) -> None:
    name, code, _ = CONTRACT[number]

    assert STATUS_BY_REASON[number] == (413 if name == "MESSAGE_TOO_LARGE" else HTTP[code])


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: CONTRACT[n][0])
def test_the_sdk_raises_what_a_caller_would_do_about_it(number: int) -> None:
    _, code, _ = CONTRACT[number]
    raised = CLASS_BY_REASON[number]

    assert issubclass(raised, TectumError)
    assert issubclass(raised, errors.InvalidInput) is (code == "INVALID_ARGUMENT")
    assert issubclass(raised, errors.Unavailable) is (code == "UNAVAILABLE")
    assert issubclass(raised, errors.PreconditionFailed) is (code == "FAILED_PRECONDITION")
    assert issubclass(raised, errors.NotFound) is (code == "NOT_FOUND")
