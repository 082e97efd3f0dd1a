"""Golden inputs: of the shapes that a model takes, and no others; rounded alike everywhere."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.bundles import IMAGES, SCALING, full_model, world_model, write_full

from tectum_core.bundle import Bundle, read_bundle
from tectum_core.golden import GoldenMismatch, check_golden
from tectum_core.golden_inputs import golden_inputs, outline
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ImagePreprocessing, resample


def mismatch(bundle: Bundle) -> str:
    with pytest.raises(GoldenMismatch) as caught:
        check_golden(Predictor(bundle))
    return str(caught.value)


def test_golden_pictures_are_not_of_the_models_size_so_that_resizing_is_proved(
    full: Predictor,
) -> None:
    shape = golden_inputs(full.bundle)["input/images"].shape

    assert tuple(shape) == (3, 48, 64, 3)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"interpolation": "bicubic"},
        {"resize_mode": "center_crop", "resize_to": 40},
    ],
    ids=str,
)
def test_no_golden_pixel_is_rounded_near_the_middle_of_two_levels(
    tmp_path: Path, change: dict[str, object]
) -> None:
    write_full(tmp_path / "b")
    spec = ImagePreprocessing.model_validate({**IMAGES.model_dump(), **change})
    bundle = read_bundle(tmp_path / "b", "b")
    bundle = replace(bundle, config=bundle.config.model_copy(update={"images": spec}))

    inputs = golden_inputs(bundle)

    for name in ("input/images", "input/clip"):
        resized = resample(inputs[name], spec).double()
        assert float((resized - resized.floor() - 0.5).abs().min()) >= 0.0099


@pytest.mark.parametrize(
    "texts",
    [(), ("open",) * 2, ("open",) * 4, ("open", "close", "a" * 4097), ("open",) * 1000],
    ids=len,
)
def test_golden_texts_are_three_short_ones(full_bundle: Bundle, texts: tuple[str, ...]) -> None:
    assert "are 3 of at most 4096" in mismatch(replace(full_bundle, golden_texts=texts))


def test_a_model_without_words_has_no_golden_texts(bare: Predictor) -> None:
    assert "are 0 of at most" in mismatch(replace(bare.bundle, golden_texts=("open",) * 3))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"video": None, "video_decoder": None},
        {"actions": None, "latent_action": None, "fusion": None, "world_model": None},
        {"world_model": world_model(actions="latent", action_steps=None)},
        {"world_model": world_model(actions="none", action_steps=None)},
    ],
    ids=lambda changes: ", ".join(changes) or "whole",
)
def test_what_is_allowed_is_what_is_made(full_bundle: Bundle, changes: dict[str, object]) -> None:
    scaling = None if "actions" in changes else SCALING
    config = full_bundle.config.model_copy(
        update={"model": full_model(**changes), "actions": scaling}
    )

    made, allowed = golden_inputs(replace(full_bundle, config=config)), outline(config)

    forms = [{k: (v.dtype, v.shape) for k, v in tensors.items()} for tensors in (made, allowed)]
    assert forms[0] == forms[1]


def test_pictures_that_cannot_be_settled_are_not_shipped(full_bundle: Bundle) -> None:
    far = IMAGES.model_copy(update={"resize_mode": "center_crop", "resize_to": 256})
    bundle = replace(full_bundle, config=full_bundle.config.model_copy(update={"images": far}))

    with pytest.raises(ValueError, match=r"near the middle of two levels; images\.resize_to \(256"):
        golden_inputs(bundle)
