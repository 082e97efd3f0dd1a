"""What the documentation of the live product shows, a reader can paste."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.journeys.openapi import Documentation
from tests.journeys.product import Pair, Up

IMAGES = "/v1/embed/images"


def test_every_example_works_on_the_embedded_model_or_says_what_it_needs(product: Up) -> None:
    documentation = Documentation.of(product.http)
    wrong, answered = [], 0
    for operation in documentation.operations():
        for name, example in operation.examples.items():
            response = product.http.request(operation.method, operation.path, json=example["value"])
            wrong += [
                f"{operation}, {name}: {w}" for w in documentation.wrong_with(operation, response)
            ]
            if response.status_code != 200:
                refused = (example.get("summary", "")[:5], response.json()["reason"])
                assert refused == ("needs", "CAPABILITY_MISSING"), f"{operation}, {name}"
            answered += response.status_code == 200

    assert wrong == []
    assert answered >= 8


def test_every_example_works_on_a_model_that_has_every_part(served: Pair) -> None:
    documentation = Documentation.of(served.http)
    wrong = []
    for operation in documentation.operations():
        for name, example in operation.examples.items():
            response = served.http.request(operation.method, operation.path, json=example["value"])
            assert response.status_code == 200, f"{operation}, {name}: {response.text}"
            wrong += [
                f"{operation}, {name}: {w}" for w in documentation.wrong_with(operation, response)
            ]

    assert wrong == []


def test_what_can_be_sent_has_an_example(product: Up) -> None:
    operations = list(Documentation.of(product.http).operations())

    assert [str(o) for o in operations if o.method == "post" and not o.examples] == []


def test_what_only_asks_is_answered_as_documented(product: Up) -> None:
    documentation = Documentation.of(product.http)
    name = product.http.get("/v1/models").json()["data"][0]["id"]
    wrong = []
    for operation in documentation.operations():
        if operation.method == "get":
            response = product.http.get(operation.path.format(name=name))
            assert response.status_code == 200, f"{operation}: {response.text}"
            wrong += [f"{operation}: {w}" for w in documentation.wrong_with(operation, response)]

    assert wrong == []


def test_metrics_are_prometheuss_on_both_ports(product: Up) -> None:
    for address in (product.gateway, f"127.0.0.1:{product.metrics_port}"):
        text = httpx.get(f"http://{address}/metrics").text
        assert any(f.name.startswith("tectum_") for f in text_string_to_metric_families(text))


@pytest.mark.parametrize("name", ["two pictures", "compact"])
def test_pictures_as_a_form_are_the_same_as_in_json(product: Up, name: str) -> None:
    documentation = Documentation.of(product.http)
    (operation,) = (o for o in documentation.operations() if o.path == IMAGES)
    assert "multipart/form-data" in operation.described["requestBody"]["content"]
    body: dict[str, Any] = dict(operation.examples[name]["value"])
    in_json = product.http.post(IMAGES, json=body)

    pictures = [base64.b64decode(picture.rpartition(",")[2]) for picture in body.pop("images")]
    files = [("images", (f"{i}.png", content)) for i, content in enumerate(pictures)]
    as_form = product.http.post(IMAGES, files=files, data=body)

    assert documentation.wrong_with(operation, as_form) == []
    for one, other in zip(vectors(in_json), vectors(as_form), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def vectors(response: httpx.Response) -> list[Any]:
    assert response.status_code == 200, response.text
    embeddings = [result["embedding"] for result in response.json()["results"]]
    return [
        np.frombuffer(base64.b64decode(e["values"]), e["data_type"]) * e["scale"]
        if isinstance(e["values"], str)
        else np.array(e["values"])
        for e in embeddings
    ]
