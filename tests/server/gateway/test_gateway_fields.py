"""Errors name fields as the caller wrote them, not as the contract does."""

import httpx
import pytest
from tests.client.fake_errors import R
from tests.client.fake_worker import FakeWorker
from tests.server.gateway.checks import checked

from tectum_server.gateway.fields import rest_field


@pytest.mark.parametrize(
    ("contract", "rest"),
    [
        ("images[3]", "images[3]"),
        ("images[3].encoded", "images[3]"),
        ("left[2].image.encoded", "left[2].image"),
        ("clips[0].frames[1].encoded", "clips[0].frames[1]"),
        ("clips[0].frame_interval", "frame_interval_ms"),
        ("clip.frame_interval", "frame_interval_ms"),
        ("options.model", "model"),
        ("options.expected_space_ids", "X-Tectum-Expected-Space"),
        ("options.expected_space_ids[1]", "X-Tectum-Expected-Space"),
        ("expected_spaces[1]", "X-Tectum-Expected-Space"),
        ("options.priority", "X-Tectum-Priority"),
        ("timeout", "X-Tectum-Deadline-Ms"),
        ("target", "body"),
        ("vector.dimensions", "dimensions"),
        ("text.text", "text"),
        ("text_condition", "text_condition"),
        ("texts[0]", "texts[0]"),
        ("actions.actions", "actions"),
        ("actions.step_interval", "step_interval_ms"),
        ("interval", "interval_ms"),
        ("frames[1].captured_at", "frames[1].captured_at_ms"),
        ("captured_at[1]", "frames[1].captured_at_ms"),
        ("mask.hidden", "mask.hidden"),
    ],
)
def test_a_field_is_named_as_in_the_request(contract: str, rest: str) -> None:
    assert rest_field(contract) == rest


async def test_a_problem_names_the_field_as_in_the_request(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    violations = [("options.model", "no such model")]
    worker.refuse(R.ERROR_REASON_MODEL_NOT_FOUND, violations=violations)

    found = checked(await http.post("/v1/embed/texts", json={"texts": ["a"]}), 404)

    assert found["violations"] == [{"field": "model", "description": "no such model"}]


async def test_openais_route_says_input(http: httpx.AsyncClient, worker: FakeWorker) -> None:
    worker.refuse(R.ERROR_REASON_FIELD_OUT_OF_RANGE, violations=[("texts[1]", "too long")])

    response = await http.post("/v1/embeddings", json={"input": ["a", "b"]})

    assert response.json()["error"]["param"] == "input[1]"
