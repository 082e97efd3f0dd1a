"""What the schemas refuse, with the status and the field that say why; nothing reaches the worker."""

# One case a line, however long.
# ruff: noqa: E501

import base64
from typing import Any

import httpx
import pytest
from tests.client.fake_worker import FakeWorker
from tests.server.gateway.checks import checked

PIXEL = base64.b64encode(b"bytes").decode()


@pytest.mark.parametrize("body", ["{", "", "\xff", '{"texts": [}', "[" * 100_000])
@pytest.mark.parametrize("path", ["/v1/embed/texts", "/v1/embed/images", "/v1/similarity"])
async def test_malformed_json_is_a_400(
    path: str, body: str, http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    headers = {"Content-Type": "application/json"}
    response = await http.post(path, content=body.encode("latin-1"), headers=headers)

    assert checked(response, 400)["detail"]
    assert worker.seen == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/embed/texts", {}, "texts"),
        ("/v1/embed/texts", {"texts": []}, "texts"),
        ("/v1/embed/texts", {"texts": ["a", 1]}, "texts[1]"),
        ("/v1/embed/texts", {"texts": ["a", ""]}, "texts[1]"),
        ("/v1/embed/texts", {"texts": ["a\0"]}, "texts[0]"),
        ("/v1/embed/texts", {"texts": ["a"], "colour": "red"}, "colour"),
        ("/v1/embed/texts", {"texts": ["a"], "kind": "joint"}, "kind"),
        ("/v1/embed/texts", {"texts": ["a"], "dimensions": 0}, "dimensions"),
        ("/v1/embed/texts", {"texts": ["a"], "data_type": "int64"}, "data_type"),
        ("/v1/embed/texts", [], "body"),
        ("/v1/embed/images", {}, "images"),
        ("/v1/embed/images", {"images": [PIXEL, "?"]}, "images[1]"),
        ("/v1/embed/images", {"images": [PIXEL, ""]}, "images[1]"),
        ("/v1/embed/images", {"images": [7]}, "images[0]"),
        ("/v1/embed/images", {"images": ["http://somewhere/a.png"]}, "images[0]"),
        ("/v1/embed/images", {"images": [PIXEL], "kind": "whole"}, "kind"),
        ("/v1/embed/clips", {"clips": [{"frames": []}]}, "clips[0].frames"),
        ("/v1/embed/clips", {"clips": [{"frames": [PIXEL], "fps": 3}]}, "clips[0].fps"),
        ("/v1/similarity", {"left": [{"text": "a"}]}, "right"),
        ("/v1/similarity", {"left": [{}], "right": [{"text": "a"}]}, "left[0]"),
        ("/v1/similarity", {"left": [{"text": "a", "image": PIXEL}], "right": [{"text": "a"}]}, "left[0]"),
        ("/v1/similarity", {"left": [{"embedding": {"values": "AAA=", "space_id": "s"}}], "right": [{"text": "a"}]}, "left[0].embedding"),
        ("/v1/similarity", {"left": [{"embedding": {"values": [1e39], "space_id": "s"}}], "right": [{"text": "a"}]}, "left[0].embedding"),
        ("/v1/similarity", {"left": [{"embedding": {"values": [300], "space_id": "s", "data_type": "int8"}}], "right": [{"text": "a"}]}, "left[0].embedding"),
        ("/v1/similarity", {"left": [{"embedding": {"values": [], "space_id": "s"}}], "right": [{"text": "a"}]}, "left[0].embedding"),
        ("/v1/similarity", {"left": [{"embedding": {"values": [1], "space_id": "s", "shape": [2]}}], "right": [{"text": "a"}]}, "left[0].embedding"),
        ("/v1/reconstruct", {}, "body"),
        ("/v1/reconstruct", {"text": "a", "image": PIXEL}, "body"),
        ("/v1/reconstruct", {"image": PIXEL, "top_k": 3}, "top_k"),
        ("/v1/reconstruct", {"text": "a", "text_condition": "b"}, "text_condition"),
        ("/v1/reconstruct", {"actions": [[1], [1, 2]]}, "actions"),
        ("/v1/embed/texts", {"texts": ["a"], "model": "m" * 513}, "model"),
        ("/v1/reconstruct", {"text": "a", "top_k": 21}, "top_k"),
        ("/v1/reconstruct", {"image": PIXEL, "mask": {"ratio": 1}}, "mask.ratio"),
        ("/v1/reconstruct", {"image": PIXEL, "mask": {"kind": "tube", "hidden": [1]}}, "mask.hidden"),
        ("/v1/reconstruct", {"image": PIXEL, "mask": {"kind": "tube", "source": "change"}}, "mask.source"),
        ("/v1/reconstruct", {"image": PIXEL, "mask": {"kind": "importance", "source": "taste"}}, "mask.source"),
        ("/v1/reconstruct", {"image": PIXEL, "mask": {"hint": 0.5}}, "mask.hint"),
        ("/v1/reconstruct", {"image": PIXEL, "mask": {"kind": "importance", "hint": 1.5}}, "mask.hint"),
        ("/v1/latent-actions", {"frames": [{"image": PIXEL}], "interval_ms": 50}, "frames"),
        ("/v1/latent-actions", {"frames": [{"image": PIXEL}] * 2}, "interval_ms"),
        ("/v1/latent-actions", {"frames": [{"image": PIXEL, "captured_at_ms": 1}] * 2}, "frames[1].captured_at_ms"),
        ("/v1/latent-actions", {"frames": [{"image": PIXEL, "captured_at_ms": 1}, {"image": PIXEL}]}, "frames"),
        ("/v1/latent-actions", {"frames": [{"image": PIXEL, "captured_at_ms": 1}, {"image": PIXEL, "captured_at_ms": 9}], "interval_ms": 8}, "interval_ms"),
        ("/v1/latent-actions", {"frames": [{"image": PIXEL}] * 2, "interval_ms": 0}, "interval_ms"),
        ("/v1/latent-actions", {"frames": [{"picture": PIXEL}] * 2, "interval_ms": 5}, "frames[0].image"),
        ("/v1/rollout", {"candidates": [[[1]]]}, "frames"),
        ("/v1/rollout", {"frames": [PIXEL]}, "candidates"),
        ("/v1/rollout", {"frames": [PIXEL], "candidates": [[[1]]], "steps": 1}, "candidates"),
        ("/v1/rollout", {"frames": [PIXEL], "candidates": [[[1]], [[1], [2]]]}, "candidates"),
        ("/v1/rollout", {"frames": [PIXEL], "candidates": [[[1]], [[1, 2]]]}, "candidates"),
        ("/v1/rollout", {"frames": [PIXEL], "candidates": [[[]]]}, "candidates[0][0]"),
        ("/v1/rollout", {"frames": [PIXEL] * 2, "candidates": [[[1]]]}, "past_actions"),
        ("/v1/rollout", {"frames": [PIXEL], "candidates": [[[1]]], "past_actions": [[1]]}, "past_actions"),
        ("/v1/rollout", {"frames": [PIXEL] * 2, "candidates": [[[1]]], "past_actions": [[1], [1, 2]]}, "past_actions"),
        ("/v1/rollout", {"frames": [PIXEL], "steps": 0}, "steps"),
        ("/v1/rollout", {"frames": [PIXEL], "steps": 1, "frame_interval_ms": 0}, "frame_interval_ms"),
        ("/v1/rollout", {"frames": [PIXEL], "steps": 1, "goal": "?"}, "goal"),
    ],
)  # fmt: skip
async def test_a_request_that_does_not_fit_is_a_422_that_names_the_field(
    path: str, body: Any, field: str, http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    found = checked(await http.post(path, json=body), 422)

    assert found["violations"][0]["field"] == field
    assert found["violations"][0]["description"]
    assert worker.seen == []


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/v1/embed/texts", {}, "FIELD_MISSING"),
        ("/v1/embed/texts", {"texts": []}, "FIELD_MISSING"),
        ("/v1/embed/texts", {"texts": [1]}, "FIELD_OUT_OF_RANGE"),
        ("/v1/embed/texts", {"texts": ["a"], "colour": "red"}, "FIELD_OUT_OF_RANGE"),
        ("/v1/embed/images", {"images": [""]}, "FIELD_MISSING"),
        ("/v1/embed/images", {"images": ["?"]}, "FIELD_OUT_OF_RANGE"),
        ("/v1/similarity", {"left": [{}], "right": [{"text": "a"}]}, "FIELD_MISSING"),
        ("/v1/similarity", {"left": [{"text": ""}], "right": [{"text": "a"}]}, "FIELD_MISSING"),
        ("/v1/similarity", {"left": [{"embedding": {"values": "AAA=", "space_id": "s"}}], "right": [{"text": "a"}]}, "SHAPE_MISMATCH"),
        ("/v1/similarity", {"left": [{"embedding": {"values": [1], "space_id": "s", "shape": [2]}}], "right": [{"text": "a"}]}, "SHAPE_MISMATCH"),
        ("/v1/reconstruct", {}, "FIELD_MISSING"),
        ("/v1/reconstruct", {"text": "a", "image": PIXEL}, "FIELD_OUT_OF_RANGE"),
        ("/v1/reconstruct", {"actions": []}, "FIELD_MISSING"),
        ("/v1/reconstruct", {"actions": [[1], [1, 2]]}, "SHAPE_MISMATCH"),
        ("/v1/latent-actions", {"frames": [{"image": PIXEL}], "interval_ms": 50}, "FIELD_MISSING"),
        ("/v1/latent-actions", {"frames": [{"image": PIXEL}] * 2}, "FIELD_MISSING"),
        ("/v1/latent-actions", {"frames": [{"image": PIXEL, "captured_at_ms": 1}] * 2}, "INTERVAL_MISMATCH"),
        ("/v1/rollout", {"frames": [PIXEL]}, "FIELD_MISSING"),
        ("/v1/rollout", {"frames": [PIXEL], "candidates": [[[1]]], "steps": 1}, "FIELD_OUT_OF_RANGE"),
        ("/v1/rollout", {"frames": [PIXEL], "candidates": [[[1]], [[1, 2]]]}, "SHAPE_MISMATCH"),
        ("/v1/rollout", {"frames": [PIXEL] * 2, "candidates": [[[1]]]}, "FIELD_MISSING"),
        ("/v1/rollout", {"frames": [PIXEL], "candidates": [[[1]]], "past_actions": [[1]]}, "FIELD_OUT_OF_RANGE"),
    ],
)  # fmt: skip
async def test_the_gateway_refuses_with_the_reason_that_the_worker_would_give(
    path: str, body: Any, reason: str, http: httpx.AsyncClient
) -> None:
    assert checked(await http.post(path, json=body), 422)["reason"] == reason


async def test_numbers_that_are_none_are_not_finite(http: httpx.AsyncClient) -> None:
    content = '{"actions": [[NaN, 1], [1, 1]]}'
    headers = {"Content-Type": "application/json"}
    response = await http.post("/v1/reconstruct", content=content, headers=headers)

    found = checked(response, 422)
    assert found["reason"] == "NOT_FINITE"
    assert found["violations"][0]["field"] == "actions[0][0]"


@pytest.mark.parametrize("data_type", ["float32", "float16"])
@pytest.mark.parametrize("values", ["[NaN]", "[1e400]", '"AADAfw=="'])
async def test_a_vector_of_no_numbers_is_refused_alike_in_either_encoding(
    values: str, data_type: str, http: httpx.AsyncClient
) -> None:
    if values.startswith('"') and data_type == "float16":
        values = '"AH4="'
    given = f'{{"values": {values}, "space_id": "s", "data_type": "{data_type}"}}'
    content = f'{{"left": [{{"embedding": {given}}}], "right": [{{"text": "a"}}]}}'
    headers = {"Content-Type": "application/json"}

    found = checked(await http.post("/v1/similarity", content=content, headers=headers), 422)

    assert found["reason"] == "NOT_FINITE"
    told = "found NaN or infinity; allowed: finite numbers"
    assert found["violations"] == [{"field": "left[0].embedding.values", "description": told}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embed/texts", {"texts": [1] * 100_000}),
        ("/v1/embed/images", {"images": ["?"] * 100_000}),
        ("/v1/embed/clips", {"clips": [{}] * 100_000}),
        ("/v1/embed/clips", {"clips": [{"frames": ["?"] * 100_000}]}),
        ("/v1/similarity", {"left": [{}] * 100_000, "right": [{}] * 100_000}),
        ("/v1/similarity", {"left": [{"embedding": {"values": ["?"] * 100_000, "space_id": "s"}}], "right": [{"text": "a"}]}),
        ("/v1/reconstruct", {"actions": [["?"]] * 100_000}),
        ("/v1/reconstruct", {"actions": [["?"] * 100_000]}),
        ("/v1/reconstruct", {"text": "a [MASK]", "mask": {"hidden": [-1] * 100_000}}),
        ("/v1/latent-actions", {"frames": [{}] * 100_000}),
        ("/v1/embeddings", {"input": [1] * 100_000}),
        ("/v1/embed/texts", {f"colour{number}": 1 for number in range(100_000)}),
        ("/v1/reconstruct", {"image": PIXEL, "mask": {f"colour{number}": 1 for number in range(100_000)}}),
    ],
)  # fmt: skip
async def test_however_much_is_wrong_little_is_said_of_it(
    path: str, body: Any, http: httpx.AsyncClient
) -> None:
    response = await http.post(path, json=body)

    assert response.status_code == 422
    assert len(response.content) < 2000


async def test_a_form_that_does_not_fit_is_refused(http: httpx.AsyncClient) -> None:
    files = {"images": ("a.png", b"bytes")}
    path = "/v1/embed/images"

    unknown = await http.post(path, files=files, data={"colour": "red"})
    assert checked(unknown, 422)["violations"][0]["field"] == "colour"
    twice = await http.post(path, files=files, data={"kind": ["joint", "pooled"]})
    assert checked(twice, 422)["violations"][0]["field"] == "kind"
    no_file = await http.post(path, files={"kind": ("a", b"joint")})
    assert checked(no_file, 422)["violations"][0]["field"] == "kind"
    many = [("images", (f"{i}.png", b"bytes")) for i in range(300)]
    checked(await http.post(path, files=many), 400)
    long = await http.post(path, files=files, data={"model": "m" * 5000})
    checked(long, 400)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/v1/embed/texts", '{"texts": ["\\ud800"]}'),
        ("/v1/embed/texts", '{"texts": ["a"], "model": "\\ud800"}'),
        ("/v1/embed/texts", '{"texts": ["a"], "dimensions": 1e400}'),
        ("/v1/embed/images", '{"images": ["\\ud800"]}'),
        ("/v1/embed/images", '{"images": ["AAAA"], "\\ud800": 1}'),
        ("/v1/reconstruct", '{"actions": [[1e300], [1]]}'),
        ("/v1/reconstruct", '{"actions": [[NaN], [1]]}'),
        ("/v1/reconstruct", '{"actions": [[], []]}'),
        ("/v1/reconstruct", '{"image": "AAAA", "mask": {"hidden": [1, 1]}}'),
        ("/v1/latent-actions", '{"frames": [{"image": "AA=="}, {"image": "AA=="}], "interval_ms": 1e300}'),
        ("/v1/latent-actions", '{"frames": [{"image": "AA==", "captured_at_ms": 1}, {"image": "AA==", "captured_at_ms": 1e300}]}'),
        ("/v1/similarity", '{"left": [{"text": "\\u0000"}], "right": [{"text": "a"}]}'),
        ("/v1/similarity", '{"left": [{"embedding": {"values": [NaN], "space_id": "s"}}], "right": [{"text": "a"}]}'),
        ("/v1/similarity", '{"left": [{"embedding": {"values": "AADAfw==", "space_id": "s"}}], "right": [{"text": "a"}]}'),
        ("/v1/embeddings", '{"input": ["\\ud800"]}'),
    ],
)  # fmt: skip
async def test_nothing_odd_that_a_caller_sends_is_taken_for_a_fault_of_ours(
    path: str, content: str, http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    headers = {"Content-Type": "application/json"}
    response = await http.post(path, content=content.encode(), headers=headers)

    assert response.status_code in (400, 422), response.text
    assert worker.seen == []


@pytest.mark.parametrize("name", ["%00", "%ED%A0%80", "x" * 2000, "a%20b"])
async def test_neither_is_an_odd_name_of_a_model(name: str, http: httpx.AsyncClient) -> None:
    response = await http.get(f"/v1/models/{name}")

    assert response.status_code in (404, 422), response.text
