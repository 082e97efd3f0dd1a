"""How bodies are read: within bounds, once, and never so that other callers have to wait."""

# One case a line, however long.
# ruff: noqa: E501

import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.client.fake_worker import FakeWorker
from tests.server.gateway.checks import checked
from tests.server.gateway.live import LiveGateway

from tectum_server.gateway import GatewaySettings, codec
from tectum_server.gateway.reading import LARGE, MOST_VALUES
from tectum_server.gateway.schemas.common import MOST_CHARACTERS, MOST_ITEMS, MOST_NUMBERS

HEALTH_CHECK = 5
"""Seconds that an image's HEALTHCHECK waits."""
JSON_ROUTES = [
    "/v1/embed/images", "/v1/embed/texts", "/v1/embed/clips", "/v1/similarity", "/v1/reconstruct",
    "/v1/latent-actions", "/v1/rollout", "/v1/embeddings",
]  # fmt: skip
A, PIXEL = {"text": "a"}, "AAAA"
MANY, LONG = MOST_ITEMS + 1, "a" * (MOST_CHARACTERS + 1)


def vector(count: int, **more: Any) -> dict[str, Any]:
    return {"embedding": {"values": [1] * count, "space_id": "joint-1", **more}}


def similarity(*left: Any) -> dict[str, Any]:
    return {"left": list(left), "right": [A]}


# ---------------------------------------------------------------- bounds


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/embed/images", {"images": [PIXEL] * MANY}, "images"),
        ("/v1/embed/texts", {"texts": ["a"] * MANY}, "texts"),
        ("/v1/embed/clips", {"clips": [{"frames": [PIXEL]}] * MANY}, "clips"),
        ("/v1/embed/clips", {"clips": [{"frames": [PIXEL] * MANY}]}, "clips[0].frames"),
        ("/v1/similarity", similarity(*[A] * MANY), "left"),
        ("/v1/similarity", {"left": [A], "right": [A] * MANY}, "right"),
        ("/v1/similarity", similarity(vector(MOST_NUMBERS + 1)), "left[0].embedding.values"),
        ("/v1/similarity", similarity(vector(1, shape=[1] * 9)), "left[0].embedding.shape"),
        ("/v1/reconstruct", {"actions": [[1]] * MANY}, "actions"),
        ("/v1/reconstruct", {"actions": [[1] * MANY]}, "actions[0]"),
        ("/v1/reconstruct", {"actions": [[1]], "state_condition": [1] * MANY}, "state_condition"),
        ("/v1/reconstruct", {"text": "a", "mask": {"hidden": [1] * (MOST_NUMBERS + 1)}}, "mask.hidden"),
        ("/v1/latent-actions", {"frames": [{"image": PIXEL}] * MANY, "interval_ms": 1}, "frames"),
        ("/v1/rollout", {"frames": [PIXEL] * MANY, "steps": 1}, "frames"),
        ("/v1/rollout", {"frames": [PIXEL], "candidates": [[[1]]] * MANY}, "candidates"),
        ("/v1/rollout", {"frames": [PIXEL], "candidates": [[[1]] * MANY]}, "candidates[0]"),
        ("/v1/rollout", {"frames": [PIXEL], "candidates": [[[1] * MANY]]}, "candidates[0][0]"),
        ("/v1/rollout", {"frames": [PIXEL], "steps": 1, "past_actions": [[1]] * MANY}, "past_actions"),
    ],
)  # fmt: skip
async def test_a_list_has_a_longest_length(
    path: str, body: Any, field: str, http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    found = checked(await http.post(path, json=body), 422)

    assert found["reason"] == "TOO_MANY_ITEMS"
    assert [violation["field"] for violation in found["violations"]] == [field]
    assert worker.seen == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/embed/texts", {"texts": [LONG]}, "texts[0]"),
        ("/v1/similarity", similarity({"text": LONG}), "left[0].text"),
        ("/v1/similarity", similarity(vector(1, space_id="a" * 513)), "left[0].embedding.space_id"),
        ("/v1/similarity", similarity(vector(1, values="A" * (8 * MOST_NUMBERS + 1))), "left[0].embedding.values"),
        ("/v1/reconstruct", {"text": LONG}, "text"),
        ("/v1/reconstruct", {"image": PIXEL, "text_condition": LONG}, "text_condition"),
    ],
)  # fmt: skip
async def test_a_text_has_a_longest_length(
    path: str, body: Any, field: str, http: httpx.AsyncClient
) -> None:
    found = checked(await http.post(path, json=body), 422)

    assert found["reason"] == "FIELD_OUT_OF_RANGE"
    assert [violation["field"] for violation in found["violations"]] == [field]


async def test_openais_lists_and_texts_have_them_too(http: httpx.AsyncClient) -> None:
    for given in (["a"] * MANY, LONG):
        assert (await http.post("/v1/embeddings", json={"input": given})).status_code == 422


@pytest.mark.parametrize("path", JSON_ROUTES)
async def test_a_body_of_too_many_values_is_refused_before_it_is_parsed(
    path: str, http: httpx.AsyncClient
) -> None:
    headers = {"Content-Type": "application/json"}
    # Not even JSON: whoever parsed it would say that.
    response = await http.post(path, content=b"[" + b"1," * MOST_VALUES, headers=headers)

    assert response.status_code == 422
    assert f"allowed: at most {MOST_VALUES}" in response.text


async def test_as_many_vectors_as_a_worker_takes_by_default_are_few_enough(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    given = {"left": [vector(4000)] * 32, "right": [vector(4000)] * 32}

    await http.post("/v1/similarity", json=given)

    assert len(worker.seen) == 1


# ---------------------------------------------------------------- once, and beside the loop


async def test_a_vector_is_read_once(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, parse = [], codec.parse_vector

    def noted(*given: Any) -> Any:
        read.append(given)
        return parse(*given)

    monkeypatch.setattr(codec, "parse_vector", noted)
    response = await http.post("/v1/similarity", json=similarity(vector(8)))

    assert response.status_code == 200, response.text
    assert len(read) == 1


@pytest.mark.parametrize(("size", "beside"), [(100, False), (LARGE, True)])
async def test_a_large_body_is_read_in_a_thread(
    size: int, beside: bool, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers, decode = [], codec.decode

    def noted(text: str) -> bytes:
        readers.append(threading.current_thread())
        return decode(text)

    monkeypatch.setattr(codec, "decode", noted)
    await http.post("/v1/embed/images", json={"images": ["A" * size]})

    assert [reader is not threading.current_thread() for reader in readers] == [beside]


@pytest.fixture
def usual(worker: FakeWorker) -> Iterator[LiveGateway]:
    """A gateway with its usual settings, on a real port."""
    with LiveGateway(GatewaySettings(worker_address=worker.address, port=0)) as live:
        yield live


@pytest.mark.parametrize(
    ("before", "filling", "after", "status"),
    [
        pytest.param('{"embedding": {"space_id": "s", "values": [1', ",1", "]}}", 422, id="numbers"),
        pytest.param('{"text": "', ",", '"}', 422, id="commas"),
        pytest.param('{"text": "', "a", '"}', 422, id="letters"),
        pytest.param('{"image": "', "A ", '?"}', 422, id="spaces"),
        pytest.param('{"image": "data:', ";a", '"}', 422, id="prefix"),
        pytest.param("", "[", "", 422, id="brackets"),
        pytest.param("0", f",{'[' * 150}{']' * 150}", "", 422, id="nests"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_the_gateway_says_that_it_lives_while_it_reads_the_largest_body(
    before: str, filling: str, after: str, status: int, usual: LiveGateway
) -> None:
    before, after = f'{{"left": [{before}', f'{after}], "right": [{{"text": "a"}}]}}'
    room = 64 * 2**20 - len(before) - len(after)
    body = f"{before}{filling * (room // len(filling))}{after}"
    answers: list[int] = []

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", usual.port, timeout=120)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/similarity", body, headers)
        answers.append(connection.getresponse().status)
        connection.close()

    sending = threading.Thread(target=send)
    sending.start()
    longest = 0.0
    while sending.is_alive():
        began = time.monotonic()
        assert usual.ask("GET", "/healthz")[0] == 200
        longest = max(longest, time.monotonic() - began)

    assert answers == [status]
    assert longest < HEALTH_CHECK


# ---------------------------------------------------------------- bodies without pictures


def test_a_route_without_pictures_takes_smaller_bodies(worker: FakeWorker) -> None:
    settings = GatewaySettings(
        worker_address=worker.address, port=0, max_text_body_bytes=1000, max_body_bytes=4000
    )
    with LiveGateway(settings) as live:
        live.ask("POST", "/v1/embed/images", {"images": ["A" * 2000]})
        texts = live.ask("POST", "/v1/embed/texts", {"texts": ["a" * 2000]})
        openais = live.ask("POST", "/v1/embeddings", {"input": "a" * 2000})

    assert len(worker.seen) == 1
    assert (texts[0], texts[2]["reason"]) == (413, "MESSAGE_TOO_LARGE")
    assert "at most 1000" in texts[2]["detail"]
    assert openais[0] == 413


# ---------------------------------------------------------------- what is said of it


async def test_the_documentation_says_how_much_a_body_may_hold(app: FastAPI) -> None:
    document = app.openapi()
    schemas = document["components"]["schemas"]

    for path in JSON_ROUTES:
        said = document["paths"][path]["post"]["requestBody"]["description"]
        most = 4 * 2**20 if path in ("/v1/embed/texts", "/v1/embeddings") else 64 * 2**20
        assert f"At most {most} bytes" in said
        assert f"at most {MOST_VALUES} values" in said
        assert ("at most 256 files" in said) == (path == "/v1/embed/images")
    assert schemas["EmbedTexts"]["properties"]["texts"]["maxItems"] == MOST_ITEMS
    assert schemas["EmbedTexts"]["properties"]["texts"]["items"]["maxLength"] == MOST_CHARACTERS


async def test_every_list_and_text_that_can_be_sent_says_how_long_it_may_be(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    sent = {name: one for name, one in schemas.items() if one.get("additionalProperties") is False}

    def parts(schema: Any) -> Iterator[dict[str, Any]]:
        if isinstance(schema, dict):
            yield schema
        for part in schema.values() if isinstance(schema, dict) else schema:
            if isinstance(part, dict | list):
                yield from parts(part)

    bound = {"array": "maxItems", "string": "maxLength"}
    unbounded = [
        (name, field)
        for name, schema in sent.items()
        for field, described in schema["properties"].items()
        for part in parts(described)
        if part.get("type") in bound
        and bound[part["type"]] not in part
        and not {"enum", "const", "contentEncoding"} & set(part)
    ]
    assert len(sent) >= 10
    assert unbounded == []


async def test_whatever_the_documentation_refers_to_is_in_it(app: FastAPI) -> None:
    document = json.dumps(app.openapi())
    named = {part.split('"')[0] for part in document.split("#/components/schemas/")[1:]}

    assert named <= set(app.openapi()["components"]["schemas"])
    assert "#/$defs" not in document
