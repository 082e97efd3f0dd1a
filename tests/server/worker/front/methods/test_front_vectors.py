"""Vectors and comparisons from a whole worker are what the predictor says in process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.bundles import INTERVAL, actions, clip, picture
from tests.server.worker.messages import array, build, encoded, floats, pixels_of, raw, seconds
from tests.server.worker.serving import Caller, Inline, Loop

from tectum.v1 import call_pb2, embed_pb2, latent_action_pb2, rollout_pb2, tensor_pb2
from tectum_core.predictor import Predictor
from tectum_core.rollouts import RolloutRequest

COUNT = 16
PICTURES = [picture(seed, *[(40, 56), (32, 32), (64, 48)][seed % 3]) for seed in range(COUNT)]
TEXTS = [f"open the {colour} drawer" for colour in ("red", "green", "blue")]
KINDS = {
    "joint": call_pb2.VECTOR_KIND_JOINT,
    "pooled": call_pb2.VECTOR_KIND_POOLED,
    "tokens": call_pb2.VECTOR_KIND_TOKENS,
}


def vectors(response: Any) -> NDArray[Any]:
    return np.stack([array(result.embedding.values) for result in response.results])


def cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Smallest cosine of any row to its counterpart."""
    a, b = (x.astype(np.float64).reshape(-1, x.shape[-1]) for x in (one, other))
    assert a.shape == b.shape
    return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min())


def images_request(
    images: list[Any], kind: int = 0, **options: Any
) -> embed_pb2.EmbedImagesRequest:
    return embed_pb2.EmbedImagesRequest(
        images=images,
        vector=call_pb2.VectorOptions(kind=kind, **options),  # type: ignore[arg-type]
    )


# ---------------------------------------------------------------- vectors


@pytest.mark.parametrize("kind", KINDS)
def test_served_images_are_the_predictors(worker: Caller, full: Predictor, kind: str) -> None:
    response = worker.ask("EmbedImages", images_request([raw(p) for p in PICTURES], KINDS[kind]))

    assert cosine(vectors(response), full.embed_images(PICTURES, kind)) >= 0.99999  # type: ignore[arg-type]
    spaces: dict[str, str] = {space.name: space.space_id for space in full.bundle.spaces}
    assert {r.embedding.space_id for r in response.results} == {spaces[kind]}


def test_an_invariant_worker_answers_with_the_same_bits_whatever_else_is_asked(
    loop: Loop, repository: Path
) -> None:
    served = Inline(loop, repository=str(repository), models=("full",), invariant=True)
    pictures = [picture(seed, 30 + seed, 50) for seed in range(16)]
    try:
        for kind in KINDS.values():
            alone = images_request([raw(pictures[0])], kind)
            others = served.client.begin("EmbedImages", images_request([*map(raw, pictures)], kind))
            wanted = vectors(served.client.ask("EmbedImages", alone))[0]
            among = vectors(others.result())

            np.testing.assert_array_equal(among[0], wanted)
            for order in (pictures[::-1], [pictures[3], pictures[0]]):
                request = images_request([*map(raw, order)], kind)
                found = vectors(served.client.ask("EmbedImages", request))
                place = [one is pictures[0] for one in order].index(True)
                np.testing.assert_array_equal(found[place], wanted)
            assert others.result().info.timings.batch_size == 1
    finally:
        served.close()


def test_served_texts_are_the_predictors(worker: Caller, full: Predictor) -> None:
    response = worker.ask("EmbedTexts", embed_pb2.EmbedTextsRequest(texts=TEXTS))

    assert cosine(vectors(response), full.embed_texts(TEXTS)) >= 0.99999
    assert [r.embedding.tokens for r in response.results] == [
        len(full.encode(t).ids) for t in TEXTS
    ]


def test_of_a_text_too_long_the_beginning_is_embedded_and_the_answer_says_so(
    worker: Caller, full: Predictor
) -> None:
    most = full.config.model.text.max_tokens  # type: ignore[union-attr]
    long = " ".join(["open the door"] * most)

    response = worker.ask("EmbedTexts", embed_pb2.EmbedTextsRequest(texts=["open", long]))
    found = similar(worker, [{"image": raw(PICTURES[0])}], [{"text": "open"}, {"text": long}])

    said = [(one.embedding.tokens, one.embedding.truncated) for one in response.results]
    assert said == [(len(full.encode("open").ids), False), (most, True)]
    assert list(found.truncated) == ["right[1]"]


@pytest.mark.parametrize("kind", ["pooled", "tokens"])
def test_served_clips_are_the_predictors(worker: Caller, full: Predictor, kind: str) -> None:
    clips = [clip(seed) for seed in range(3)]
    request = build(
        embed_pb2.EmbedClipsRequest,
        clips=[{"frames": [raw(f) for f in one], "frame_interval": seconds(0.1)} for one in clips],
        vector={"kind": KINDS[kind]},
    )

    response = worker.ask("EmbedClips", request)

    assert cosine(vectors(response), full.embed_clips(clips, kind)) >= 0.99999  # type: ignore[arg-type]


def test_served_latent_actions_are_the_predictors(worker: Caller, full: Predictor) -> None:
    request = build(
        latent_action_pb2.PredictLatentActionsRequest,
        frames=[{"image": raw(p)} for p in PICTURES[:5]],
        interval=seconds(INTERVAL),
        decode_actions=True,
        predict_frames=True,
    )

    found = [r.latent_action for r in worker.ask("PredictLatentActions", request).results]

    wanted = full.latent_actions(PICTURES[:4], PICTURES[1:5], True, True)
    assert wanted.codes is not None
    assert wanted.actions is not None
    assert wanted.frames is not None
    assert cosine(np.stack([array(a.latent.values) for a in found]), wanted.vectors) >= 0.99999
    assert [list(a.codes) for a in found] == wanted.codes.tolist()
    assert cosine(np.stack([array(a.decoded_actions) for a in found]), wanted.actions) >= 0.99999
    frames = np.stack([pixels_of(a.predicted_frame) for a in found]).astype(int)
    assert np.abs(frames - wanted.frames).max() <= 1
    assert {a.interval.ToMilliseconds() for a in found} == {50}


def test_served_rollouts_are_the_predictors(worker: Caller, full: Predictor) -> None:
    acts = np.stack([actions(seed) for seed in range(5)])
    request = rollout_pb2.RolloutRequest(
        frames=[raw(p) for p in PICTURES[:2]],
        past_actions=floats(acts[0, :4]),
        candidates=floats(acts),
        goal=raw(PICTURES[2]),
        return_latents=True,
        decode_frames=True,
    )

    found = [r.rollout for r in worker.ask("Rollout", request).results]

    seen = full.embed_images(PICTURES[:3], "tokens")
    history, past, goals = (np.stack([one] * 5) for one in (seen[:2], acts[0, :4], seen[2]))
    wanted = full.rollout(RolloutRequest(history, 2, past, acts, goals, decode_frames=True))
    assert wanted.distances is not None
    assert wanted.frames is not None
    latents = np.stack([array(one.latents.values) for one in found])
    distances = np.stack([array(one.goal_distances) for one in found])
    assert cosine(latents, wanted.latents) >= 0.99999
    np.testing.assert_allclose(distances, wanted.distances, rtol=1e-4)
    frames = np.stack([[pixels_of(frame) for frame in one.frames] for one in found]).astype(int)
    assert np.abs(frames - wanted.frames).max() <= 1
    spaces: dict[str, str] = {space.name: space.space_id for space in full.bundle.spaces}
    assert {one.latents.space_id for one in found} == {spaces["world_latent"]}


def test_raw_pixels_and_their_png_give_the_same_bits(worker: Caller) -> None:
    for kind in KINDS.values():
        one, other = (
            worker.ask("EmbedImages", images_request([make(PICTURES[0])], kind))
            for make in (raw, encoded)
        )
        assert one.results[0].embedding.values.data == other.results[0].embedding.values.data


def test_an_image_alone_is_the_image_in_a_request_of_sixteen(worker: Caller) -> None:
    together = vectors(worker.ask("EmbedImages", images_request([raw(p) for p in PICTURES])))

    for index, one in enumerate(PICTURES):
        alone = vectors(worker.ask("EmbedImages", images_request([raw(one)])))
        np.testing.assert_allclose(alone[0], together[index], atol=1e-5)


@pytest.mark.parametrize(
    ("model", "kind"), [("full", "joint"), ("bare", "pooled")], ids=["joint", "pooled"]
)
def test_the_kind_left_open_is_joint_where_there_is_one(
    worker: Caller, full: Predictor, bare: Predictor, model: str, kind: str
) -> None:
    request = images_request([raw(PICTURES[0])])
    request.options.model = model

    response = worker.ask("EmbedImages", request)

    spaces = {"full": full, "bare": bare}[model].bundle.spaces
    wanted = next(space.space_id for space in spaces if space.name == kind)
    assert response.results[0].embedding.space_id == wanted
    assert response.info.model == model


def test_float16_and_int8_lie_within_their_bounds(worker: Caller) -> None:
    exact, half, small = (
        worker.ask("EmbedImages", images_request([raw(PICTURES[0])], data_type=t))
        .results[0]
        .embedding
        for t in (
            tensor_pb2.DATA_TYPE_FLOAT32,
            tensor_pb2.DATA_TYPE_FLOAT16,
            tensor_pb2.DATA_TYPE_INT8,
        )
    )
    reference = array(exact.values)

    np.testing.assert_allclose(array(half.values), reference, rtol=2**-11, atol=1e-6)
    restored = array(small.values).astype(np.float32) * small.scale
    assert np.abs(restored - reference).max() <= small.scale / 2 + 1e-7
    assert not exact.HasField("scale")
    assert not half.HasField("scale")


def test_a_truncated_vector_is_the_beginning_at_unit_length(worker: Caller) -> None:
    whole, short = (
        vectors(worker.ask("EmbedImages", images_request([raw(PICTURES[0])], dimensions=d)))[0]
        for d in (0, 8)
    )

    assert short.shape == (8,)
    np.testing.assert_allclose(short, whole[:8] / np.linalg.norm(whole[:8]), atol=1e-6)


# ---------------------------------------------------------------- similarity


def similar(worker: Caller, left: list[Any], right: list[Any]) -> Any:
    request = embed_pb2.ComputeSimilarityRequest(left=left, right=right)
    return worker.ask("ComputeSimilarity", request)


def test_similarity_is_the_cosine_scaled_and_softmaxed_both_ways(
    worker: Caller, full: Predictor
) -> None:
    images, texts = PICTURES[:3], TEXTS[:2]

    found = similar(worker, [{"image": raw(p)} for p in images], [{"text": t} for t in texts])

    cosines = full.embed_images(images, "joint") @ full.embed_texts(texts).T
    logits = full.logits(cosines)
    np.testing.assert_allclose(array(found.cosine), cosines, atol=1e-5)
    np.testing.assert_allclose(array(found.logits), logits, rtol=1e-4, atol=1e-4)
    by_row = torch.from_numpy(logits).softmax(1).numpy()
    by_column = torch.from_numpy(logits).softmax(0).numpy()
    np.testing.assert_allclose(array(found.right_given_left), by_row, atol=1e-4)
    np.testing.assert_allclose(array(found.left_given_right), by_column, atol=1e-4)
    assert not found.errors


def test_a_vector_in_hand_compares_as_what_it_was_made_of(worker: Caller) -> None:
    for data_type in (
        tensor_pb2.DATA_TYPE_FLOAT32,
        tensor_pb2.DATA_TYPE_FLOAT16,
        tensor_pb2.DATA_TYPE_INT8,
    ):
        made = worker.ask("EmbedImages", images_request([raw(PICTURES[0])], data_type=data_type))

        found = similar(
            worker, [{"embedding": made.results[0].embedding}], [{"image": raw(PICTURES[0])}]
        )

        assert array(found.cosine)[0, 0] == pytest.approx(1, abs=1e-3)


def test_a_failed_row_is_nan_and_takes_no_part(worker: Caller) -> None:
    found = similar(
        worker,
        [{"text": TEXTS[0]}, {"image": {"encoded": b"no image"}}, {"text": TEXTS[1]}],
        [{"text": TEXTS[2]}, {"text": " "}],
    )

    bad = np.array([[False, True], [True, True], [False, True]])
    for matrix in (found.cosine, found.logits, found.right_given_left, found.left_given_right):
        assert np.array_equal(np.isnan(array(matrix)), bad)
    np.testing.assert_allclose(array(found.right_given_left)[[0, 2], 0], 1, atol=1e-6)
    assert array(found.left_given_right)[[0, 2], 0].sum() == pytest.approx(1)
    told = [(e.side, e.index, e.error.field) for e in found.errors]
    assert told == [
        (embed_pb2.SIDE_LEFT, 1, "left[1].image.encoded"),
        (embed_pb2.SIDE_RIGHT, 1, "right[1].text"),
    ]


def lone(values: NDArray[np.float32], space: str) -> dict[str, Any]:
    """A vector to compare, in hand."""
    sent = tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=values.shape, data=values.tobytes()
    )
    return {"embedding": {"values": sent, "space_id": space}}


@pytest.fixture
def joint(full: Predictor) -> str:
    """The id of the space that can be compared in."""
    return {space.name: space.space_id for space in full.bundle.spaces}["joint"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_comparison_with_nothing_left_on_one_side_fails_as_a_whole(
    worker: Caller, joint: str, side: str
) -> None:
    bad = [lone(np.ones(15, np.float32), joint), lone(np.ones(16, np.float32), "elsewhere")]
    good = [{"text": TEXTS[0]}, {"text": " "}]
    other = "right" if side == "left" else "left"

    request = embed_pb2.ComputeSimilarityRequest(**{side: bad, other: good})  # type: ignore[arg-type]
    told = worker.refused("ComputeSimilarity", request)

    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "SHAPE_MISMATCH")
    assert told.fields == (
        f"{side}[0].embedding.values",
        f"{side}[1].embedding.space_id",
        f"{other}[1].text",
    )


def test_a_vector_of_length_zero_is_told_to_have_no_direction(worker: Caller, joint: str) -> None:
    request = embed_pb2.ComputeSimilarityRequest(
        left=[lone(np.zeros(16, np.float32), joint)],  # type: ignore[list-item]
        right=[{"text": TEXTS[0]}],  # type: ignore[list-item]
    )

    told = worker.refused("ComputeSimilarity", request)

    assert (told.reason, told.fields) == ("FIELD_OUT_OF_RANGE", ("left[0].embedding",))
    assert told.message == "left[0].embedding: a vector of length zero has no direction"
