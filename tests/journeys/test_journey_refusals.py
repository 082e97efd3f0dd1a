"""What can never succeed is refused over REST as it is over gRPC, row by row of the same table."""

from __future__ import annotations

import base64
import json

import httpx
import numpy as np
import pytest
from tests.bundles import picture, png
from tests.contract.table import ROWS
from tests.journeys.product import Pair
from tests.journeys.spoken import NotInRest, in_rest
from tests.server.gateway.checks import checked
from tests.server.worker.asking import CUT, Row, images
from tests.server.worker.messages import array, encoded, reason
from tests.server.worker.refusals import INPUTS, REQUESTS
from tests.server.worker.serving import Caller

from tectum_server.gateway.fields import rest_field

TABLE = INPUTS | REQUESTS
NOT_IN_REST = {
    "raw bytes missing": "REST takes files, never raw pixels",
    "flat image": "the same",
    "too many pixels": "the same; `too many pixels in a file` is asked instead",
    "all bad": "the same; `all files bad` is asked instead",
}
"""Rows that a REST caller has no words for."""
OTHER_WORDS = {
    "pooled texts": "unknown field",
    "slow clip": "100 ms apart, 90 to 110 ms are allowed; found 200 ms",
    "slow frames": "50 ms apart, 45 to 55 ms are allowed; found 200 ms",
    "wrong interval": "50 ± 10 ms apart, these are 80 ms",
}
"""Rows that the gateway's schema refuses in words of its own, for the route has no such field, and
those of times, which REST has in milliseconds."""


def test_every_row_is_asked_over_rest_or_named_here() -> None:
    unspoken = set()
    for name, row in TABLE.items():
        try:
            in_rest(row.request)
        except NotInRest:
            unspoken.add(name)

    assert unspoken == set(NOT_IN_REST)


@pytest.mark.parametrize("name", [name for name in TABLE if name not in NOT_IN_REST])
def test_what_cannot_succeed_is_refused_over_rest(served: Pair, name: str) -> None:
    row = TABLE[name]
    asked = in_rest(row.request)
    headers = {**asked.headers, "Content-Type": "application/json", "X-Request-Id": "r-1"}
    # Not httpx's own JSON, which knows no NaN.
    content = None if asked.body is None else json.dumps(asked.body)

    response = served.http.request(asked.method, asked.path, content=content, headers=headers)

    found = checked(response, ROWS[row.reason].status)
    assert found["reason"] == row.reason
    assert found["type"] == f"urn:tectum:problem:{row.reason.lower().replace('_', '-')}"
    assert OTHER_WORDS.get(name, row.words) in found["detail"]
    assert response.headers["x-request-id"] == found["request_id"] == "r-1"
    assert "retry-after" not in response.headers, "it cannot succeed later either"
    assert_named([violation["field"] for violation in found["violations"]], row)
    assert all(violation["description"] for violation in found["violations"])


def assert_named(found: list[str], row: Row) -> None:
    """The row's fields in REST's words; the gateway may say more exactly which part of one."""
    wanted = [rest_field(field) for field in row.fields]
    assert len(found) == len(wanted)
    assert all(one.startswith(want) for one, want in zip(found, wanted, strict=True)), found


# ---------------------------------------------------------------- one bad item among good ones

PLACES = 32
POISONED = 13


def test_a_poisoned_picture_in_thirty_two_leaves_thirty_one_answers_over_rest(served: Pair) -> None:
    files = [base64.b64encode(png(picture(seed))).decode() for seed in range(PLACES)]
    sound = embedded(served.http, files)
    files[POISONED] = base64.b64encode(CUT.encoded).decode()

    response = served.http.post("/v1/embed/images", json={"images": files})

    assert response.status_code == 200
    results = response.json()["results"]
    error = results.pop(POISONED)["error"]
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "IMAGE_UNREADABLE")
    assert error["field"] == f"images[{POISONED}]"
    assert error["message"]
    assert "retry_after_ms" not in error
    found = [result["embedding"]["values"] for result in results]
    np.testing.assert_allclose(found, np.delete(sound, POISONED, axis=0), atol=1e-5)


def test_a_poisoned_picture_in_thirty_two_leaves_thirty_one_answers_over_grpc(served: Pair) -> None:
    caller = Caller(served.port)
    given = [encoded(picture(seed)) for seed in range(PLACES)]
    given[POISONED] = CUT

    results = list(caller.ask("EmbedImages", images(*given)).results)
    caller.close()

    error = results.pop(POISONED).error
    assert (error.code, reason(error.reason)) == (3, "IMAGE_UNREADABLE")
    assert error.field == f"images[{POISONED}].encoded"
    files = [base64.b64encode(png(picture(seed))).decode() for seed in range(PLACES)]
    wanted = np.delete(embedded(served.http, files), POISONED, axis=0)
    found = np.stack([array(result.embedding.values) for result in results])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_batch_of_nothing_but_poison_fails_and_names_every_item(served: Pair) -> None:
    poison = base64.b64encode(CUT.encoded).decode()

    response = served.http.post("/v1/embed/images", json={"images": [poison] * 3})

    found = checked(response, 422)
    assert found["reason"] == "IMAGE_UNREADABLE"
    fields = [violation["field"] for violation in found["violations"]]
    assert fields == ["images[0]", "images[1]", "images[2]"]


def embedded(http: httpx.Client, files: list[str]) -> np.ndarray:
    response = http.post("/v1/embed/images", json={"images": files})
    assert response.status_code == 200, response.text
    return np.array([result["embedding"]["values"] for result in response.json()["results"]])
