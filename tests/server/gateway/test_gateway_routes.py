"""What each route answers, and what of a request reaches the worker."""

import base64
import io
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.client import fake_answers
from tests.client.fake_worker import FakeWorker

import tectum
from tectum import models
from tectum.v1 import model_pb2


def png(red: int = 255, height: int = 4, width: int = 6) -> bytes:
    array = np.zeros((height, width, 3), np.uint8)
    array[..., 0] = red
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def opened(text: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        return np.asarray(picture)


PICTURE = b64(png())


async def post(http: httpx.AsyncClient, path: str, body: Any, **headers: str) -> Any:
    response = await http.post(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def test_pictures_become_vectors(http: httpx.AsyncClient) -> None:
    answer = await post(http, "/v1/embed/images", {"images": [PICTURE, PICTURE], "kind": "pooled"})

    first, second = (result["embedding"] for result in answer["results"])
    assert first == second
    np.testing.assert_allclose(first["values"], [1, 0, 0, 0.04, 0.06, 1, 2, 3], rtol=1e-6)
    assert (first["shape"], first["data_type"], first["space_id"]) == (
        [8],
        "float32",
        fake_answers.POOLED,
    )
    assert "scale" not in first
    info = answer["info"]
    assert (info["model"], info["version"]) == ("tiny", "0123abcd")
    assert info["numerics"] == {"precision": "float32", "engine": "arithmetic"}
    assert info["timings"] == {
        "queue_ms": 1,
        "compute_ms": 2,
        "total_ms": 4,
        "batch_size": 2,
    }


@pytest.mark.parametrize(
    "written",
    [
        f"data:image/png;base64,{PICTURE}",
        f"data:image/png;charset=utf-8;base64,{PICTURE}",
        "\n".join(PICTURE[i : i + 76] for i in range(0, len(PICTURE), 76)),
    ],
)
async def test_a_picture_may_be_written_in_several_ways(
    written: str, http: httpx.AsyncClient
) -> None:
    answer = await post(http, "/v1/embed/images", {"images": [PICTURE, written]})

    assert answer["results"][0] == answer["results"][1]


async def test_pictures_may_come_as_files(http: httpx.AsyncClient, worker: FakeWorker) -> None:
    files = [("images", ("a.png", png(0))), ("images", ("b.png", png(255)))]
    options = {"kind": "pooled", "data_type": "float16", "model": "tiny", "dimensions": "8"}

    response = await http.post("/v1/embed/images", files=files, data=options)

    assert response.status_code == 200, response.text
    values = [result["embedding"]["values"] for result in response.json()["results"]]
    assert [value[0] for value in values] == [0, 1]
    request = worker.seen[0].request
    assert (request.vector.kind, request.vector.data_type, request.vector.dimensions) == (2, 2, 8)
    assert request.options.model == "tiny"


async def test_vectors_may_come_as_base64(http: httpx.AsyncClient) -> None:
    plain: dict[str, Any] = {"images": [PICTURE], "kind": "pooled", "data_type": "int8"}
    listed = await post(http, "/v1/embed/images", plain)
    packed = await post(http, "/v1/embed/images", plain | {"encoding_format": "base64"})

    one, other = (answer["results"][0]["embedding"] for answer in (listed, packed))
    np.testing.assert_array_equal(
        np.frombuffer(base64.b64decode(other["values"]), np.int8), one["values"]
    )
    assert one["scale"] == other["scale"] == pytest.approx(3 / 127)
    assert other["shape"] == [8]


async def test_tokens_come_as_rows(http: httpx.AsyncClient) -> None:
    answer = await post(http, "/v1/embed/images", {"images": [PICTURE], "kind": "tokens"})

    embedding = answer["results"][0]["embedding"]
    assert embedding["shape"] == [4, 8]
    assert np.shape(embedding["values"]) == (4, 8)


async def test_a_bad_picture_fails_inside_an_answer(http: httpx.AsyncClient) -> None:
    answer = await post(http, "/v1/embed/images", {"images": [PICTURE, b64(b"no picture")]})

    assert "embedding" in answer["results"][0]
    assert answer["results"][1] == {
        "error": {
            "code": "INVALID_ARGUMENT",
            "reason": "IMAGE_UNREADABLE",
            "field": "images[1]",
            "message": "images[1]: the bytes are no picture",
        }
    }


async def test_texts_become_vectors(http: httpx.AsyncClient) -> None:
    answer = await post(http, "/v1/embed/texts", {"texts": ["open the drawer"], "dimensions": 4})

    assert answer["results"][0]["embedding"]["shape"] == [4]


async def test_of_a_text_too_long_the_answer_says_so(http: httpx.AsyncClient) -> None:
    answer = await post(http, "/v1/embed/texts", {"texts": ["open", "very " * 20]})

    found = [result["embedding"] for result in answer["results"]]
    assert [(one["tokens"], one["truncated"]) for one in found] == [(3, False), (10, True)]
    compared = {"left": [{"embedding": found[0]}], "right": [{"embedding": found[1]}]}
    assert (await post(http, "/v1/similarity", compared))["truncated"] == []


async def test_clips_become_vectors(http: httpx.AsyncClient, worker: FakeWorker) -> None:
    body = {"clips": [{"frames": [PICTURE, PICTURE]}], "frame_interval_ms": 40}
    answer = await post(http, "/v1/embed/clips", body)

    assert answer["results"][0]["embedding"]["space_id"] == fake_answers.JOINT
    assert worker.seen[0].request.clips[0].frame_interval.ToMilliseconds() == 40


async def test_everything_can_be_compared_with_everything(http: httpx.AsyncClient) -> None:
    embedded = await post(
        http, "/v1/embed/images", {"images": [PICTURE], "encoding_format": "base64"}
    )
    vector = embedded["results"][0]["embedding"]
    left = [{"image": PICTURE}, {"text": "a drawer"}, {"image": b64(b"no picture")}]
    listed = {"values": [1, 0, 0, 0, 0, 0, 0, 0], "space_id": "joint-1"}

    answer = await post(
        http,
        "/v1/similarity",
        {"left": left, "right": [{"embedding": vector}, {"embedding": listed}]},
    )

    assert answer["cosine"][0][0] == pytest.approx(1, abs=1e-5)
    assert answer["cosine"][2] == answer["right_given_left"][2] == [None, None]
    assert sum(answer["right_given_left"][1]) == pytest.approx(1)
    assert answer["errors"][0]["side"] == "left"
    assert answer["errors"][0]["error"]["field"] == "left[2]"
    assert answer["space_id"] == "joint-1"


async def test_an_image_is_filled_in(http: httpx.AsyncClient, worker: FakeWorker) -> None:
    mask = {"kind": "block", "ratio": 0.25, "seed": 7}
    answer = await post(
        http, "/v1/reconstruct", {"image": PICTURE, "mask": mask, "text_condition": "open"}
    )

    image = answer["image"]
    np.testing.assert_array_equal(opened(image["input"]), opened(PICTURE))
    np.testing.assert_array_equal(opened(image["reconstruction"]), 255 - opened(PICTURE))
    assert image["mask"] == [[True, False], [False, False]]
    assert image["element_error"] == [[0.5, None], [None, None]]
    assert {"info", "image"} == answer.keys()
    request = worker.seen[0].request
    assert (request.mask.kind, request.mask.seed, request.text_condition) == (2, 7, "open")


async def test_a_clip_is_filled_in(http: httpx.AsyncClient, worker: FakeWorker) -> None:
    mask = {"kind": "importance", "source": "change", "hint": 0.25}
    body = {"clip": {"frames": [PICTURE, b64(png(9))]}, "frame_interval_ms": 50, "mask": mask}
    answer = await post(http, "/v1/reconstruct", body)

    assert [opened(frame)[0, 0, 0] for frame in answer["clip"]["reconstruction"]] == [0, 246]
    sent = worker.seen[0].request.mask
    assert (sent.kind, sent.source, sent.hint) == (3, 2, 0.25)


async def test_a_text_is_filled_in(http: httpx.AsyncClient, worker: FakeWorker) -> None:
    body = {"text": "push the [MASK] now", "image_condition": PICTURE, "top_k": 2}
    answer = await post(http, "/v1/reconstruct", body)

    text = answer["text"]
    assert text["text"] == "push the block now"
    assert text["tokens"][2] == {
        "token": "[MASK]",
        "hidden": True,
        "candidates": [
            {"token": "block", "probability": 0.5},
            {"token": "block1", "probability": 0.25},
        ],
    }
    assert text["tokens"][3]["error"] == 0.75
    assert worker.seen[0].request.HasField("image_condition")


async def test_actions_are_filled_in(http: httpx.AsyncClient) -> None:
    body = {
        "actions": [[0, 1], [2, 3]],
        "mask": {"hidden": [1]},
        "state_condition": [0.5],
        "step_interval_ms": 50,
    }
    answer = await post(http, "/v1/reconstruct", body)

    assert answer["actions"] == {
        "actions": [[0, 1], [-2, -3]],
        "mask": [False, True],
        "element_error": [None, 0.125],
    }


async def test_latent_actions_say_what_changed(http: httpx.AsyncClient) -> None:
    body = {
        "frames": [{"image": b64(png(0))}, {"image": b64(png(255))}],
        "interval_ms": 50,
        "decode_actions": True,
        "predict_frames": True,
    }
    answer = await post(http, "/v1/latent-actions", body)

    action = answer["results"][0]["latent_action"]
    assert action["latent"]["values"][0] == 1
    assert action["latent"]["space_id"] == fake_answers.LATENT
    assert (action["codes"], action["interval_ms"]) == ([0, 1], 50)
    assert np.shape(action["decoded_actions"]) == (2, 3)
    assert opened(action["predicted_frame"])[0, 0, 0] == 255


async def test_frames_may_carry_their_times(http: httpx.AsyncClient, worker: FakeWorker) -> None:
    frames = [
        {"image": PICTURE, "captured_at_ms": 7250},
        {"image": PICTURE, "captured_at_ms": 7300.5},
    ]
    answer = await post(http, "/v1/latent-actions", {"frames": frames})

    assert "decoded_actions" not in answer["results"][0]["latent_action"]
    second = worker.seen[0].request.frames[1]
    assert second.captured_at.ToMicroseconds() == 7_300_500


async def test_rollouts_say_what_would_be_seen(http: httpx.AsyncClient, worker: FakeWorker) -> None:
    body = {
        "frames": [b64(png(0)), b64(png(255))],
        "frame_interval_ms": 50,
        "past_actions": [[1, 2]],
        "candidates": [[[0.5, 9], [0.5, 9]], [[0, 0], [1, 1]]],
        "goal": b64(png(255)),
        "return_latents": True,
        "decode_frames": True,
    }
    answer = await post(http, "/v1/rollout", body)

    first, second = (result["rollout"] for result in answer["results"])
    np.testing.assert_allclose(first["goal_distances"], [0.25, 1])
    np.testing.assert_allclose(second["goal_distances"], [0, 1])
    assert first["latents"]["space_id"] == fake_answers.WORLD
    assert first["latents"]["shape"] == [2, 8]
    assert [opened(frame)[0, 0, 0] for frame in first["frames"]] == [255, 255]
    request = worker.seen[0].request
    assert request.frame_interval.ToMilliseconds() == 50
    assert fake_answers.array(request.past_actions).tolist() == [[1, 2]]


async def test_rollouts_leave_out_what_was_not_asked_for(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    candidates = [[[1, 2]], [[101, 2]]]
    body = {"frames": [PICTURE], "candidates": candidates, "action_space_id": "latent-1"}

    answer = await post(http, "/v1/rollout", body)

    assert answer["results"][0] == {"rollout": {}}
    assert answer["results"][1]["error"]["field"] == "candidates[1]"
    assert worker.seen[0].request.action_space_id == "latent-1"


async def test_a_model_without_actions_is_told_its_steps(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    answer = await post(http, "/v1/rollout", {"frames": [PICTURE], "steps": 3, "goal": PICTURE})

    assert answer["results"][0]["rollout"]["goal_distances"] == [0, 0, 0]
    assert worker.seen[0].request.steps == 3


async def test_models_have_openais_shape_and_our_fields(http: httpx.AsyncClient) -> None:
    listed = (await http.get("/v1/models")).json()

    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("tiny", "model", "tectum")
    assert isinstance(model["created"], int)
    assert model["spaces"][0]["space_id"] == fake_answers.JOINT
    assert model["input"]["latent_action"]["interval_ms"] == 50
    assert model["input"]["world_model"]["interval_ms"] == 50
    assert model["input"]["world_model"]["actions"] == "real"
    assert "clip" not in model["input"]
    assert model["limits"]["bulk_deadline_ms"] == 120_000
    assert "rejection" not in model
    described = (await http.get("/v1/models/tiny")).json()
    assert described["card"] == "# tiny"


async def test_a_rejected_version_is_told_beside_the_model_that_serves(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = models.model

    def rejected(message: model_pb2.Model) -> tectum.Model:
        return replace(whole(message), rejection=tectum.Rejection("e" * 16, "no good", 1.5))

    monkeypatch.setattr(models, "model", rejected)
    (model,) = (await http.get("/v1/models")).json()["data"]

    told = {"version": "e" * 16, "why": "no good", "rejected_at": 1.5}
    assert (model["state"], model["rejection"]) == ("ready", told)


async def test_what_headers_say_reaches_the_worker(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    headers = {
        "X-Tectum-Deadline-Ms": "1500",
        "X-Tectum-Priority": "bulk",
        "X-Tectum-Expected-Space": "joint-1, latent-1",
        "X-Request-Id": "mine-1",
        "Authorization": "Bearer secret",
    }
    response = await http.post("/v1/embed/texts", json={"texts": ["a"]}, headers=headers)

    assert response.headers["x-request-id"] == "mine-1"
    seen = worker.seen[0]
    assert seen.deadline == pytest.approx(1.5, abs=0.3)
    assert seen.request.options.priority == 3
    assert list(seen.request.options.expected_space_ids) == ["joint-1", "latent-1"]
    assert seen.metadata["x-request-id"] == "mine-1"
    assert seen.metadata["authorization"] == "Bearer secret"


async def test_without_headers_the_workers_defaults_apply(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    response = await http.post("/v1/embed/texts", json={"texts": ["a"]})

    seen = worker.seen[0]
    assert seen.deadline is None
    assert seen.request.options.priority == 2
    assert "authorization" not in seen.metadata
    assert seen.metadata["x-request-id"] == response.headers["x-request-id"]
