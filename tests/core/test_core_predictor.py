"""Inference in process: the same input gives the same numbers, whoever shares its batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.bundles import INTERVAL, SCALING, TOLERANCE, actions, clip, picture, stack, write_full
from torch import Generator, Tensor

from tectum_core.architecture import (
    ActionBinsConfig,
    ActionConfig,
    LatentActionConfig,
    TransformerDynamicsConfig,
)
from tectum_core.bundle import read_bundle
from tectum_core.golden import check_golden
from tectum_core.masks import random_mask
from tectum_core.model import Context
from tectum_core.outputs import Rollouts
from tectum_core.predictor import CapabilityMissing, Predictor
from tectum_core.rollouts import RolloutRequest

COUNT = 16
SIZES = [(32, 32), (40, 56), (17, 90), (64, 48)]
PICTURES = [picture(seed, *SIZES[seed % len(SIZES)]) for seed in range(COUNT)]
LATER = [picture(seed + 100, *SIZES[seed % len(SIZES)]) for seed in range(COUNT)]
CLIPS = [clip(seed, 4, *SIZES[seed % len(SIZES)]) for seed in range(COUNT)]
INSTRUCTIONS = ("open the drawer", "close", "push the red button quickly", "pull the door slowly")
TEXTS = [INSTRUCTIONS[seed % 4] + " the" * (seed % 5) for seed in range(COUNT)]
STATES = np.random.default_rng(1).normal(size=(COUNT, 3)).astype(np.float32)
ACTIONS = np.stack([actions(seed) for seed in range(COUNT)])
Answer = NDArray[np.floating]


def masks(elements: int, ratio: float = 0.75) -> Tensor:
    """bool[16, N], another draw in each row."""
    return torch.stack(
        [random_mask(elements, ratio, Generator().manual_seed(seed)) for seed in range(COUNT)]
    )


PATCHES, TUBELETS, STEPS = masks(16), masks(32), masks(8, 0.5)


def fill_texts(full: Predictor, which: slice, pictures: bool) -> Answer:
    tokenizer = full.bundle.tokenizer
    assert tokenizer is not None
    assert tokenizer.mask_id is not None
    ids = [[*full.encode(text).ids] for text in TEXTS[which]]
    for row in ids:
        row[1] = tokenizer.mask_id
    return full.fill_texts(ids, PICTURES[which] if pictures else None).probabilities


METHODS: dict[str, Callable[[Predictor, slice], Answer]] = {
    "embed_images joint": lambda p, w: p.embed_images(PICTURES[w], "joint"),
    "embed_images pooled": lambda p, w: p.embed_images(PICTURES[w], "pooled"),
    "embed_images tokens": lambda p, w: p.embed_images(PICTURES[w], "tokens"),
    "embed_clips pooled": lambda p, w: p.embed_clips(CLIPS[w], "pooled"),
    "embed_clips tokens": lambda p, w: p.embed_clips(CLIPS[w], "tokens"),
    "embed_texts": lambda p, w: p.embed_texts(TEXTS[w]),
    "fill_images": lambda p, w: p.fill_images(PICTURES[w], PATCHES[w]).error,
    "fill_images told": lambda p, w: p.fill_images(PICTURES[w], PATCHES[w], TEXTS[w]).error,
    "fill_clips": lambda p, w: p.fill_clips(CLIPS[w], TUBELETS[w]).error,
    "fill_texts": lambda p, w: fill_texts(p, w, pictures=False),
    "fill_texts seeing": lambda p, w: fill_texts(p, w, pictures=True),
    "fill_actions": lambda p, w: p.fill_actions(ACTIONS[w], STEPS[w]),
    "fill_actions knowing all": lambda p, w: p.fill_actions(
        ACTIONS[w], STEPS[w], PICTURES[w], TEXTS[w], STATES[w]
    ),
    "latent_actions": lambda p, w: p.latent_actions(PICTURES[w], LATER[w]).vectors,
    "decoded actions": lambda p, w: decoded(p, w),
    "rollout": lambda p, w: rolled_out(p, w).latents,
    "rollout distances": lambda p, w: given(rolled_out(p, w).distances),
}


def decoded(full: Predictor, which: slice) -> Answer:
    found = full.latent_actions(PICTURES[which], LATER[which], decode_actions=True).actions
    assert found is not None
    return found


def rolled_out(full: Predictor, which: slice) -> Rollouts:
    """Two frames after two, towards a third."""
    vectors = full.embed_images([*PICTURES[which], *LATER[which]], "tokens")
    seen = np.stack(np.split(vectors, 2), axis=1)
    past, actions = ACTIONS[which, :4], np.concatenate([ACTIONS[which]] * 2, axis=1)[:, :8]
    return full.rollout(RolloutRequest(seen, 2, past, actions, seen[:, 0], decode_frames=True))


def given(values: Answer | None) -> Answer:
    assert values is not None
    return values


# ---------------------------------------------------------------- neighbours and order


@pytest.mark.parametrize("method", METHODS)
def test_an_item_alone_is_the_item_in_a_batch_of_sixteen(full: Predictor, method: str) -> None:
    together = METHODS[method](full, slice(0, COUNT))

    assert len(together) == COUNT
    for index in range(COUNT):
        alone = METHODS[method](full, slice(index, index + 1))
        np.testing.assert_allclose(together[index], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_different_items_get_different_answers(full: Predictor, method: str) -> None:
    together = np.nan_to_num(METHODS[method](full, slice(0, 4)))

    assert len(np.unique(together.reshape(4, -1).round(5), axis=0)) > 1


def test_predicted_frames_and_codes_do_not_depend_on_neighbours_either(full: Predictor) -> None:
    together = full.latent_actions(PICTURES, LATER, predict_frames=True)
    assert together.codes is not None
    assert together.frames is not None

    for index in range(COUNT):
        alone = full.latent_actions([PICTURES[index]], [LATER[index]], predict_frames=True)
        assert alone.codes is not None
        assert alone.frames is not None
        assert np.array_equal(together.codes[index], alone.codes[0])
        assert np.abs(together.frames[index].astype(int) - alone.frames[0]).max() <= 1


def test_pictures_are_what_was_painted_before_rounding(full: Predictor) -> None:
    def rounded(normalised: Tensor) -> NDArray[np.uint8]:
        levels = np.rint((normalised.numpy() * 0.25 + 0.5) * 255).clip(0, 255)
        return np.moveaxis(levels, -3, -1).astype(np.uint8)

    images, clips = full.fill_images(PICTURES, PATCHES), full.fill_clips(CLIPS, TUBELETS)
    latent = full.latent_actions(PICTURES, LATER, predict_frames=True)
    rolled = rolled_out(full, slice(0, 4))

    assert latent.predicted is not None
    assert latent.frames is not None
    assert rolled.painted is not None
    assert rolled.frames is not None
    for painted, pixels in (
        (images.painted, images.filled),
        (clips.painted, clips.filled),
        (latent.predicted, latent.frames),
        (rolled.painted, rolled.frames),
    ):
        found = rounded(painted)
        assert found.shape == pixels.shape
        assert np.abs(found.astype(int) - pixels).max() <= 1  # where a level is a coin's toss
        assert (found != pixels).mean() < 0.01


# ---------------------------------------------------------------- vectors


def test_joint_vectors_have_unit_length(full: Predictor) -> None:
    for vectors in (full.embed_images(PICTURES, "joint"), full.embed_texts(TEXTS)):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)


def test_shapes_are_those_of_the_spaces(full: Predictor) -> None:
    widths = {space.name: space.width for space in full.bundle.spaces}

    assert full.embed_images(PICTURES[:2], "joint").shape == (2, widths["joint"])
    assert full.embed_images(PICTURES[:2], "pooled").shape == (2, widths["pooled"])
    assert full.embed_images(PICTURES[:2], "tokens").shape == (2, 16, widths["tokens"])
    assert full.embed_clips(CLIPS[:2], "pooled").shape == (2, widths["clip_pooled"])
    assert full.embed_clips(CLIPS[:2], "tokens").shape == (2, 32, widths["clip_tokens"])
    latent = full.latent_actions(PICTURES[:2], LATER[:2])
    assert latent.vectors.shape == (2, widths["latent_action"])


def test_logits_are_the_joint_spaces_own(full: Predictor) -> None:
    joint = full.model.joint
    assert joint is not None
    cosine = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)

    wanted = cosine * float(joint.log_scale.exp())

    np.testing.assert_allclose(full.logits(cosine), wanted, rtol=1e-6)


def test_pictures_may_be_views_of_any_layout(full: Predictor) -> None:
    flipped = PICTURES[1][:, ::-1]
    readonly = PICTURES[1].copy()
    readonly.setflags(write=False)

    wanted = full.embed_images([np.ascontiguousarray(flipped), PICTURES[1]], "pooled")

    assert np.array_equal(full.embed_images([flipped, readonly], "pooled"), wanted)


def test_importance_has_a_number_for_each_patch(full: Predictor) -> None:
    assert full.image_importance(PICTURES).shape == (len(PICTURES), 16)
    assert full.clip_importance(CLIPS).shape == (len(CLIPS), 32)


def test_importance_is_each_pictures_own_whatever_its_neighbours(full: Predictor) -> None:
    together = full.image_importance(PICTURES), full.clip_importance(CLIPS)

    alone = [np.concatenate([full.image_importance([one]) for one in PICTURES])]
    alone += [np.concatenate([full.clip_importance([one]) for one in CLIPS])]
    for found, wanted in zip(together, alone, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


# ---------------------------------------------------------------- filling in


def blocks(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[32, 32, 3] as its 16 patches."""
    return image.reshape(4, 8, 4, 8, 3).swapaxes(1, 2).reshape(16, 8, 8, 3)


def test_hidden_patches_are_painted_from_visible_ones_alone(full: Predictor) -> None:
    image, hidden = picture(1, 32, 32), PATCHES[:1]
    other = blocks(image).copy()
    other[hidden[0].numpy()] = 255 - other[hidden[0].numpy()]
    changed = other.reshape(4, 4, 8, 8, 3).swapaxes(1, 2).reshape(32, 32, 3)

    found, again = (full.fill_images([given], hidden) for given in (image, changed))

    assert np.array_equal(found.filled, again.filled)
    assert not np.array_equal(found.error, again.error, equal_nan=True)


def test_visible_patches_stay_as_they_were_seen(full: Predictor) -> None:
    image, hidden = picture(1, 32, 32), PATCHES[0]

    found = full.fill_images([image], hidden[None])

    shown = ~hidden.numpy()
    assert np.array_equal(found.seen[0, 0], image)
    assert np.array_equal(blocks(found.filled[0, 0])[shown], blocks(image)[shown])
    assert not np.array_equal(blocks(found.filled[0, 0])[~shown], blocks(image)[~shown])


def test_errors_are_told_for_hidden_elements_only(full: Predictor) -> None:
    pictures, clips = full.fill_images(PICTURES, PATCHES), full.fill_clips(CLIPS, TUBELETS)

    for error, hidden in ((pictures.error, PATCHES), (clips.error, TUBELETS)):
        assert np.array_equal(np.isnan(error), ~hidden.numpy())
        assert bool((error[hidden.numpy()] > 0).all())
    assert clips.seen.shape == clips.filled.shape == (COUNT, 4, 32, 32, 3)


def test_the_instruction_changes_what_is_painted(full: Predictor) -> None:
    told, untold = (
        full.fill_images(PICTURES[:1], PATCHES[:1], texts).error for texts in (TEXTS[:1], None)
    )

    assert not np.allclose(told, untold, equal_nan=True)


def test_probabilities_of_every_token_sum_to_one(full: Predictor) -> None:
    np.testing.assert_allclose(fill_texts(full, slice(0, 4), True).sum(-1), 1, atol=1e-5)


def test_places_that_are_wanted_are_those_of_all(full: Predictor) -> None:
    ids = [[*full.encode(text).ids] for text in TEXTS[:3]]
    places = [[1], [], [2, 1]]

    whole = full.fill_texts(ids, PICTURES[:3]).probabilities
    wanted = full.fill_texts(ids, PICTURES[:3], places).probabilities

    np.testing.assert_array_equal(wanted, whole[[0, 2, 2], [1, 2, 1]])


def test_visible_actions_are_returned_as_given_and_hidden_ones_are_not_read(
    full: Predictor,
) -> None:
    hidden = STEPS.numpy()
    junk = np.where(hidden[:, :, None], np.float32(1e6), ACTIONS)

    found = full.fill_actions(ACTIONS, STEPS)

    assert np.array_equal(found[~hidden], ACTIONS[~hidden])
    assert np.array_equal(full.fill_actions(junk, STEPS), found)


def test_predicted_actions_are_in_the_robots_own_units(full: Predictor) -> None:
    found = full.fill_actions(ACTIONS, torch.ones(COUNT, 8, dtype=torch.bool))
    fusion = full.model.fusion
    assert fusion is not None
    with torch.inference_mode():
        standardised = fusion.fill_actions(
            torch.zeros(COUNT, 8, 4), torch.ones(COUNT, 8, dtype=torch.bool), Context()
        )

    np.testing.assert_allclose(found, SCALING.restore(standardised).numpy(), rtol=1e-5, atol=1e-5)


def test_actions_that_have_bins_are_predicted_within_them_and_served_like_others(
    tmp_path: Path,
) -> None:
    bins = ActionBinsConfig(count=8, limit=2.0)
    acting = ActionConfig(dimensions=4, state_dimensions=3, max_steps=8, bins=bins)
    write_full(tmp_path / "binned", actions=acting)
    predictor = Predictor(read_bundle(tmp_path / "binned", "binned"))

    found = predictor.fill_actions(ACTIONS, STEPS, PICTURES, TEXTS, STATES)

    hidden = STEPS.numpy()
    assert np.array_equal(found[~hidden], ACTIONS[~hidden])
    standardised = SCALING.standardise(torch.from_numpy(found)).numpy()[hidden]
    assert np.abs(standardised).max() <= 1.75 + 1e-5  # the outermost centres
    assert check_golden(predictor).outputs


# ---------------------------------------------------------------- capabilities

MISSING: dict[str, tuple[Callable[[Predictor], object], str]] = {
    "joint": (lambda p: p.embed_images(PICTURES[:1], "joint"), "has no joint space"),
    "clips": (lambda p: p.embed_clips(CLIPS[:1], "pooled"), "has no video path"),
    "texts": (lambda p: p.embed_texts(["a"]), "has no text path"),
    "encode": (lambda p: p.encode("a"), "has no text path"),
    "logits": (lambda p: p.logits(np.zeros((1, 1), np.float32)), "has no joint space"),
    "clip importance": (lambda p: p.clip_importance(CLIPS), "has no video path"),
    "fill images": (lambda p: p.fill_images(PICTURES[:1], PATCHES[:1]), "reconstructs no images"),
    "fill clips": (lambda p: p.fill_clips(CLIPS[:1], TUBELETS[:1]), "reconstructs no clips"),
    "fill texts": (lambda p: p.fill_texts([[1, 2]]), "reconstructs no texts"),
    "fill actions": (
        lambda p: p.fill_actions(ACTIONS[:1], STEPS[:1]),
        "reconstructs no actions",
    ),
    "latents": (lambda p: p.latent_actions(PICTURES[:1], LATER[:1]), "predicts no latent actions"),
    "rollout": (
        lambda p: p.rollout(RolloutRequest(np.zeros((1, 1, 16, 32), np.float32), 1)),
        "has no world model",
    ),
}


@pytest.mark.parametrize("part", MISSING)
def test_a_missing_part_is_named(bare: Predictor, part: str) -> None:
    ask, words = MISSING[part]

    with pytest.raises(CapabilityMissing, match=words):
        ask(bare)


def test_a_bare_trunk_still_embeds(bare: Predictor) -> None:
    assert bare.embed_images(PICTURES[:2], "pooled").shape == (2, 32)


@pytest.mark.parametrize("source", ["pixels", "trunk"])
def test_a_model_that_predicts_latents_says_latent_actions_and_paints_no_frames(
    tmp_path: Path, source: Literal["pixels", "trunk"]
) -> None:
    dynamics = TransformerDynamicsConfig(transformer=stack(), source=source)
    latent = LatentActionConfig(
        dynamics=dynamics, image_size=16, interval=INTERVAL, tolerance=TOLERANCE,
        decoded_steps=4, target="latents", says="change",
    )  # fmt: skip
    write_full(tmp_path / "latents", latent_action=latent)
    predictor = Predictor(read_bundle(tmp_path / "latents", "latents"))

    found = predictor.latent_actions(PICTURES[:2], LATER[:2], decode_actions=True)

    assert found.vectors.shape == (2, 16)
    assert found.actions is not None
    assert (found.frames, found.predicted) == (None, None)
    with pytest.raises(CapabilityMissing, match="predicts no frames"):
        predictor.latent_actions(PICTURES[:2], LATER[:2], predict_frames=True)
    assert check_golden(predictor).outputs


def test_clips_have_no_joint_space(full: Predictor) -> None:
    with pytest.raises(CapabilityMissing, match="clips have no joint space"):
        full.embed_clips(CLIPS[:1], "joint")
