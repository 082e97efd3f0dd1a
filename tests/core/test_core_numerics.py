"""Trunks in narrower types or compiled: as close as they must be, and everything else untouched."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bundles import clip, picture
from torch import nn
from torch._dynamo.testing import CompileCounter

from tectum_core.bundle import Bundle
from tectum_core.golden import check_golden
from tectum_core.masks import random_mask
from tectum_core.numerics import REFERENCE, Numerics, accelerate, release
from tectum_core.predictor import Predictor

NARROW = [Numerics("bfloat16"), Numerics("int8")]
EMBEDS_PATCHES = ("vision.embed.", "video.embed.")


@pytest.fixture
def read(full: Predictor) -> Bundle:
    """A bundle whose model is this test's own."""
    return replace(full.bundle, model=copy.deepcopy(full.bundle.model))


def hide(predictor: Predictor, share: float) -> torch.Tensor:
    patches = predictor.config.model.vision.patches
    return random_mask(patches, share, torch.Generator())[None]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


# ---------------------------------------------------------------- what changes


@pytest.mark.parametrize("numerics", NARROW, ids=str)
def test_narrower_trunks_say_nearly_the_same(
    read: Bundle, full: Predictor, numerics: Numerics
) -> None:
    narrow = Predictor(read, numerics=numerics)
    images, texts = [picture(seed) for seed in range(3)], ["open the drawer", "close"]

    pairs = [
        (narrow.embed_images(images, "joint"), full.embed_images(images, "joint")),
        (narrow.embed_images(images, "tokens"), full.embed_images(images, "tokens")),
        (narrow.embed_texts(texts), full.embed_texts(texts)),
        (narrow.embed_clips([clip()], "pooled"), full.embed_clips([clip()], "pooled")),
        (narrow.image_importance(images), full.image_importance(images)),
    ]

    assert all(found.dtype == np.float32 for found, _ in pairs)
    assert min(cosine(found, wanted) for found, wanted in pairs) > 0.995
    assert all(np.abs(found - wanted).max() > 0 for found, wanted in pairs)  # it is another


def test_bfloat16_reproduces_the_golden_outputs_within_its_tolerance(read: Bundle) -> None:
    report = check_golden(Predictor(read, numerics=Numerics("bfloat16")))

    assert report.min_cosine >= 0.999
    assert report.max_abs_difference > 0


def test_pictures_with_hidden_patches_are_painted_in_narrower_numerics_too(
    read: Bundle, full: Predictor
) -> None:
    hidden = hide(full, 0.5)
    narrow = Predictor(read, numerics=Numerics("bfloat16"))

    found, wanted = (one.fill_images([picture()], hidden) for one in (narrow, full))

    np.testing.assert_allclose(found.painted, wanted.painted, atol=0.1)


# ---------------------------------------------------------------- what does not


def test_the_reference_is_the_model_itself(read: Bundle) -> None:
    assert accelerate(read.model, REFERENCE) is read.model


@pytest.mark.parametrize("numerics", [*NARROW, Numerics(compiled=True)], ids=str)
def test_all_but_the_trunks_is_shared_and_float32(read: Bundle, numerics: Numerics) -> None:
    before = {name: tensor.clone() for name, tensor in read.model.state_dict().items()}

    fast = accelerate(read.model, numerics)

    own = {name: tensor.data_ptr() for name, tensor in read.model.named_parameters()}
    others = {
        name: tensor.data_ptr()
        for name, tensor in fast.named_parameters()
        if "transformer.blocks" not in name
        and not (numerics.precision == "bfloat16" and name.startswith(EMBEDS_PATCHES))
    }
    assert others
    assert all(own[name] == place for name, place in others.items())
    assert all(torch.equal(read.model.state_dict()[name], was) for name, was in before.items())


@pytest.mark.parametrize("numerics", NARROW, ids=str)
def test_spaces_are_those_of_the_weights_as_they_were_read(
    read: Bundle, full: Predictor, numerics: Numerics
) -> None:
    assert Predictor(read, numerics=numerics).bundle.spaces == full.bundle.spaces


def test_patches_are_embedded_in_bfloat16_and_leave_in_float32(read: Bundle) -> None:
    fast = accelerate(read.model, Numerics("bfloat16"))
    embed, own = fast.vision.embed, read.model.vision.embed
    assert isinstance(embed, nn.Linear)
    assert isinstance(own, nn.Linear)
    patches = torch.randn(3, own.in_features, generator=torch.Generator().manual_seed(0))

    found, wanted = embed(patches), own(patches)

    assert {tensor.dtype for tensor in embed.parameters()} == {torch.bfloat16}
    assert found.dtype == torch.float32
    assert not torch.equal(found, wanted)
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)


def test_half_of_the_blocks_memory_is_enough_for_bfloat16(read: Bundle) -> None:
    fast = accelerate(read.model, Numerics("bfloat16"))

    for trunk, narrow in ((read.model.vision, fast.vision), (read.model.text, fast.text)):
        assert trunk is not None
        assert narrow is not None
        sizes = [sum(p.nbytes for p in one.transformer.parameters()) for one in (trunk, narrow)]
        assert sizes[1] * 2 == sizes[0]


@settings(max_examples=10, deadline=None)
@given(neighbours=st.lists(st.integers(1, 50), max_size=4))
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_whoever_shares_a_batch_changes_next_to_nothing(
    full: Predictor, precision: Any, neighbours: list[int]
) -> None:
    read = replace(full.bundle, model=copy.deepcopy(full.bundle.model))
    narrow = Predictor(read, numerics=Numerics(precision))

    alone = narrow.embed_images([picture()], "pooled")[0]
    among = narrow.embed_images([picture(), *map(picture, neighbours)], "pooled")[0]

    assert cosine(alone, among) > 0.9999


# ---------------------------------------------------------------- compiled


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """Compiles by counting alone."""
    torch._dynamo.reset()
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    return counter


Embed = Callable[[Predictor, int], np.ndarray]


@pytest.mark.parametrize(
    "embed",
    [
        lambda p, n: p.embed_images([picture(seed) for seed in range(n)], "tokens"),
        lambda p, n: p.embed_texts([f"open drawer {seed}" for seed in range(n)]),
        lambda p, n: p.embed_clips([clip(seed) for seed in range(n)], "tokens"),
    ],
    ids=["images", "texts", "clips"],
)
def test_two_programs_do_for_batches_of_every_size(
    read: Bundle, full: Predictor, counter: CompileCounter, embed: Embed
) -> None:
    compiled = Predictor(read, numerics=Numerics(compiled=True))

    for size in (1, 2, 3, 5, 8, 4):
        found = embed(compiled, size)
        np.testing.assert_allclose(found, embed(full, size), atol=1e-5)

    assert counter.frame_count == 2


def test_many_models_are_compiled_each_for_itself(full: Predictor, counter: CompileCounter) -> None:
    pictures = [picture(1), picture(2)]
    for _ in range(6):
        read = replace(full.bundle, model=copy.deepcopy(full.bundle.model))
        compiled = Predictor(read, numerics=Numerics(compiled=True))
        compiled.embed_images(pictures[:1], "tokens")
        compiled.embed_images(pictures, "tokens")

    assert counter.frame_count == 12


def test_a_model_that_serves_no_more_goes_with_what_was_compiled_for_it(
    read: Bundle, counter: CompileCounter
) -> None:
    compiled = Predictor(read, numerics=Numerics(compiled=True))
    compiled.embed_images([picture()], "tokens")
    gone = weakref.ref(compiled.model.vision.transformer)
    gc.collect()
    gc.disable()
    try:
        release(compiled.model)
        del compiled
        assert gone() is None
    finally:
        gc.enable()


def test_what_has_hidden_patches_waits_for_no_compiler(
    read: Bundle, counter: CompileCounter
) -> None:
    compiled = Predictor(read, numerics=Numerics(compiled=True))

    for share in (0.25, 0.5, 0.75):
        compiled.fill_images([picture()], hide(compiled, share))
    compiled.image_importance([picture()])

    assert counter.frame_count == 0
