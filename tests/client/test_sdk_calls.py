"""What each method answers, through both clients: the sync one in a thread, the async one here.

The fake worker answers by arithmetic, so each test says what the answer must be.
"""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.client import fake_answers
from tests.client.fake_worker import FakeWorker

import tectum
from tectum import models
from tectum.v1 import model_pb2

Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, worker: FakeWorker) -> Ask:
    """Call a method by name, through one client or the other."""

    def ask(method: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "sync":
            with tectum.Client(worker.address) as client:
                return getattr(client, method)(*args, **kwargs)

        async def through_asyncio() -> Any:
            async with tectum.AsyncClient(worker.address) as client:
                return await getattr(client, method)(*args, **kwargs)

        return asyncio.run(through_asyncio())

    return ask


def picture(red: int = 255, height: int = 4, width: int = 6) -> NDArray[np.uint8]:
    array = np.zeros((height, width, 3), np.uint8)
    array[..., 0] = red
    return array


def png(array: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def test_pictures_in_every_accepted_form_give_the_same_vector(ask: Ask, tmp_path: Path) -> None:
    array = picture()
    path = tmp_path / "picture.png"
    path.write_bytes(png(array))
    strided = np.ascontiguousarray(array.transpose(1, 0, 2)).transpose(1, 0, 2)

    answer = ask("embed_images", [array, strided, png(array), bytearray(png(array)), path])

    assert answer.vectors.shape == (5, 8)
    assert answer.vectors.dtype == np.float32
    np.testing.assert_array_equal(answer.vectors, np.repeat(answer.vectors[:1], 5, axis=0))
    np.testing.assert_allclose(np.linalg.norm(answer.vectors, axis=1), 1, rtol=1e-6)
    assert answer.space_id == fake_answers.JOINT


def test_an_answer_says_how_it_was_made(ask: Ask) -> None:
    info = ask("embed_images", [picture()], model="tiny@0123abcd", request_id="mine").info

    assert (info.model, info.version, info.request_id) == ("tiny@0123abcd", "0123abcd", "mine")
    assert info.numerics == tectum.Numerics("float32", "arithmetic")
    assert info.timings == tectum.Timings(0.001, None, 0.002, 0.004, 1)


def test_one_array_holds_a_batch_of_pictures(ask: Ask) -> None:
    answer = ask("embed_images", np.stack([picture(0), picture(255)]), kind="pooled")

    assert answer.space_id == fake_answers.POOLED
    np.testing.assert_array_equal(answer.vectors[:, 0], [0, 1])


def test_tokens_give_one_vector_each(ask: Ask) -> None:
    assert ask("embed_images", [picture()], kind="tokens").vectors.shape == (1, 4, 8)


def test_int8_vectors_stay_as_sent_until_asked_for(ask: Ask) -> None:
    exact = ask("embed_images", [picture()], kind="pooled").vectors[0]

    (sent,) = ask("embed_images", [picture()], kind="pooled", dtype="int8").items

    assert sent.values.dtype == np.int8
    assert sent.scale == pytest.approx(3 / 127)
    np.testing.assert_allclose(sent.as_float32(), exact, atol=sent.scale / 2 + 1e-6)


def test_float16_vectors_and_fewer_dimensions_can_be_asked_for(ask: Ask) -> None:
    (sent,) = ask("embed_images", [picture()], dtype="float16", dimensions=4).items

    assert sent.values.dtype == np.float16
    assert sent.values.shape == (4,)
    assert sent.as_float32().dtype == np.float32


def test_a_bad_picture_leaves_its_neighbours_their_vectors(ask: Ask) -> None:
    answer = ask("embed_images", [picture(), b"no picture", picture()])

    assert [type(item) for item in answer] == [
        tectum.Embedding,
        tectum.ItemError,
        tectum.Embedding,
    ]
    assert len(answer) == 3
    error = answer.errors[1]
    assert (error.code, error.reason, error.field) == (
        "INVALID_ARGUMENT",
        "IMAGE_UNREADABLE",
        "images[1]",
    )
    with pytest.raises(tectum.ItemFailed, match=r"1 of 3 items failed \(at 1\)") as caught:
        _ = answer.vectors
    assert caught.value.errors == {1: error}
    assert caught.value.violations == (("images[1]", "images[1]: the bytes are no picture"),)


def test_texts_become_vectors_of_the_same_space(ask: Ask) -> None:
    answer = ask("embed_texts", ["open the drawer", "ünïcode ✓"])

    assert answer.space_id == fake_answers.JOINT
    expected = fake_answers.unit(fake_answers.text_vector("ünïcode ✓"))
    np.testing.assert_array_equal(answer.vectors[1], expected)


def test_clips_become_vectors(ask: Ask, worker: FakeWorker) -> None:
    clip = np.stack([picture(0), picture(255)])

    answer = ask("embed_clips", [clip, [picture(), png(picture())]], 0.05, kind="pooled")

    np.testing.assert_allclose(answer.vectors[:, 0], [0.5, 1])
    assert worker.seen[0].request.clips[0].frame_interval.ToMilliseconds() == 50


def test_everything_can_be_compared_with_everything(ask: Ask) -> None:
    vector = ask("embed_images", [picture()], dtype="int8").items[0]

    answer = ask("similarity", [picture(), "a drawer", b"no picture"], [png(picture()), vector])

    assert answer.cosine.shape == (3, 2)
    np.testing.assert_allclose(answer.cosine[0], 1, atol=1e-3)
    assert np.isnan(answer.cosine[2]).all()
    np.testing.assert_allclose(answer.right_given_left[:2].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.nansum(answer.left_given_right, axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(answer.logits[:2], answer.cosine[:2] * 10)
    (error,) = answer.errors
    assert (error.side, error.index, error.error.field) == (tectum.Side.LEFT, 2, "left[2]")
    assert answer.space_id == fake_answers.JOINT


def test_an_image_is_filled_in(ask: Ask, worker: FakeWorker) -> None:
    mask = tectum.Mask("block", ratio=0.5, seed=7)

    answer = ask("reconstruct_image", picture(), mask, text="open the drawer")

    np.testing.assert_array_equal(answer.input, picture())
    np.testing.assert_array_equal(answer.reconstruction, 255 - picture())
    assert answer.mask.tolist() == [[True, False], [False, False]]
    assert answer.element_error[0, 0] == 0.5
    assert np.isnan(answer.element_error[1]).all()
    request = worker.seen[0].request
    assert (request.mask.kind, request.mask.ratio, request.mask.seed) == (2, 0.5, 7)
    assert request.text_condition == "open the drawer"


def test_a_clip_is_filled_in(ask: Ask, worker: FakeWorker) -> None:
    clip = np.stack([picture(0), picture(9)])
    mask = tectum.Mask("importance", source="change", hint=0.25)

    answer = ask("reconstruct_clip", clip, mask, frame_interval=0.1)

    np.testing.assert_array_equal(answer.input, clip)
    np.testing.assert_array_equal(answer.reconstruction, 255 - clip)
    assert answer.mask.shape == answer.element_error.shape == (1, 1, 1)
    sent = worker.seen[0].request.mask
    assert (sent.kind, sent.source, sent.hint) == (3, 2, 0.25)


def test_a_text_is_filled_in(ask: Ask, worker: FakeWorker) -> None:
    answer = ask("reconstruct_text", "push the [MASK] now", image=picture(), top_k=2)

    assert answer.text == "push the block now"
    assert [token.hidden for token in answer.tokens] == [False, False, True, True]
    masked, last = answer.tokens[2:]
    assert masked.candidates == (
        tectum.TokenCandidate("block", 0.5),
        tectum.TokenCandidate("block1", 0.25),
    )
    assert (masked.error, last.error) == (None, 0.75)
    assert not worker.seen[0].request.HasField("mask")
    assert worker.seen[0].request.HasField("image_condition")


def test_actions_are_filled_in(ask: Ask, worker: FakeWorker) -> None:
    steps = np.arange(6).reshape(3, 2)

    answer = ask(
        "reconstruct_actions", steps, tectum.Mask(hidden=[2]), state=[1, 2.5], step_interval=0.1
    )

    np.testing.assert_array_equal(answer.actions, [[0, 1], [2, 3], [-4, -5]])
    assert answer.mask.tolist() == [False, False, True]
    assert answer.element_error[2] == 0.125
    request = worker.seen[0].request
    assert list(request.mask.hidden) == [2]
    assert fake_answers.array(request.state_condition).tolist() == [1, 2.5]


def test_latent_actions_say_what_changed(ask: Ask) -> None:
    frames = [picture(0), picture(255), picture(255)]

    answer = ask(
        "predict_latent_actions", frames, interval=0.05, decode_actions=True, predict_frames=True
    )

    np.testing.assert_array_equal(answer.vectors[:, 0], [1, 0])
    assert answer.space_id == fake_answers.LATENT
    first = answer.items[0]
    assert (first.codes, first.interval) == ((0, 1), 0.05)
    assert first.decoded_actions.shape == (2, 3)
    np.testing.assert_array_equal(first.predicted_frame, frames[1])


def test_latent_actions_leave_out_what_was_not_asked_for(ask: Ask, worker: FakeWorker) -> None:
    answer = ask("predict_latent_actions", [picture()] * 2, captured_at=np.array([7.25, 7.3]))

    assert answer.items[0].decoded_actions is None
    assert answer.items[0].predicted_frame is None
    first, second = worker.seen[0].request.frames
    assert (first.captured_at.seconds, first.captured_at.nanos) == (7, 250_000_000)
    assert (second.captured_at.seconds, second.captured_at.nanos) == (7, 300_000_000)


def test_rollouts_say_what_would_be_seen(ask: Ask, worker: FakeWorker) -> None:
    candidates = np.array([[[0.5, 9], [0.5, 9]], [[0, 0], [1, 1]]])

    answer = ask(
        "rollout", [picture(), picture(255)], candidates, past_actions=[[1, 2]],
        goal=picture(255), frame_interval=0.05, return_latents=True, decode_frames=True,
        dtype="float16",
    )  # fmt: skip

    np.testing.assert_allclose(answer.goal_distances, np.array([[0.25, 1], [0, 1]]))
    first = answer.items[0]
    assert first.latents.space_id == fake_answers.WORLD
    assert (first.latents.values.shape, first.latents.values.dtype) == ((2, 8), np.float16)
    np.testing.assert_array_equal(first.frames, [picture(255)] * 2)
    request = worker.seen[0].request
    assert len(request.frames) == 2
    assert request.frame_interval.ToMilliseconds() == 50
    assert fake_answers.array(request.past_actions).tolist() == [[1, 2]]
    np.testing.assert_array_equal(fake_answers.array(request.candidates), candidates)


def test_rollouts_leave_out_what_was_not_asked_for(ask: Ask) -> None:
    answer = ask("rollout", [picture()], [[[1, 2]]])

    (only,) = answer.answers()
    assert (only.latents, only.goal_distances, only.frames) == (None, None, None)
    with pytest.raises(ValueError, match="without a goal there are no distances"):
        _ = answer.goal_distances


def test_a_candidate_that_fails_costs_only_itself(ask: Ask) -> None:
    answer = ask("rollout", [picture()], [[[0, 0]], [[101, 0]], [[1, 1]]], goal=picture())

    assert list(answer.errors) == [1]
    with pytest.raises(tectum.ItemFailed):
        _ = answer.goal_distances


def test_without_actions_a_rollout_is_told_its_steps(ask: Ask, worker: FakeWorker) -> None:
    answer = ask("rollout", [picture()], steps=3, goal=picture(), action_space_id="")

    assert answer.goal_distances.shape == (1, 3)
    request = worker.seen[0].request
    assert request.steps == 3
    assert not request.HasField("candidates")


def test_latent_candidates_say_which_space_they_are_of(ask: Ask, worker: FakeWorker) -> None:
    ask("rollout", [picture()], np.zeros((1, 2, 8)), action_space_id=fake_answers.LATENT)

    assert worker.seen[0].request.action_space_id == fake_answers.LATENT


def test_models_can_be_listed_described_loaded_and_dropped(ask: Ask) -> None:
    (model,) = ask("list_models")
    assert ask("get_model") == model
    assert ask("load_model", "other", make_default=True).default_model

    assert [m.name for m in ask("list_models")] == ["tiny", "other"]
    ask("unload_model", "other")
    with pytest.raises(tectum.NotFound):
        ask("get_model", "other")


def test_a_model_says_what_it_can_do_and_what_it_takes(ask: Ask) -> None:
    model = ask("get_model", "tiny")

    assert model.card == "# tiny"
    assert model.state is tectum.ModelState.READY
    assert tectum.Capability.EMBED_TEXTS in model.capabilities
    assert len(model.capabilities) == 3, "one that this SDK has no word for is left out"
    joint = model.space(tectum.VectorKind.JOINT, tectum.Modality.TEXT)
    assert (joint.space_id, joint.truncations) == (fake_answers.JOINT, (4,))
    assert model.space(tectum.VectorKind.TOKENS) is None
    assert model.input.latent_action.interval == 0.05
    world = model.input.world_model
    assert (world.interval, world.history, world.max_steps, world.action_steps) == (0.05, 2, 4, 1)
    assert world.actions is tectum.WorldActions.REAL
    assert (world.action_dimensions, world.latent_count) == (2, 1)
    assert world.latents is tectum.VectorKind.POOLED
    assert model.input.image.interpolation is tectum.Interpolation.BICUBIC
    assert model.input.clip is None
    assert model.limits.control_deadline == 0.25
    assert model.golden.passed


def test_a_model_says_that_it_has_made_room_and_what_was_rejected_of_it() -> None:
    message = model_pb2.Model(name="tiny", state=model_pb2.MODEL_STATE_EVICTED, memory_bytes=0)
    message.rejection.version, message.rejection.why = "e" * 16, "no good"
    message.rejection.rejected_at.FromMilliseconds(1500)

    found = models.model(message)

    assert found.state is tectum.ModelState.EVICTED
    assert found.memory_bytes == 0
    assert found.rejection == tectum.Rejection("e" * 16, "no good", 1.5)
    ready = models.model(model_pb2.Model(memory_bytes=2**33))
    assert (ready.rejection, ready.memory_bytes) == (None, 2**33)


def test_health_speaks_the_standard_service(ask: Ask, worker: FakeWorker) -> None:
    worker.health.set("tiny", 2)

    assert ask("health") is tectum.Health.SERVING
    assert ask("health", "tiny") is tectum.Health.NOT_SERVING
    with pytest.raises(tectum.NotFound):
        ask("health", "nobody")
