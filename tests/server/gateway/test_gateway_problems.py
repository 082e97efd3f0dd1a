"""Every failure is a problem+json with the right status, and OpenAI's shape on OpenAI's route."""

import base64
from typing import Any

import grpc
import httpx
import pytest
from fastapi import FastAPI
from tests.client import fake_errors
from tests.client.fake_errors import R
from tests.client.fake_worker import FakeWorker
from tests.server.gateway.checks import checked

import tectum
from tectum import errors
from tectum.v1 import errors_pb2
from tectum_server.gateway import problems
from tectum_server.gateway.wrong import description_of

TEXTS = {"texts": ["a"]}
PIXEL = base64.b64encode(b"bytes").decode()


def test_every_reason_of_the_contract_has_a_status() -> None:
    known = set(problems.STATUS_BY_REASON)

    assert known == set(errors_pb2.ErrorReason.values()) - {R.ERROR_REASON_UNSPECIFIED}
    assert known == set(errors.CLASS_BY_REASON)


def test_every_error_of_the_sdks_has_a_status() -> None:
    raised = {getattr(tectum, name) for name in tectum.__all__}
    raised = {c for c in raised if isinstance(c, type) and issubclass(c, tectum.TectumError)}

    inherited = {tectum.CapabilityMissing, tectum.SpaceMismatch, tectum.BundleRejected}
    assert set(problems.STATUS_BY_CLASS) == raised - inherited


def test_the_statuses_follow_the_grpc_codes() -> None:
    by_code = {
        grpc.StatusCode.INVALID_ARGUMENT: {422},
        grpc.StatusCode.RESOURCE_EXHAUSTED: {413, 429},
        grpc.StatusCode.DEADLINE_EXCEEDED: {504},
        grpc.StatusCode.NOT_FOUND: {404},
        grpc.StatusCode.FAILED_PRECONDITION: {409},
        grpc.StatusCode.UNAVAILABLE: {503},
        grpc.StatusCode.UNAUTHENTICATED: {401},
        grpc.StatusCode.PERMISSION_DENIED: {403},
        grpc.StatusCode.CANCELLED: {499},
        grpc.StatusCode.INTERNAL: {500},
    }
    for reason, code in fake_errors.CODE_BY_REASON.items():
        assert problems.STATUS_BY_REASON[reason] in by_code[code]


@pytest.mark.parametrize("reason", fake_errors.REASONS, ids=fake_errors.name)
async def test_a_reason_of_the_workers_arrives_whole(
    reason: int, http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    retry_after = 0.25 if reason in fake_errors.RETRYABLE else None
    worker.refuse(
        reason,
        retry_after=retry_after,
        violations=[("texts[0]", "found this; allowed: that")],
        message="for people",
    )

    response = await http.post("/v1/embed/texts", json=TEXTS, headers={"X-Request-Id": "a-1"})

    found = checked(response, problems.STATUS_BY_REASON[reason])
    assert found["reason"] == fake_errors.name(reason)
    assert found["type"].startswith("urn:tectum:problem:")
    assert found["detail"] == "for people"
    assert found["request_id"] == "a-1"
    assert found["violations"] == [
        {"field": "texts[0]", "description": "found this; allowed: that"}
    ]
    assert response.headers.get("retry-after") == (None if retry_after is None else "1")
    assert found.get("retry_after_ms") == (None if retry_after is None else 250)
    assert ("www-authenticate" in response.headers) == (response.status_code == 401)
    assert len(worker.seen) == 1, "the gateway never retries; its caller decides"


async def test_a_refusal_without_retry_info_says_no_retry_after(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    worker.refuse(R.ERROR_REASON_DEADLINE_INFEASIBLE)

    response = await http.post("/v1/embed/texts", json=TEXTS)

    assert "retry_after_ms" not in checked(response, 429)


async def test_no_worker_is_a_503(worker: FakeWorker, http: httpx.AsyncClient) -> None:
    worker.__exit__()

    found = checked(await http.post("/v1/embed/texts", json=TEXTS), 503)

    assert found["type"] == "about:blank"
    assert "reason" not in found


async def test_a_deadline_that_passes_is_a_504(worker: FakeWorker, http: httpx.AsyncClient) -> None:
    worker.orders.delay = 30
    headers = {"X-Tectum-Deadline-Ms": "1000"}

    late = await http.post("/v1/embed/texts", json=TEXTS, headers=headers)

    found = checked(late, 504)
    assert (found["reason"], found["title"]) == ("DEADLINE_PASSED", "Deadline passed")
    assert found["type"] == "urn:tectum:problem:deadline-passed"
    assert found["detail"] == "the deadline passed before the answer came"
    assert len(worker.seen) == 1


async def test_what_is_late_on_arrival_costs_the_worker_nothing(
    worker: FakeWorker, http: httpx.AsyncClient
) -> None:
    headers = {"X-Tectum-Deadline-Ms": "1e-6"}

    late = await http.post("/v1/embed/texts", json=TEXTS, headers=headers)

    assert checked(late, 504)["reason"] == "DEADLINE_PASSED"
    assert not worker.seen


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Tectum-Deadline-Ms", "soon"),
        ("X-Tectum-Deadline-Ms", "0"),
        ("X-Tectum-Deadline-Ms", "nan"),
        ("X-Tectum-Deadline-Ms", "inf"),
        ("X-Tectum-Priority", "urgent"),
    ],
)
async def test_a_header_outside_what_it_allows_is_a_422(
    header: str, value: str, http: httpx.AsyncClient
) -> None:
    response = await http.post("/v1/embed/texts", json=TEXTS, headers={header: value})

    assert checked(response, 422)["violations"][0]["field"].lower() == header.lower()


async def test_more_spaces_than_can_be_pinned_is_a_422(http: httpx.AsyncClient) -> None:
    headers = {"X-Tectum-Expected-Space": ",".join("abcdefghi")}

    found = checked(await http.post("/v1/embed/texts", json=TEXTS, headers=headers), 422)

    assert found["reason"] == "TOO_MANY_ITEMS"
    assert [v["field"] for v in found["violations"]] == ["X-Tectum-Expected-Space"]


@pytest.mark.parametrize("value", ["Basic dXNlcg==", "Bearer", "Bearer ", "Bearer a b"])
async def test_other_credentials_than_a_bearers_are_a_401(
    value: str, http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    response = await http.post("/v1/embed/texts", json=TEXTS, headers={"Authorization": value})

    assert checked(response, 401)["reason"] == "CREDENTIALS_INVALID"
    assert response.headers["www-authenticate"] == "Bearer"
    assert worker.seen == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/embed/texts", 405), ("DELETE", "/v1/models", 405)],
)
async def test_https_own_errors_are_problems_too(
    method: str, path: str, status: int, http: httpx.AsyncClient
) -> None:
    response = await http.request(method, path)

    assert checked(response, status)["type"] == "about:blank"
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize("path", ["/v1/embed/texts", "/v1/embed/images"])
async def test_another_media_type_is_a_415(path: str, http: httpx.AsyncClient) -> None:
    answer = await http.post(path, content=b"a", headers={"Content-Type": "text/plain"})

    assert checked(answer, 415)["detail"].startswith("found text/plain; allowed: application/json")


@pytest.mark.parametrize("path", ["/v1/embed/clips", "/v1/similarity", "/v1/reconstruct"])
async def test_a_body_that_does_not_say_what_it_is_is_a_415(
    path: str, http: httpx.AsyncClient
) -> None:
    assert checked(await http.post(path, content=b"{}"), 415)["detail"].startswith("found none")


async def test_a_fault_of_the_gateways_own_is_a_500_that_tells_nothing(
    app: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(app.state.client, "embed_texts", broken)

    found = checked(await http.post("/v1/embed/texts", json=TEXTS), 500)

    assert found["reason"] == "INTERNAL"
    assert "secret" not in str(found)


# OpenAI's route


async def test_openais_errors_have_openais_shape(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    worker.refuse(R.ERROR_REASON_MODEL_NOT_FOUND, message="no such model")

    response = await http.post("/v1/embeddings", json={"model": "gpt", "input": "a"})

    assert response.status_code == 404
    assert response.json() == {
        "error": {
            "message": "no such model",
            "type": "not_found_error",
            "param": None,
            "code": "model_not_found",
        }
    }
    assert "x-request-id" in response.headers


@pytest.mark.parametrize("reason", fake_errors.REASONS, ids=fake_errors.name)
async def test_every_reason_has_openais_shape_there(
    reason: int, http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    worker.refuse(reason)

    response = await http.post("/v1/embeddings", json={"input": "a"})

    assert response.status_code == problems.STATUS_BY_REASON[reason]
    assert response.json()["error"]["code"] == fake_errors.name(reason).lower()


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "input"), ({"input": []}, "input"), ({"input": "a", "echo": True}, "echo")],
)
async def test_openais_route_is_strict_too(body: Any, param: str, http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/embeddings", json=body)

    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("options.model", "model"),
        ("images[0].encoded", "images[0]"),
        ("interval", "interval_ms"),
    ],
)
async def test_a_refusal_is_told_in_rests_own_words(
    field: str, name: str, http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    worker.refuse(
        R.ERROR_REASON_FIELD_OUT_OF_RANGE, violations=[(field, "no")], message=f"{field}: no"
    )

    found = checked(await http.post("/v1/embed/texts", json=TEXTS), 422)

    assert (found["detail"], found["violations"][0]["field"]) == (f"{name}: no", name)


async def test_broken_json_is_told_where_it_breaks(http: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}

    answer = await http.post("/v1/embed/texts", content=b'{"texts":\n oops}', headers=headers)

    found = checked(answer, 400)
    assert "line 2 column 2" in found["detail"]
    assert (found["type"], found["title"]) == ("about:blank", "Bad Request")
    assert "reason" not in found


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"text": "a", "top_k": 25}, "top_k: found 25; allowed: 1 to 20"),
        ({"text": "a", "mask": {"ratio": 1}}, "mask.ratio: found 1; allowed: above 0 and below 1"),
        (
            {"text": "a", "mask": {"seed": -1}},
            "mask.seed: found -1; allowed: 0 to 18446744073709551615",
        ),
        (
            {"text": "a", "mask": {"seed": 2**64}},
            "mask.seed: found 18446744073709551616; allowed: 0 to 18446744073709551615",
        ),
        (
            {"text": "a", "mask": {"hidden": [3, -1, -2]}},
            "mask.hidden[1]: found -1; allowed: 0 to 4294967295",
        ),
        (
            {"actions": [[1]], "step_interval_ms": 0},
            "step_interval_ms: found 0; allowed: above 0",
        ),
    ],
)
async def test_a_number_out_of_range_is_told_with_the_range(
    body: dict[str, Any], said: str, http: httpx.AsyncClient
) -> None:
    found = checked(await http.post("/v1/reconstruct", json=body), 422)

    assert found["detail"] == said


@pytest.mark.parametrize(
    ("path", "name"), [("/v1/embed/texts", "texts"), ("/v1/embeddings", "input")]
)
async def test_dimensions_are_told_with_their_range(
    path: str, name: str, http: httpx.AsyncClient
) -> None:
    answer = await http.post(path, json={name: ["a"], "dimensions": 2**32})

    assert answer.status_code == 422
    assert "dimensions: found 4294967296; allowed: 1 to 4294967295" in answer.text


async def test_a_deadline_out_of_range_is_told_with_the_range(http: httpx.AsyncClient) -> None:
    headers = {"X-Tectum-Deadline-Ms": "3600001"}

    found = checked(await http.post("/v1/embed/texts", json=TEXTS, headers=headers), 422)

    (violation,) = found["violations"]
    assert violation["field"].lower() == "x-tectum-deadline-ms"
    assert violation["description"] == "found 3600001; allowed: above 0 and at most 3600000"


@pytest.mark.parametrize(
    ("kind", "name", "bound", "said"),
    [
        ("less_than", "lt", 2**64, "below 18446744073709551616"),
        ("less_than_equal", "le", 3_600_000.0, "at most 3600000"),
        ("greater_than", "gt", 0.25, "above 0.25"),
    ],
)
def test_a_bound_is_told_in_full(kind: str, name: str, bound: float, said: str) -> None:
    error = {"type": kind, "ctx": {name: bound}, "input": "a"}

    assert description_of(error) == f"found a; allowed: {said}"


@pytest.mark.parametrize(
    ("name", "said"), [("image", "unknown field"), ("model", "allowed: one value, not a file")]
)
async def test_a_file_of_another_name_is_told_where_files_go(
    name: str, said: str, http: httpx.AsyncClient
) -> None:
    answer = await http.post("/v1/embed/images", files={name: ("a.png", b"bytes")})

    assert checked(answer, 422)["detail"] == f"{name}: {said}; files go in images"
