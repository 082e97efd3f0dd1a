"""Golden outputs: a host that computes otherwise than training did is found out, with numbers."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tectum_core.bundle import Bundle, GoldenTolerance, read_bundle
from tectum_core.golden import GoldenMismatch, check_golden, golden_inputs, make_golden
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.tokenizer import Tokenizer


@pytest.fixture
def fresh(full_folder: Path) -> Bundle:
    """A bundle of one's own, to damage."""
    return read_bundle(full_folder, "full")


def mismatch(bundle: Bundle) -> str:
    with pytest.raises(GoldenMismatch) as caught:
        check_golden(Predictor(bundle))
    return str(caught.value)


def test_the_host_that_made_a_bundle_reproduces_it(full: Predictor, bare: Predictor) -> None:
    for predictor in (full, bare):
        report = check_golden(predictor)
        assert report.min_cosine > 0.999999
        assert report.max_abs_difference < 1e-4
        assert report.outputs == sum(name.startswith("output/") for name in predictor.bundle.golden)


def test_every_head_has_an_output(full: Predictor) -> None:
    names = {name.removeprefix("output/") for name in full.bundle.golden if "output/" in name}

    assert names == {
        "pooled",
        "tokens",
        "joint_image",
        "joint_text",
        "filled_images",
        "clip_pooled",
        "filled_clips",
        "filled_texts",
        "filled_actions",
        "latent_action",
        "predicted_frames",
        "decoded_actions",
    }


PART_OUTPUT = {
    "vision.embed": "pooled",
    "vision.transformer": "tokens",
    "text.embed": "joint_text",
    "joint.image": "joint_image",
    "joint.text": "joint_text",
    "pixel_decoder.paint": "filled_images",
    "video.embed": "clip_pooled",
    "video_decoder.paint": "filled_clips",
    "fusion.token_head": "filled_texts",
    "fusion.action_head": "filled_actions",
    "latent_action.dynamics.paint": "predicted_frames",
    "latent_action.action_decoder": "decoded_actions",
}


@pytest.mark.parametrize(("part", "output"), PART_OUTPUT.items())
def test_a_nudged_weight_is_found_out_with_numbers(fresh: Bundle, part: str, output: str) -> None:
    with torch.no_grad():
        for key, weight in fresh.model.named_parameters():
            if key.startswith(part) and weight.dim() > 1:
                weight.add_(
                    0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
                )

    words = mismatch(fresh)

    told = re.search(
        rf"{output}: cosine (-?[\d.]+) \(at least ([\d.]+)\), "
        r"largest difference ([\d.e+-]+) \(at most ([\d.e+-]+)\)",
        words,
    )
    assert told is not None, words
    cosine, at_least, difference, at_most = map(float, told.groups())
    assert cosine < at_least or difference > at_most
    assert words.startswith("full does not reproduce its golden outputs here in float32")


@pytest.mark.parametrize(
    "change",
    [
        {"interpolation": "bicubic"},
        {"resize_mode": "center_crop", "resize_to": 40},
        {"mean": (0.45, 0.5, 0.5)},
        {"standard_deviation": (0.25, 0.25, 0.2)},
    ],
    ids=str,
)
def test_another_preprocessing_is_found_out(fresh: Bundle, change: dict[str, object]) -> None:
    images = ImagePreprocessing.model_validate({**fresh.config.images.model_dump(), **change})

    skewed = replace(fresh, config=fresh.config.model_copy(update={"images": images}))

    assert "pooled: cosine" in mismatch(skewed)


def test_another_tokenizer_is_found_out(fresh: Bundle) -> None:
    other = Tokenizer.train(["slowly quickly button door"] * 9, 60)

    assert "joint_text: cosine" in mismatch(replace(fresh, tokenizer=other))


def test_a_bundle_without_golden_outputs_is_refused(fresh: Bundle) -> None:
    inputs = {key: value for key, value in fresh.golden.items() if key.startswith("input/")}

    assert mismatch(replace(fresh, golden=inputs)) == "full: the bundle has no golden outputs"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda golden: golden.pop("output/tokens"), "outputs and heads differ: tokens"),
        (
            lambda golden: golden.update({"output/aura": torch.ones(1)}),
            "outputs and heads differ: aura",
        ),
        (
            lambda golden: golden.update({"output/pooled": torch.ones(3, 5)}),
            r"pooled has shape \(3, 5\), found \(3, 32\)",
        ),
        (lambda golden: golden.pop("input/images"), "golden tensors lack input/images"),
        (lambda golden: golden.pop("input/actions"), "golden tensors lack input/actions"),
        (
            lambda golden: golden.update({"input/image_mask": torch.ones(3, 7) > 0}),
            "golden inputs do not run",
        ),
    ],
)
def test_golden_tensors_that_do_not_fit_the_model_are_named(
    fresh: Bundle, edit: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    golden = dict(fresh.golden)
    edit(golden)

    assert re.search(words, mismatch(replace(fresh, golden=golden)))


def test_outputs_that_are_not_finite_are_a_mismatch(fresh: Bundle) -> None:
    golden = {**fresh.golden, "output/pooled": torch.full((3, 32), float("nan"))}

    assert "pooled: cosine nan" in mismatch(replace(fresh, golden=golden))


def test_each_kind_of_numerics_has_its_own_tolerance(fresh: Bundle) -> None:
    with torch.no_grad():
        fresh.model.get_parameter("vision.embed.weight").mul_(1.002)
    predictor = Predictor(fresh)

    with pytest.raises(GoldenMismatch, match="here in float32"):
        check_golden(predictor)
    assert check_golden(predictor, "bfloat16").min_cosine >= 0.999


def test_a_bundles_own_tolerance_counts(fresh: Bundle) -> None:
    tolerances = {"float32": GoldenTolerance(min_cosine=0.1, max_relative_difference=10.0)}
    with torch.no_grad():
        fresh.model.get_parameter("vision.embed.weight").mul_(1.01)

    lax = replace(fresh, config=fresh.config.model_copy(update={"tolerances": tolerances}))

    assert check_golden(Predictor(lax)).max_abs_difference > 1e-4


def test_a_tolerance_that_is_not_stated_is_a_mismatch(fresh: Bundle) -> None:
    stated = {"float32": fresh.config.tolerances["float32"]}
    silent = replace(fresh, config=fresh.config.model_copy(update={"tolerances": stated}))

    with pytest.raises(GoldenMismatch, match="states no tolerance for int8"):
        check_golden(Predictor(silent), "int8")


def test_golden_pictures_are_not_of_the_models_size_so_that_resizing_is_proved(
    full: Predictor,
) -> None:
    shape = golden_inputs(full.bundle)["input/images"].shape

    assert tuple(shape) == (3, 48, 64, 3)


def test_equal_seeds_make_equal_golden_tensors(full: Predictor) -> None:
    bundle = full.bundle
    again = make_golden(bundle, golden_inputs(bundle), bundle.golden_texts)

    assert again.keys() == bundle.golden.keys()
    for name, value in again.items():
        np.testing.assert_allclose(value.numpy(), bundle.golden[name].numpy(), atol=1e-5)
