"""What every answer says of how it was made, and what is told of the models."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.bundles import INTERVAL, clip, picture
from tests.server.worker.messages import build, encoded, floats, raw, seconds
from tests.server.worker.serving import Caller

from tectum.v1 import (
    call_pb2,
    embed_pb2,
    latent_action_pb2,
    model_pb2,
    reconstruct_pb2,
    rollout_pb2,
)
from tectum_core.predictor import Predictor

PICTURES = [picture(seed) for seed in range(3)]
TEXTS = [f"open the {colour} drawer" for colour in ("red", "green", "blue")]


CALLS: dict[str, Callable[[], Any]] = {
    "EmbedImages": lambda: embed_pb2.EmbedImagesRequest(
        images=[encoded(PICTURES[0]), raw(PICTURES[1])]
    ),
    "EmbedTexts": lambda: embed_pb2.EmbedTextsRequest(texts=TEXTS),
    "EmbedClips": lambda: build(
        embed_pb2.EmbedClipsRequest, clips=[{"frames": [raw(f) for f in clip()]}]
    ),
    "ComputeSimilarity": lambda: build(
        embed_pb2.ComputeSimilarityRequest,
        left=[{"text": "a"}],
        right=[{"image": encoded(PICTURES[0])}],
    ),
    "Reconstruct": lambda: reconstruct_pb2.ReconstructRequest(image=encoded(PICTURES[0])),
    "PredictLatentActions": lambda: build(
        latent_action_pb2.PredictLatentActionsRequest,
        frames=[{"image": encoded(p)} for p in PICTURES[:3]],
        interval=seconds(INTERVAL),
    ),
    "Rollout": lambda: rollout_pb2.RolloutRequest(
        frames=[encoded(PICTURES[0])], candidates=floats(np.zeros((2, 4, 4)))
    ),
}


@pytest.mark.parametrize("rpc", CALLS)
def test_every_answer_says_how_it_was_made(worker: Caller, full: Predictor, rpc: str) -> None:
    info = worker.ask(rpc, CALLS[rpc](), x_request_id="frame-17").info

    assert (info.model, info.version) == ("full", full.bundle.version)
    assert info.numerics.precision == "float32"
    assert info.numerics.engine.startswith("torch-")
    assert info.request_id == "frame-17"
    assert info.timings.total.ToNanoseconds() > 0
    assert info.timings.compute.ToNanoseconds() > 0
    assert info.timings.batch_size >= 1
    decodes = rpc not in ("EmbedTexts", "EmbedClips")  # the clip comes as raw pixels
    assert info.timings.HasField("decode") is decodes


@pytest.mark.parametrize("rpc", CALLS)
def test_a_version_and_a_priority_can_be_named(worker: Caller, full: Predictor, rpc: str) -> None:
    request = CALLS[rpc]()
    request.options.model = f"full@{full.bundle.version}"
    request.options.priority = call_pb2.PRIORITY_BULK

    assert worker.ask(rpc, request).info.version == full.bundle.version


def test_a_version_without_a_name_is_one_of_the_default_model(
    worker: Caller, full: Predictor
) -> None:
    request = CALLS["EmbedImages"]()
    request.options.model = f"@{full.bundle.version}"
    assert worker.ask("EmbedImages", request).info.model == "full"

    request.options.model = "@" + "0" * 16
    told = worker.refused("EmbedImages", request)

    assert (told.code, told.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
    assert told.fields == ("options.model",)
    assert full.bundle.version in told.message


def test_a_request_id_is_made_where_none_or_none_sane_was_sent(worker: Caller) -> None:
    sent = ["x" * 129, ""]

    ids = [
        worker.ask("EmbedTexts", CALLS["EmbedTexts"](), x_request_id=one).info.request_id
        for one in sent
    ]

    assert len(set(ids)) == 2
    assert all(len(one) == 32 for one in ids)


def test_pinned_spaces_let_matching_answers_pass(worker: Caller, full: Predictor) -> None:
    spaces: dict[str, str] = {space.name: space.space_id for space in full.bundle.spaces}
    pinned = {
        "EmbedImages": "joint",
        "EmbedTexts": "joint",
        "EmbedClips": "clip_pooled",
        "ComputeSimilarity": "joint",
        "PredictLatentActions": "latent_action",
        "Rollout": "world_latent",
    }
    for rpc, name in pinned.items():
        request = CALLS[rpc]()
        request.options.expected_space_ids.append(spaces[name])

        assert worker.ask(rpc, request).info.model == "full"


# ---------------------------------------------------------------- models


def test_models_are_listed_with_the_default_first(worker: Caller) -> None:
    listed = worker.ask("ListModels", model_pb2.ListModelsRequest()).models

    assert [(m.name, m.default_model, m.card) for m in listed] == [
        ("full", True, ""),
        ("bare", False, ""),
    ]


def test_a_model_is_told_in_full(worker: Caller, full: Predictor) -> None:
    model = worker.ask("GetModel", model_pb2.GetModelRequest()).model

    assert (model.name, model.version) == ("full", full.bundle.version)
    assert model.state == model_pb2.MODEL_STATE_READY
    assert model.card.startswith("# Untrained")
    assert model.golden.passed
    assert {s.space_id for s in model.spaces} == {s.space_id for s in full.bundle.spaces}
    assert (model.limits.max_items, model.limits.max_text_bytes) == (64, 300)
    assert model.limits.control_deadline.ToMilliseconds() == 250
    assert model.limits.bulk_deadline.ToMilliseconds() == 120_000
