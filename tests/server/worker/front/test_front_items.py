"""What a model lacks, and one bad item among good ones."""

from typing import Any

import numpy as np
import pytest
from tests.bundles import clip, picture
from tests.server.worker.asking import (
    CUT,
    IMAGE,
    NO_IMAGE,
    clips,
    fill,
    images,
    pairs,
    rollout,
    similar,
    steps,
    texts,
    timed,
    vector,
)
from tests.server.worker.messages import array, build, encoded, raw, reason
from tests.server.worker.serving import Caller

from tectum.v1 import embed_pb2
from tectum_server.worker.front import images as reading

LACKING = {
    "texts": ("EmbedTexts", texts()),
    "clips": ("EmbedClips", clips()),
    "joint vectors": ("EmbedImages", images(vector=vector(kind=1))),
    "similarity": ("ComputeSimilarity", similar([{"image": IMAGE}], [{"image": IMAGE}])),
    "pictures filled in": ("Reconstruct", fill(image=IMAGE)),
    "clips filled in": ("Reconstruct", fill(clip={"frames": [IMAGE] * 4})),
    "texts filled in": ("Reconstruct", fill(text={"text": "a [MASK]"})),
    "actions filled in": ("Reconstruct", fill(actions=steps())),
    "latent actions": ("PredictLatentActions", pairs()),
    "rollouts": ("Rollout", rollout()),
}


@pytest.mark.parametrize("what", LACKING)
def test_a_model_without_the_head_says_so(worker: Caller, what: str) -> None:
    rpc, request = LACKING[what]
    asked: Any = type(request)()
    asked.CopyFrom(request)
    asked.options.model = "bare"

    told = worker.refused(rpc, asked)

    assert (told.code, told.reason) == ("FAILED_PRECONDITION", "CAPABILITY_MISSING")
    assert "bare" in told.message
    assert not told.retries


# ---------------------------------------------------------------- one bad item among good ones


def test_a_poisoned_image_in_thirty_two_leaves_thirty_one_answers(worker: Caller) -> None:
    given = [raw(picture(seed)) for seed in range(32)]
    given[13] = CUT

    results = worker.ask("EmbedImages", images(*given)).results

    error = results[13].error
    assert (error.code, reason(error.reason)) == (3, "IMAGE_UNREADABLE")
    assert error.field == "images[13].encoded"
    assert not error.HasField("retry_delay")
    kept = [place for place in range(32) if place != 13]
    alone = worker.ask("EmbedImages", images(*(given[place] for place in kept))).results
    for place, wanted in zip(kept, alone, strict=True):
        np.testing.assert_allclose(
            array(results[place].embedding.values), array(wanted.embedding.values), atol=1e-5
        )


@pytest.mark.parametrize("step", ["probe", "decode"])
def test_a_picture_at_which_the_decoder_fails_costs_only_itself(
    worker: Caller, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, bad = getattr(reading, step), encoded(picture(1))

    def faulty(data: bytes, **limits: int) -> object:
        if data == bad.encoded:
            raise MemoryError
        return inner(data, **limits)

    monkeypatch.setattr(reading, step, faulty)
    good, told = worker.ask("EmbedImages", images(encoded(picture(2)), bad)).results

    assert good.HasField("embedding")
    assert (reason(told.error.reason), told.error.field) == ("INTERNAL", "images[1].encoded")


def test_a_bad_text_or_clip_costs_only_itself(worker: Caller) -> None:
    found = worker.ask("EmbedTexts", texts("open", "", "close")).results
    short = [raw(f) for f in clip()]
    mixed = build(embed_pb2.EmbedClipsRequest, clips=[{"frames": short}, {"frames": short[:2]}])

    assert [r.WhichOneof("result") for r in found] == ["embedding", "error", "embedding"]
    assert found[1].error.field == "texts[1]"
    clipped = worker.ask("EmbedClips", mixed).results
    assert [r.WhichOneof("result") for r in clipped] == ["embedding", "error"]
    assert clipped[1].error.field == "clips[1].frames"


def test_a_bad_frame_costs_the_pairs_that_need_it(worker: Caller) -> None:
    request = timed(1.0, 1.05, 1.1, 1.2, 1.25)
    request.frames[1].image.CopyFrom(NO_IMAGE)

    results = worker.ask("PredictLatentActions", request).results

    told = [reason(r.error.reason) if r.HasField("error") else "" for r in results]
    assert told == ["IMAGE_UNREADABLE", "IMAGE_UNREADABLE", "INTERVAL_MISMATCH", ""]
    fields = [r.error.field for r in results[:3]]
    assert fields == ["frames[1].image.encoded", "frames[1].image.encoded", "frames[3].captured_at"]
