"""What training did not reach is not served: no vectors, no space, no golden outputs of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.bundles import actions, clip, picture

from tectum_core.bundle import Bundle, Part, TrainingSummary, read_bundle
from tectum_core.bundle.config import PARTS
from tectum_core.golden import check_golden, golden_inputs, make_golden
from tectum_core.predictor import CapabilityMissing, Predictor

PATCHES = torch.arange(16)[None] < 8
TUBELETS = torch.arange(32)[None] < 16
STEPS = torch.arange(8)[None] < 4
CALLS: list[tuple[Part, Callable[[Predictor], object]]] = [
    ("vision", lambda p: p.embed_images([picture()], "tokens")),
    ("vision", lambda p: p.image_importance(picture())),
    ("vision.pool", lambda p: p.embed_images([picture()], "pooled")),
    ("joint", lambda p: p.embed_images([picture()], "joint")),
    ("joint", lambda p: p.embed_texts(["open"])),
    ("joint", lambda p: p.logits(np.zeros(1, np.float32))),
    ("video", lambda p: p.embed_clips([clip()], "tokens")),
    ("video", lambda p: p.clip_importance(clip())),
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
]


def without(bundle: Bundle, *parts: Part) -> Bundle:
    """The bundle as if training had not reached these."""
    summary = bundle.config.training.model_copy(update={"untrained": parts})
    config = bundle.config.model_copy(update={"training": summary})
    return replace(bundle, config=config)


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


@pytest.mark.parametrize(
    ("part", "spaces"),
    [
        ("vision", {"pooled", "tokens"}),
        ("vision.pool", {"pooled"}),
        ("joint", {"joint"}),
        ("video", {"clip_pooled", "clip_tokens"}),
        ("video.pool", {"clip_pooled"}),
        ("latent_action", {"latent_action"}),
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
    assert check_golden(Predictor(replace(left, golden=golden))).outputs < len(full_bundle.golden)


def test_a_bundle_that_says_nothing_of_it_serves_all_it_has(full_folder: Path) -> None:
    summary = TrainingSummary.model_validate(
        {"recipe": "", "data": "", "steps": 0, "seed": 0, "commit": ""}
    )

    assert summary.learnt(*PARTS)
    assert read_bundle(full_folder, "full").config.training.learnt(*PARTS)
