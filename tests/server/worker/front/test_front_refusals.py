"""What can never succeed is refused, with its code, its reason and its fields."""

import pytest
from tests.server.worker.asking import CODES
from tests.server.worker.refusals import INPUTS, REQUESTS
from tests.server.worker.serving import Caller

ROWS = {**INPUTS, **REQUESTS}


def test_no_row_hides_another() -> None:
    assert len(ROWS) == len(INPUTS) + len(REQUESTS)


@pytest.mark.parametrize("name", ROWS)
def test_what_can_never_succeed_is_refused_for_good(worker: Caller, name: str) -> None:
    row = ROWS[name]

    told = row.refused(worker)

    assert (told.code, told.reason, told.fields) == (CODES[row.reason], row.reason, row.fields)
    assert row.words in told.message
    assert not told.retries
    assert (told.domain, told.request_id) == ("tectum.dev", "r-1")
