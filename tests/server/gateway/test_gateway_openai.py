"""`/v1/embeddings` as OpenAI's clients know it."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest
from tests.client import fake_answers
from tests.client.fake_worker import FakeWorker


async def embeddings(http: httpx.AsyncClient, **body: Any) -> Any:
    response = await http.post("/v1/embeddings", json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("given", ["open the drawer!", ["open the drawer!"]])
async def test_one_text_becomes_one_vector(given: Any, http: httpx.AsyncClient) -> None:
    answer = await embeddings(http, model="tiny", input=given)

    expected = fake_answers.unit(fake_answers.text_vector("open the drawer!"))
    assert answer.keys() == {"object", "data", "model", "space_id", "usage"}
    assert (answer["object"], answer["model"]) == ("list", "tiny")
    (one,) = answer["data"]
    assert (one["object"], one["index"]) == ("embedding", 0)
    np.testing.assert_allclose(one["embedding"], expected, rtol=1e-6)
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}, "the worker's count"
    assert answer["space_id"] == fake_answers.JOINT


async def test_base64_is_little_endian_float32(http: httpx.AsyncClient) -> None:
    listed = await embeddings(http, input=["a", "b"])
    packed = await embeddings(http, input=["a", "b"], encoding_format="base64", user="someone")

    for one, other in zip(listed["data"], packed["data"], strict=True):
        values = np.frombuffer(base64.b64decode(other["embedding"]), "<f4")
        np.testing.assert_allclose(values, one["embedding"], rtol=1e-6)


async def test_fewer_dimensions_can_be_asked_for(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    answer = await embeddings(http, input="a", dimensions=4)

    assert len(answer["data"][0]["embedding"]) == 4
    assert worker.seen[0].request.vector.dimensions == 4
