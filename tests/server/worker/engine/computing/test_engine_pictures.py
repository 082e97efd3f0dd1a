"""Pictures that are brought to the model's size ahead of their batch: what is computed of them."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.bundles import actions
from tests.server.worker.engine.engines import Started

from tectum_core.predictor import Predictor
from tectum_server.worker.engine.computing.operations import run_batch
from tectum_server.worker.engine.computing.pictures import preparation, prepared
from tectum_server.worker.jobs import (
    EmbedClips,
    EmbedImages,
    FillActions,
    FillClip,
    FillImage,
    FillText,
    Item,
    ItemOutput,
    Job,
    LatentActions,
    MaskSpec,
    Operation,
    Priority,
)

SIZES = [(40, 56), (33, 31), (32, 32), (480, 640), (3, 500), (501, 2), (17, 20)]
STATE = np.linspace(-1, 1, 3, dtype=np.float32)


def noise(seed: int, *size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def items(operation: Operation) -> list[Item]:
    """One of each size; among them two of the same."""
    sizes = [*SIZES, SIZES[0]]
    images = [noise(seed, *size) for seed, size in enumerate(sizes)]
    match operation:
        case EmbedClips() | FillClip():
            return [Item((noise(seed, 4, *size),)) for seed, size in enumerate(sizes)]
        case FillActions():
            return [Item((actions(), STATE, image)) for image in images]
        case LatentActions():
            return [Item(pair) for pair in pairwise(images)]
        case FillText():
            return [Item((image,), "pick up the cube") for image in images]
    return [Item((image,)) for image in images]


@pytest.mark.parametrize(
    "operation",
    [
        EmbedImages("pooled"),
        EmbedImages("joint"),
        EmbedImages("tokens"),
        EmbedClips("pooled"),
        FillImage(MaskSpec()),
        FillImage(MaskSpec("importance")),
        FillClip(MaskSpec("tube")),
        FillClip(MaskSpec("importance", source="change")),
        FillText(MaskSpec(), 3),
        FillActions(MaskSpec("block"), has_state=True, has_image=True),
        LatentActions(decode_actions=True, predict_frame=False),
    ],
    ids=str,
)
def test_prepared_or_not_the_answers_have_the_same_bits(
    full: Predictor, operation: Operation
) -> None:
    given = items(operation)
    ready = [prepared(item, full) for item in given]
    some = [*given[:3], *ready[3:]]

    plain, *ahead = (
        run_batch(full, [(operation, item) for item in batch]) for batch in (given, ready, some)
    )

    for one, *others in zip(plain, *ahead, strict=True):
        assert isinstance(one, ItemOutput)
        for other in others:
            assert isinstance(other, ItemOutput)
            assert other.tokens == one.tokens
            for mine, theirs in zip(one.arrays, other.arrays, strict=True):
                np.testing.assert_array_equal(mine, theirs)


async def test_an_engine_of_batches_of_one_has_the_bits_of_the_predictor_itself(
    started: Started, bare: Predictor
) -> None:
    engine = await started("arm")  # which has them
    given = tuple(items(EmbedImages("pooled")))
    deadline = time.monotonic() + 600

    result = await engine.submit(
        Job("arm", EmbedImages("pooled"), given, Priority.INTERACTIVE, deadline)
    )

    for item, output in zip(given, result.outputs, strict=True):
        assert isinstance(output, ItemOutput)
        (alone,) = bare.embed_images([item.arrays[0]], "pooled")
        np.testing.assert_array_equal(output.arrays[0], alone)


def test_what_is_prepared_is_in_memory_of_its_own(full: Predictor) -> None:
    sent = noise(0, 480, 640)
    sent.flags.writeable = False  # as shared memory may be

    ready = prepared(Item((sent,), "words"), full)

    (fit,) = ready.arrays
    tensor: object = fit
    assert isinstance(tensor, torch.Tensor)
    assert tensor.untyped_storage().nbytes() == 3 * 32 * 32  # and no more than that
    assert ready.text == "words"


def test_what_has_the_models_size_needs_nothing_and_stays_as_it_is(full: Predictor) -> None:
    item = Item((noise(0, 32, 32), STATE))

    assert preparation("m@v", item, full) is None
    assert prepared(item, full).arrays[0] is item.arrays[0]


def test_numbers_are_no_pictures(full: Predictor) -> None:
    assert preparation("m@v", Item((actions(), STATE)), full) is None


def test_what_is_needed_goes_by_all_pixels_of_an_item(full: Predictor) -> None:
    def size(item: Item) -> int:
        needed = preparation("m@v", item, full)
        assert needed is not None
        assert needed.kind == ("m@v", "prepare")
        return needed.size

    small, large = Item((noise(0, 480, 640),)), Item((noise(0, 960, 1280),))

    assert size(Item((noise(0, 3, 5),))) == 1
    assert size(large) == 4 * size(small)
    assert size(replace(small, arrays=small.arrays * 2)) == 2 * size(small)
    assert size(Item((noise(0, 4, 480, 640),))) == size(large)
    assert size(Item((noise(0, 32, 32), *small.arrays))) == size(small)


def test_few_sizes_are_told_apart(full: Predictor) -> None:
    sizes = {
        needed.size
        for side in range(16, 1600, 16)
        if (needed := preparation("m@v", Item((np.zeros((side, 1000, 3), np.uint8),)), full))
    }

    assert len(sizes) <= 28  # four for each doubling
