"""Golden outputs: a host that computes otherwise than training did is found out, with numbers."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.bundles import (
    SCALING,
    full_model,
    stack,
    tokenizer,
    vision,
    write_full,
)

from tectum_core import golden
from tectum_core.architecture import ConvolutionDynamicsConfig, StemConfig
from tectum_core.bundle import Bundle, GoldenTolerance, read_bundle, write_bundle
from tectum_core.golden import GoldenMismatch, check_golden, make_golden
from tectum_core.golden_inputs import golden_inputs
from tectum_core.numerics import Numerics
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.tokenizer import Tokenizer
from tectum_core.untrained import write_untrained


@pytest.fixture
def fresh(full_folder: Path) -> Bundle:
    """A bundle of one's own, to damage."""
    return read_bundle(full_folder, "full")


def trained(bundle: Bundle) -> Bundle:
    """The bundle with dynamics that do not predict "no change", as they do at first."""
    assert bundle.model.latent_action is not None
    assert bundle.model.world_model is not None
    with torch.no_grad():
        bundle.model.latent_action.dynamics.paint.weight.normal_(std=0.1)
        bundle.model.world_model.change.weight.normal_(std=0.1)
    made = make_golden(bundle, golden_inputs(bundle), bundle.golden_texts)
    return replace(bundle, golden=made)


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
        "importance",
        "joint_image",
        "joint_text",
        "logits",
        "filled_images",
        "filled_images_told",
        "painted_images",
        "clip_pooled",
        "clip_tokens",
        "clip_importance",
        "filled_clips",
        "painted_clips",
        "filled_texts",
        "filled_actions",
        "filled_actions_in_state",
        "latent_action",
        "predicted_frames",
        "decoded_actions",
        "rolled_out",
        "rolled_out_distances",
        "rolled_out_frames",
    }


@pytest.mark.parametrize(
    "output", ["painted_images", "painted_clips", "predicted_frames", "rolled_out_frames"]
)
def test_pictures_are_compared_before_they_are_rounded(fresh: Bundle, output: str) -> None:
    normalised = trained(fresh).golden[f"output/{output}"]

    for numbers in (normalised, (normalised * 0.25 + 0.5) * 255):  # whatever their unit is
        assert float((numbers - numbers.round()).abs().max()) > 0.4


PART_OUTPUT = {
    "vision.embed": "pooled",
    "vision.transformer": "tokens",
    "text.embed": "joint_text",
    "joint.image": "joint_image",
    "joint.text": "joint_text",
    "joint.log_scale": "logits",
    "pixel_decoder.paint": "filled_images",
    "pixel_decoder.statistics": "painted_images",
    "pixel_decoder.from_text": "filled_images_told",
    "video.embed": "clip_pooled",
    "video_decoder.paint": "filled_clips",
    "video_decoder.statistics": "painted_clips",
    "fusion.token_head": "filled_texts",
    "fusion.action_head": "filled_actions",
    "fusion.actions.embed_state": "filled_actions_in_state",
    "fusion.modality.state": "filled_actions_in_state",
    "latent_action.dynamics.paint": "predicted_frames",
    "latent_action.action_decoder": "decoded_actions",
}


@pytest.mark.parametrize(("part", "output"), PART_OUTPUT.items())
def test_a_nudged_weight_is_found_out_with_numbers(fresh: Bundle, part: str, output: str) -> None:
    with torch.no_grad():
        for key, weight in fresh.model.named_parameters():
            if key.startswith(part):
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


def test_no_weight_is_left_unproved(fresh: Bundle) -> None:
    predictor = Predictor(trained(fresh))
    unproved = []

    for key, weight in fresh.model.named_parameters():
        before = weight.clone()
        with torch.no_grad():
            weight.add_(torch.randn(weight.shape))
        try:
            check_golden(predictor)
            unproved.append(key)
        except GoldenMismatch:
            pass
        with torch.no_grad():
            weight.copy_(before)

    assert unproved == []
    assert check_golden(predictor).min_cosine > 0.999999  # all are as they were


ELSEWHERE = """
import sys
from pathlib import Path

from tectum_core.bundle import read_bundle
from tectum_core.golden import check_golden
from tectum_core.predictor import Predictor

for folder in sys.argv[1:]:
    print(check_golden(Predictor(read_bundle(Path(folder), "full"))).outputs)
"""


@pytest.mark.parametrize(
    "setting", [("ATEN_CPU_CAPABILITY", "default"), ("ONEDNN_MAX_CPU_ISA", "AVX2")]
)
def test_a_lesser_processor_reproduces_what_this_one_made(
    tmp_path: Path, setting: tuple[str, str]
) -> None:
    latent = full_model().latent_action
    assert latent is not None
    convolutions = latent.model_copy(update={"dynamics": ConvolutionDynamicsConfig(widths=(8, 16))})
    stem = StemConfig(widths=(4, 8, 12), blocks=1, groups=2)
    write_full(tmp_path / "1")
    write_full(tmp_path / "2", vision=vision(stem=stem), latent_action=convolutions)
    for name in ("1", "2"):
        made = trained(read_bundle(tmp_path / name, "full"))
        parts = (made.config, made.model, made.tokenizer, made.golden, made.golden_texts, made.card)
        write_bundle(tmp_path / "trained" / name, *parts)

    run = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *(tmp_path / "trained").iterdir()],
        env={**os.environ, **dict([setting])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ["23", "23"]


def test_float32_is_not_cut_to_ten_bits_anywhere(full_bundle: Bundle) -> None:
    torch.backends.cudnn.allow_tf32 = True  # torch's own default
    torch.backends.cuda.matmul.allow_tf32 = True

    Predictor(full_bundle)

    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_golden_tensors_of_a_small_model_are_small(tmp_path: Path) -> None:
    text = full_model().text
    assert text is not None
    parts = {
        "vision": vision(transformer=stack(128), image_size=64),
        "text": text.model_copy(update={"vocabulary_size": 512, "max_tokens": 24}),
        "video": None,
        "video_decoder": None,
    }

    write_untrained(
        tmp_path / "b", full_model(**parts), ImagePreprocessing(size=64), tokenizer(), SCALING
    )

    assert (tmp_path / "b" / "golden.safetensors").stat().st_size < 350_000


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
        (
            lambda golden: golden.update({"output/pooled": torch.ones(3, 5).bfloat16()}),
            r"pooled has shape \(3, 5\), found \(3, 32\)",
        ),
        (
            lambda golden: golden["input/image_mask"][0].fill_(False),
            "golden inputs do not run",
        ),
        (lambda golden: golden.pop("input/images"), "golden tensors lack input/images"),
        (lambda golden: golden.pop("input/actions"), "golden tensors lack input/actions"),
        (
            lambda golden: golden.update({"input/image_mask": torch.ones(3, 7) > 0}),
            r"golden input/image_mask is bool\[3, 7\]; allowed is bool\[3, 16\]",
        ),
        (
            lambda golden: golden.update({"input/image_mask": torch.ones(3, 16)}),
            r"golden input/image_mask is float32\[3, 16\]; allowed is bool\[3, 16\]",
        ),
        (
            lambda golden: golden.update({"input/aura": torch.ones(1)}),
            "the golden tensors have input/aura, which no head reads",
        ),
    ],
)
def test_golden_tensors_that_do_not_fit_the_model_are_named(
    fresh: Bundle, edit: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    edited = dict(fresh.golden)
    edit(edited)

    assert re.search(words, mismatch(replace(fresh, golden=edited)))


def test_outputs_that_are_not_finite_are_a_mismatch(fresh: Bundle) -> None:
    edited = {**fresh.golden, "output/pooled": torch.full((3, 32), float("nan"))}

    assert "pooled: cosine nan" in mismatch(replace(fresh, golden=edited))


def test_each_kind_of_numerics_has_its_own_tolerance(fresh: Bundle) -> None:
    with torch.no_grad():
        fresh.model.get_parameter("vision.embed.weight").mul_(1.002)

    with pytest.raises(GoldenMismatch, match="here in float32"):
        check_golden(Predictor(fresh))
    assert check_golden(Predictor(fresh, numerics=Numerics("bfloat16"))).min_cosine >= 0.999


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
        check_golden(Predictor(silent, numerics=Numerics("int8")))


def test_equal_seeds_make_equal_golden_tensors(full: Predictor) -> None:
    bundle = full.bundle
    again = make_golden(bundle, golden_inputs(bundle), bundle.golden_texts)

    assert again.keys() == bundle.golden.keys()
    for name, value in again.items():
        np.testing.assert_allclose(value.numpy(), bundle.golden[name].numpy(), atol=1e-5)


@pytest.mark.parametrize("lost", [True, False])
def test_a_device_that_is_lost_is_not_the_bundles_fault(
    bare: Predictor, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    def fail(*_: object, **named: object) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(Predictor, "embed_images", fail)
    monkeypatch.setattr(golden, "device_lost", lambda error, device: lost)

    with pytest.raises(torch.AcceleratorError if lost else GoldenMismatch, match="device-side"):
        check_golden(bare)
