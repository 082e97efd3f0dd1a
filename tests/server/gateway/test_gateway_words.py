"""What pydantic finds wrong with a request is told in the house's words: found, and allowed."""

# One case a line, however long.
# ruff: noqa: E501

from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter, ValidationError
from tests.server.gateway.checks import checked

from tectum_server.gateway.schemas.common import Strict
from tectum_server.gateway.wrong import description_of

TEXTS_FIELDS = "model, data_type, dimensions, encoding_format, texts"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("embed/texts", {"texts": ["a"], "modle": "m"}, f"modle: unknown field; did you mean model? allowed: {TEXTS_FIELDS}"),
        ("embed/texts", {"texts": ["a"], "zzz": 1}, f"zzz: unknown field; allowed: {TEXTS_FIELDS}"),
        ("embed/clips", {"clips": [{"frames": ["AAAA"], "frame": 1}]}, "clips[0].frame: unknown field; did you mean frames? allowed: frames"),
        ("similarity", {"left": [{"embedding": {"values": [1], "space_id": "s", "spaceid": "s"}}], "right": [{"text": "a"}]}, "left[0].embedding.spaceid: unknown field; did you mean space_id? allowed: values, space_id, data_type, scale, shape, tokens, truncated"),
        ("reconstruct", {"text": "a", "mask": {"rato": 1}}, "mask.rato: unknown field; did you mean ratio? allowed: kind, ratio, seed, hidden, source, hint"),
        ("embed/texts", {"texts": []}, "texts: found 0 items; allowed: at least 1"),
        ("embed/texts", {"texts": ["a"] * 1025}, "texts: found 1025 items; allowed: at most 1024"),
        ("embed/texts", {"texts": "a"}, "texts: found a string; allowed: a list"),
        ("embed/texts", {"texts": None}, "texts: found null; allowed: a list"),
        ("embed/texts", {"texts": [1]}, "texts[0]: found a number; allowed: a string"),
        ("embed/texts", {"texts": [["a"]]}, "texts[0]: found a list; allowed: a string"),
        ("embed/texts", {}, "texts: found nothing; this field is required"),
        ("embed/texts", {"texts": ["a"], "model": "m" * 513}, "model: found 513 characters; allowed: at most 512"),
        ("embed/texts", {"texts": ["a"], "dimensions": "many"}, "dimensions: found many; allowed: a whole number"),
        ("embed/texts", {"texts": ["a"], "dimensions": 1.5}, "dimensions: found 1.5; allowed: a whole number"),
        ("embed/texts", {"texts": ["a"], "data_type": "float64"}, "data_type: found float64; allowed: float32, float16 or int8"),
        ("embed/texts", [], "body: found a list; allowed: an object"),
        ("reconstruct", {"text": ""}, "text: found 0 characters; allowed: at least 1"),
        ("latent-actions", {"frames": [{"image": "AAAA"}] * 2, "interval_ms": 50, "decode_actions": "perhaps"}, "decode_actions: found perhaps; allowed: true or false"),
        ("latent-actions", {"frames": ["AAAA"] * 2, "interval_ms": 50}, "frames[0]: found a string; allowed: an object"),
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_told_in_the_houses_words(
    path: str, body: Any, said: str, http: httpx.AsyncClient
) -> None:
    assert checked(await http.post(f"/v1/{path}", json=body), 422)["detail"] == said


async def test_one_answer_tells_of_everything_that_is_wrong(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/embed/texts", json={"text": ["a"], "kind": "joint"})

    found = checked(answer, 422)["violations"]
    assert [violation["field"] for violation in found] == ["texts", "text", "kind"]
    assert "did you mean texts?" in found[1]["description"]


async def test_headers_are_told_of_in_the_same_words(http: httpx.AsyncClient) -> None:
    headers = {"X-Tectum-Priority": "urgent", "X-Tectum-Deadline-Ms": "soon"}

    answer = await http.post("/v1/embed/texts", json={"texts": ["a"]}, headers=headers)

    found = {v["field"].lower(): v["description"] for v in checked(answer, 422)["violations"]}
    assert found == {
        "x-tectum-priority": "found urgent; allowed: control, interactive or bulk",
        "x-tectum-deadline-ms": "found soon; allowed: a number",
    }


@pytest.mark.parametrize("kind", [list[int], str, int, float, bool, dict[str, int], Strict])
@pytest.mark.parametrize("given", [None, [], {}, "?", object()])
def test_no_wrong_type_is_told_in_pydantics_words(kind: Any, given: Any) -> None:
    try:
        TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            assert description_of(found).startswith("found ")
            assert "Input should" not in description_of(found)
