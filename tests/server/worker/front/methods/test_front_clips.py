"""A bundle that learnt of clips alone, from its run to a worker's answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.bundles import clip
from tests.server.worker.messages import array, build, pixels_of, raw
from tests.server.worker.serving import Caller, Inline, Loop
from tests.training.tiny import FPS, INTERVAL_STEPS, job, video, vision_alone, write_data

from tectum.v1 import call_pb2, embed_pb2, model_pb2, reconstruct_pb2
from tectum_core.bundle import Repository, read_bundle
from tectum_core.masks import hinted_mask, random_mask, tube_mask
from tectum_core.predictor import Predictor
from tectum_train.job import run_job

CLIPS = [clip(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the bundle of a short run of VideoMAE, its target normalised by colour.

    Its tubelets are smaller than the patches of the picture trunk that nobody trained.
    """
    root = tmp_path_factory.mktemp("clips")
    parts = {**vision_alone(), "pixel_decoder": None, **video()}
    parts["vision"] |= {"patch_size": 16}
    parts["video_decoder"] |= {"channelwise": True}
    recipe = job(
        write_data(root / "data"), root, name="clips", model=parts,
        objectives=[{"kind": "video_mae"}], schedule__steps=2,
    )  # fmt: skip
    run_job(recipe, "cpu", False, False, root / "models", Console(quiet=True))
    return root / "models"


@pytest.fixture(scope="module")
def predictor(published: Path) -> Predictor:
    return Predictor(read_bundle(Repository(published).locate("clips")[0], "clips"))


@pytest.fixture(scope="module")
def worker(loop: Loop, published: Path) -> Iterator[Caller]:
    served = Inline(loop, repository=str(published), models=("clips",))
    yield served.client
    served.close()


def test_it_announces_clips_and_nothing_else(worker: Caller) -> None:
    model = worker.ask("GetModel", model_pb2.GetModelRequest(model="clips")).model

    assert set(model.capabilities) == {
        model_pb2.CAPABILITY_EMBED_CLIPS, model_pb2.CAPABILITY_RECONSTRUCT_CLIPS,
    }  # fmt: skip
    assert (model.input.image.patch_size, model.input.clip.patch_size) == (16, 8)
    assert (model.input.clip.frames, model.input.clip.tubelet_frames) == (4, 2)
    assert model.input.clip.frame_interval.ToTimedelta().total_seconds() == INTERVAL_STEPS / FPS
    assert {tuple(space.modalities) for space in model.spaces} == {(model_pb2.MODALITY_CLIP,)}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(call_pb2.VECTOR_KIND_POOLED, "pooled"), (call_pb2.VECTOR_KIND_TOKENS, "tokens")],
)
def test_its_clips_vectors_are_the_predictors(
    worker: Caller, predictor: Predictor, kind: Any, name: Any
) -> None:
    asked = build(
        embed_pb2.EmbedClipsRequest,
        clips=[{"frames": [raw(frame) for frame in one]} for one in CLIPS],
        vector=call_pb2.VectorOptions(kind=kind),
    )

    results = worker.ask("EmbedClips", asked).results

    found = np.stack([array(result.embedding.values) for result in results])
    np.testing.assert_allclose(found, predictor.embed_clips(CLIPS, name), rtol=1e-4, atol=1e-5)


def test_what_changes_is_hidden_as_training_would(worker: Caller, predictor: Predictor) -> None:
    frames = CLIPS[0]
    asked = build(
        reconstruct_pb2.ReconstructRequest,
        clip={"frames": [raw(frame) for frame in frames]},
        mask=reconstruct_pb2.Mask(
            kind=reconstruct_pb2.MASK_KIND_IMPORTANCE,
            source=reconstruct_pb2.IMPORTANCE_SOURCE_CHANGE,
            hint=0.5,
            seed=7,
        ),
    )

    found = worker.ask("Reconstruct", asked).clip

    scores = torch.from_numpy(predictor.clip_change([frames])[0])
    hidden = hinted_mask(scores, 0.75, 0.5, torch.Generator().manual_seed(7))
    assert np.array_equal(array(found.mask).ravel(), hidden.numpy())


def test_whichever_tubelets_are_named_are_hidden(worker: Caller) -> None:
    def asked(hidden: list[int]) -> reconstruct_pb2.ReconstructRequest:
        return build(
            reconstruct_pb2.ReconstructRequest,
            clip={"frames": [raw(frame) for frame in CLIPS[0]]},
            mask=reconstruct_pb2.Mask(hidden=hidden),
        )

    found = worker.ask("Reconstruct", asked([*range(1, 31)])).clip
    told = worker.refused("Reconstruct", asked([*range(33)]))

    assert np.flatnonzero(~array(found.mask)).tolist() == [0, 31]
    assert "1 to 31 of at most 32 elements can be hidden, found 33" in str(told)


def test_its_hidden_tubes_are_painted_as_the_predictor_does(
    worker: Caller, predictor: Predictor
) -> None:
    frames = CLIPS[0]
    asked = build(
        reconstruct_pb2.ReconstructRequest,
        clip={"frames": [raw(frame) for frame in frames]},
        mask=reconstruct_pb2.Mask(kind=reconstruct_pb2.MASK_KIND_TUBE, seed=7),
    )

    found = worker.ask("Reconstruct", asked).clip

    hidden = tube_mask(2, random_mask(16, 0.75, torch.Generator().manual_seed(7)))
    wanted = predictor.fill_clips([frames], hidden[None])
    assert np.array_equal(array(found.mask).ravel(), hidden.numpy())
    np.testing.assert_allclose(array(found.element_error).ravel(), wanted.error[0], rtol=1e-4)
    for place, (seen, painted) in enumerate(zip(found.input, found.reconstruction, strict=True)):
        assert np.array_equal(pixels_of(seen), wanted.seen[0, place])
        assert np.abs(pixels_of(painted).astype(int) - wanted.filled[0, place]).max() <= 1


def test_of_single_pictures_it_says_that_it_learnt_nothing(worker: Caller) -> None:
    asked = embed_pb2.EmbedImagesRequest(images=[raw(CLIPS[0][0])])

    told = worker.refused("EmbedImages", asked)

    assert told.reason == "CAPABILITY_MISSING"
