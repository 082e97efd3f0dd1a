"""A batch answers numbers, or nothing: of numbers too large, and of a model at fault."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from tests.bundles import actions, clip, picture

from tectum.v1 import errors_pb2
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.computing.operations import run_batch
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    EmbedClips,
    EmbedImages,
    EmbedTexts,
    FillActions,
    FillClip,
    FillImage,
    FillText,
    Item,
    ItemOutput,
    LatentActions,
    MaskSpec,
    Operation,
    Rollout,
)

IMAGE, CLIP, DONE = picture(1), clip(1), actions()
SEEN = np.random.default_rng(0).normal(size=(2, 16, 32)).astype(np.float32)
INTERNAL, NOT_FINITE = errors_pb2.ERROR_REASON_INTERNAL, errors_pb2.ERROR_REASON_NOT_FINITE


@pytest.fixture(scope="module")
def spoilt(full: Predictor) -> Predictor:
    """A model that answers NaN to everything."""
    model = deepcopy(full.model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(torch.nan)
    return Predictor(replace(full.bundle, model=model))


def rollout(**asked: bool) -> Rollout:
    """Two frames; only what is named is asked for."""
    flags = ("has_goal", "return_latents", "decode_frames")
    return Rollout(2, 2, has_actions=True, **{**dict.fromkeys(flags, False), **asked})


@pytest.mark.parametrize("far", [1e20, 1e30, 3e38])
@pytest.mark.parametrize("asked", [{}, {"return_latents": True}, {"decode_frames": True}], ids=str)
def test_a_candidate_beyond_what_float32_can_follow_fails_alone(
    full: Predictor, far: float, asked: dict[str, bool]
) -> None:
    operation = rollout(**{"has_goal": True, **asked})
    candidates = [DONE, np.full_like(DONE, far), DONE]

    found = run_batch(
        full, [(operation, Item((SEEN, DONE[:4], one, SEEN[0]))) for one in candidates]
    )

    one, lost, three = found
    assert isinstance(one, ItemOutput)
    assert isinstance(three, ItemOutput)
    assert all(np.isfinite(array).all() for array in (*one.arrays, *three.arrays))
    assert isinstance(lost, Failure)
    assert (lost.reason, lost.field) == (NOT_FINITE, "")
    assert "NaN or infinity" in lost.message


@pytest.mark.parametrize("hidden", [(0,), (3,)], ids=["what is hidden", "what is seen"])
def test_actions_beyond_what_float32_can_follow_have_no_answer(
    full: Predictor, hidden: tuple[int, ...]
) -> None:
    given = actions()
    given[0] = 1e30
    operation = FillActions(MaskSpec("explicit", hidden=hidden), False, False)

    lost, kept = run_batch(full, [(operation, Item((given,))), (operation, Item((actions(),)))])

    assert isinstance(lost, Failure)
    assert (lost.reason, lost.field) == (NOT_FINITE, "actions.actions")
    assert isinstance(kept, ItemOutput)


SPOILT: list[tuple[Operation, Item, int]] = [
    (EmbedImages("pooled"), Item((IMAGE,)), INTERNAL),
    (EmbedTexts(), Item(text="a"), INTERNAL),
    (EmbedClips("tokens"), Item((CLIP,)), INTERNAL),
    (FillImage(MaskSpec()), Item((IMAGE,)), INTERNAL),
    (FillClip(MaskSpec()), Item((CLIP,)), INTERNAL),
    (FillText(None, 5), Item(text="open [MASK]"), INTERNAL),
    (FillActions(MaskSpec(), False, False), Item((actions(),)), NOT_FINITE),
    (LatentActions(False, False), Item((IMAGE, IMAGE)), INTERNAL),
    (rollout(decode_frames=True), Item((SEEN, DONE[:4], DONE)), NOT_FINITE),
]


@pytest.mark.parametrize(("operation", "item", "reason"), SPOILT, ids=lambda one: str(one)[:20])
def test_no_operation_of_a_model_that_answers_nan_succeeds(
    spoilt: Predictor, operation: Operation, item: Item, reason: int
) -> None:
    (found,) = run_batch(spoilt, [(operation, item)])

    assert isinstance(found, Failure)
    assert found.reason == reason


def test_every_operation_is_asked_of_a_model_that_answers_nan() -> None:
    assert {type(operation) for operation, *_ in SPOILT} == set(get_args(Operation))
