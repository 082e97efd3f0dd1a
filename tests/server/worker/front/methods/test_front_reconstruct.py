"""Reconstruct against a whole worker: hidden as asked, filled in as the predictor does."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.bundles import SCALING, actions, clip, picture
from tests.server.worker.messages import array, floats, pixels_of, raw, seconds
from tests.server.worker.serving import Caller

from tectum.v1 import reconstruct_pb2
from tectum_core.masks import random_mask
from tectum_core.predictor import Predictor

PICTURE, TEXT = picture(0), "open the red drawer"


def reconstruct(worker: Caller, **request: Any) -> Any:
    return worker.ask("Reconstruct", reconstruct_pb2.ReconstructRequest(**request))


def test_a_reconstructed_image_is_the_predictors(worker: Caller, full: Predictor) -> None:
    mask = reconstruct_pb2.Mask(ratio=0.5, seed=7)

    found = reconstruct(worker, image=raw(PICTURE), mask=mask, text_condition=TEXT).image

    hidden = random_mask(16, 0.5, torch.Generator().manual_seed(7))
    wanted = full.fill_images([PICTURE], hidden[None], [TEXT])
    assert np.array_equal(array(found.mask).ravel(), hidden.numpy())
    np.testing.assert_allclose(array(found.element_error).ravel(), wanted.error[0], rtol=1e-4)
    assert np.array_equal(pixels_of(found.input), wanted.seen[0, 0])
    assert np.abs(pixels_of(found.reconstruction).astype(int) - wanted.filled[0, 0]).max() <= 1


@pytest.mark.parametrize(
    ("kind", "hidden", "count"),
    [
        (reconstruct_pb2.MASK_KIND_UNSPECIFIED, [], 12),
        (reconstruct_pb2.MASK_KIND_UNSPECIFIED, [1, 5], 2),
        (reconstruct_pb2.MASK_KIND_RANDOM, [], 12),
        (reconstruct_pb2.MASK_KIND_BLOCK, [], 12),
        (reconstruct_pb2.MASK_KIND_IMPORTANCE, [], 12),
        (reconstruct_pb2.MASK_KIND_EXPLICIT, [0, 1, 2], 3),
    ],
)
def test_every_kind_of_mask_hides_its_share_of_an_image(
    worker: Caller, kind: Any, hidden: list[int], count: int
) -> None:
    mask = reconstruct_pb2.Mask(kind=kind, hidden=hidden)

    found = reconstruct(worker, image=raw(PICTURE), mask=mask).image

    assert array(found.mask).shape == (4, 4)
    assert int(array(found.mask).sum()) == count
    if hidden:
        assert np.flatnonzero(array(found.mask)).tolist() == hidden


@pytest.mark.parametrize("name", ["TUBE", "RANDOM", "BLOCK", "IMPORTANCE"])
def test_a_clip_is_reconstructed_frame_by_frame(worker: Caller, name: str) -> None:
    kind, frames = reconstruct_pb2.MaskKind.Value(f"MASK_KIND_{name}"), clip(3)

    found = reconstruct(
        worker,
        clip={"frames": [raw(f) for f in frames]},
        mask=reconstruct_pb2.Mask(kind=kind, ratio=0.5),
    ).clip

    mask, error = array(found.mask), array(found.element_error)
    assert mask.shape == error.shape == (2, 4, 4)
    assert int(mask.sum()) == 16
    assert np.array_equal(np.isnan(error), ~mask)
    assert len(found.input) == len(found.reconstruction) == 4
    if name in ("TUBE", "BLOCK"):
        assert np.array_equal(mask[0], mask[1])


def test_a_written_mask_is_filled_in(worker: Caller) -> None:
    found = reconstruct(worker, text={"text": "open the [MASK]"}, image_condition=raw(PICTURE))

    tokens = found.text.tokens
    assert [(t.token, t.hidden, len(t.candidates)) for t in tokens] == [
        ("open", False, 0),
        ("the", False, 0),
        ("[MASK]", True, 5),
    ]
    assert not tokens[2].HasField("error")
    assert found.text.text.startswith("open the")


def test_a_hidden_token_of_known_truth_comes_with_its_error(worker: Caller) -> None:
    found = reconstruct(
        worker, text={"text": "open the door"}, mask=reconstruct_pb2.Mask(hidden=[0]), top_k=20
    )

    token = found.text.tokens[0]
    assert (token.token, token.hidden, len(token.candidates)) == ("open", True, 20)
    assert token.error > 0
    probabilities = [candidate.probability for candidate in token.candidates]
    assert probabilities == sorted(probabilities, reverse=True)


def test_actions_are_filled_in_in_the_robots_units(worker: Caller, full: Predictor) -> None:
    given, state = actions(5), np.array([0.1, 0.2, 0.3], np.float32)

    found = reconstruct(
        worker,
        actions={"actions": floats(given), "step_interval": seconds(SCALING.step_interval)},
        mask=reconstruct_pb2.Mask(hidden=[2, 6]),
        image_condition=raw(PICTURE),
        text_condition=TEXT,
        state_condition=floats(state),
    ).actions

    hidden = torch.zeros(1, 8, dtype=torch.bool)
    hidden[0, [2, 6]] = True
    wanted = full.fill_actions(given[None], hidden, [PICTURE], [TEXT], state[None])[0]
    np.testing.assert_allclose(array(found.actions), wanted, rtol=1e-4, atol=1e-5)
    assert array(found.mask).tolist() == hidden[0].tolist()
    assert np.array_equal(np.isnan(array(found.element_error)), ~hidden[0].numpy())
