"""Worker, SDK and gateway each keep a table over the contract's reasons; together they are one.

The rows are the design's (`table`). A reason that somebody adds to the contract fails here until
all three know it.
"""

from __future__ import annotations

import pytest
from tests.contract.table import ROWS

from tectum.errors import CLASS_BY_REASON
from tectum.v1 import errors_pb2
from tectum_server.gateway.problems import STATUS_BY_REASON
from tectum_server.worker.failure import CODES, RETRYABLE


def reason(name: str) -> errors_pb2.ErrorReason.ValueType:
    return errors_pb2.ErrorReason.Value(f"ERROR_REASON_{name}")


def test_every_reason_of_the_contract_has_a_row() -> None:
    contract = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()}  # noqa: SIM118

    assert contract - {"UNSPECIFIED"} == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_worker_sdk_and_gateway_agree_on(name: str) -> None:
    code, error, status, retryable = ROWS[name]

    assert CODES[reason(name)] == code
    assert CLASS_BY_REASON[reason(name)] is error
    assert STATUS_BY_REASON[reason(name)] == status
    assert (reason(name) in RETRYABLE) == retryable


def test_no_table_knows_a_reason_that_the_contract_does_not() -> None:
    known = {reason(name) for name in ROWS}

    assert set(CODES) == known
    assert set(CLASS_BY_REASON) == known
    assert set(STATUS_BY_REASON) == known
