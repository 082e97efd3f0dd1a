"""What training did not reach is not served: no vectors, no space, no golden outputs of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.bundles import actions, clip, picture

from tectum_core.bundle import Bundle, Part, TrainingSummary, read_bundle
from tectum_core.bundle.config import PARTS
from tectum_core.golden import check_golden, make_golden
from tectum_core.golden_inputs import golden_inputs
from tectum_core.predictor import CapabilityMissing, Predictor
from tectum_core.rollouts import RolloutRequest

PATCHES = torch.arange(16)[None] < 8
TUBELETS = torch.arange(32)[None] < 16
STEPS = torch.arange(8)[None] < 4
CALLS: list[tuple[Part, Callable[[Predictor], object]]] = [
    ("vision", lambda p: p.embed_images([picture()], "tokens")),
    ("vision", lambda p: p.image_importance([picture()])),
    ("vision.pool", lambda p: p.embed_images([picture()], "pooled")),
    ("joint", lambda p: p.embed_images([picture()], "joint")),
    ("joint", lambda p: p.embed_texts(["open"])),
    ("joint", lambda p: p.logits(np.zeros(1, np.float32))),
    ("video", lambda p: p.embed_clips([clip()], "tokens")),
    ("video", lambda p: p.clip_importance([clip()])),
    ("video.pool", lambda p: p.embed_clips([clip()], "pooled")),
    ("pixel_decoder", lambda p: p.fill_images([picture()], PATCHES)),
    ("video_decoder", lambda p: p.fill_clips([clip()], TUBELETS)),
    ("fusion.token_head", lambda p: p.fill_texts([[1, 2]])),
    ("fusion.action_head", lambda p: p.fill_actions(actions()[None], STEPS)),
    ("latent_action", lambda p: p.latent_actions([picture()], [picture(1)])),
    (
        "latent_action.action_decoder",
        lambda p: p.latent_actions([picture()], [picture(1)], decode_actions=True),
    ),
    ("pixel_decoder.from_text", lambda p: p.fill_images([picture()], PATCHES, ["open"])),
    ("fusion.from_image", lambda p: p.fill_texts([[1, 2]], [picture()])),
    ("fusion.from_image", lambda p: p.fill_actions(actions()[None], STEPS, images=[picture()])),
    ("fusion.from_text", lambda p: p.fill_actions(actions()[None], STEPS, texts=["open"])),
    (
        "fusion.actions.embed_state",
        lambda p: p.fill_actions(actions()[None], STEPS, states=np.zeros((1, 3), np.float32)),
    ),
    ("fusion.actions.embed", lambda p: p.fill_actions(actions()[None], STEPS)),
    ("world_model", lambda p: rollout(p)),
    ("world_model.decoder", lambda p: rollout(p, decode_frames=True)),
    ("vision", lambda p: rollout(p)),
]
INPUTS: tuple[Part, ...] = (
    "pixel_decoder.from_text", "fusion.from_image", "fusion.from_text",
    "fusion.actions.embed_state", "fusion.actions.embed",
)  # fmt: skip


def rollout(predictor: Predictor, *, decode_frames: bool = False) -> object:
    """One step after a single frame that nobody looked at."""
    seen, done = np.zeros((1, 1, 16, 32), np.float32), np.zeros((1, 4, 4), np.float32)
    asked = RolloutRequest(seen, 1, actions=done, decode_frames=decode_frames)
    return predictor.rollout(asked)


def without(bundle: Bundle, *parts: Part) -> Bundle:
    """The bundle as if training had not reached these."""
    summary = bundle.config.training.model_copy(update={"untrained": parts})
    config = bundle.config.model_copy(update={"training": summary})
    return replace(bundle, config=config)


def same(found: torch.Tensor | None, wanted: torch.Tensor) -> bool:
    """Whether it is there, and equal but for the last bits."""
    return found is not None and torch.allclose(found.float(), wanted.float(), atol=1e-4)


@pytest.mark.parametrize(("part", "call"), CALLS)
def test_what_needs_an_untrained_part_is_refused_by_its_name(
    part: Part, call: Callable[[Predictor], object], full_bundle: Bundle
) -> None:
    call(Predictor(full_bundle))

    with pytest.raises(CapabilityMissing, match=f"^this bundle's {PARTS[part]} was not trained$"):
        call(Predictor(without(full_bundle, part)))


def test_latent_actions_are_served_beside_an_untrained_trunk(full_bundle: Bundle) -> None:
    predictor = Predictor(without(full_bundle, "vision", "vision.pool", "joint"))

    assert predictor.latent_actions([picture()], [picture(1)], decode_actions=True).vectors.size


def test_what_reads_no_condition_is_served_beside_untrained_ones(full_bundle: Bundle) -> None:
    predictor, whole = Predictor(without(full_bundle, *INPUTS)), Predictor(full_bundle)
    nothing = np.zeros((1, 8, 4), np.float32)

    calls: list[Callable[[Predictor], NDArray[Any]]] = [
        lambda p: p.fill_images([picture()], PATCHES).filled,
        lambda p: p.fill_texts([[1, 2]]).probabilities,
        lambda p: p.fill_actions(nothing, torch.ones(1, 8, dtype=torch.bool)),
    ]

    for call in calls:
        assert np.array_equal(call(predictor), call(whole))


@pytest.mark.parametrize(
    ("part", "spaces"),
    [
        ("vision", {"pooled", "tokens", "world_latent"}),
        ("vision.pool", {"pooled"}),
        ("joint", {"joint"}),
        ("video", {"clip_pooled", "clip_tokens"}),
        ("video.pool", {"clip_pooled"}),
        ("latent_action", {"latent_action"}),
        ("world_model", {"world_latent"}),
        ("pixel_decoder", set()),
    ],
)
def test_random_vectors_have_no_space(part: Part, spaces: set[str], full_bundle: Bundle) -> None:
    had = {space.name: space.space_id for space in full_bundle.spaces}
    has = {space.name: space.space_id for space in without(full_bundle, part).spaces}

    assert had.keys() - has.keys() == spaces
    assert has.items() <= had.items()


@pytest.mark.parametrize("part", PARTS)
def test_a_bundle_proves_what_it_serves_and_no_more(part: Part, full_bundle: Bundle) -> None:
    left = without(full_bundle, part)

    golden = make_golden(left, golden_inputs(left), left.golden_texts)

    assert golden.keys() <= full_bundle.golden.keys()
    changed = {
        name for name, tensor in full_bundle.golden.items() if not same(golden.get(name), tensor)
    }
    assert changed
    assert all(name.startswith("output/") for name in changed)
    check_golden(Predictor(replace(left, golden=golden)))


def test_a_bundle_that_says_nothing_of_it_serves_all_it_has(full_folder: Path) -> None:
    summary = TrainingSummary.model_validate(
        {"recipe": "", "data": "", "steps": 0, "seed": 0, "commit": ""}
    )

    assert summary.learnt(*PARTS)
    assert read_bundle(full_folder, "full").config.training.learnt(*PARTS)
