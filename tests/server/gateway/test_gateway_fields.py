"""Errors name fields as the caller wrote them, not as the contract does."""

import httpx
import pytest
from tests.client.fake_errors import R
from tests.client.fake_worker import FakeWorker
from tests.server.gateway.checks import checked

from tectum_server.gateway.fields import rest_field, rest_words


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


@pytest.mark.parametrize(
    ("field", "said", "told"),
    [
        ("frame_interval", "0.045 to 0.055 s; found 5e-05 s", "45 to 55 ms; found 0.05 ms"),
        ("interval", "frames 0.05 ± 0.01 s apart", "frames 50 ± 10 ms apart"),
        ("captured_at[1]", "found -1 s", "found -1000 ms"),
        ("actions.step_interval", "2 to 8 steps", "2 to 8 steps"),
        ("texts[0]", "found 3 s", "found 3 s"),
    ],
)  # fmt: skip
def test_what_rest_has_in_milliseconds_is_told_in_them(field: str, said: str, told: str) -> None:
    assert rest_words(f"{field}: {said}", [field]) == f"{rest_field(field)}: {told}"


async def test_a_violation_is_told_in_milliseconds(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    worker.refuse(
        R.ERROR_REASON_INTERVAL_MISMATCH, violations=[("frame_interval", "found 5e-05 s")]
    )

    found = checked(await http.post("/v1/embed/texts", json={"texts": ["a"]}), 422)

    wanted = [{"field": "frame_interval_ms", "description": "found 0.05 ms"}]
    assert found["violations"] == wanted


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
