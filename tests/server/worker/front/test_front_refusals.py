"""What can never succeed is refused, with its code, its reason and its fields."""

import pytest
from tests.server.worker.refusals import INPUTS, REQUESTS
from tests.server.worker.serving import Caller


@pytest.mark.parametrize("name", INPUTS)
def test_what_cannot_be_embedded_or_compared_is_refused(worker: Caller, name: str) -> None:
    INPUTS[name].check(worker)


@pytest.mark.parametrize("name", REQUESTS)
def test_what_cannot_be_filled_in_or_paired_is_refused(worker: Caller, name: str) -> None:
    REQUESTS[name].check(worker)
