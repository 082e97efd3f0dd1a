"""A folder cannot make its reader take more memory than its own files are long."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.bundles import bare_model, full_model, stack, vision
from tests.core.bundle.meter import Meter

from tectum_core.architecture import TransformerConfig, VisionConfig
from tectum_core.bundle import BundleError, read_bundle
from tectum_core.golden import GoldenMismatch, check_golden
from tectum_core.model import transformer
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.untrained import write_untrained


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        read_bundle(folder, "arm")
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("config.json", 2**24),
        ("tokenizer.json", 2**26),
        ("golden.safetensors", 2**27),
        ("README.md", 2**20),
    ],
)
def test_an_endless_file_is_refused_before_it_is_read(
    folder: Path, name: str, largest: int
) -> None:
    os.truncate(folder / name, largest + 1)

    assert refusal(folder) == f"arm: {name} is larger than {largest} bytes"


def edited(config: dict[str, Any], path: str, value: object) -> None:
    """One value put at a dotted path."""
    *parents, last = path.split(".")
    for parent in parents:
        config = config[parent]
    config[last] = value


BEYOND = [
    # Larger than memory may be, than torch can count, than an integer of the machine.
    *((path, size)
      for path in (
          "model.text.max_tokens",
          "model.text.vocabulary_size",
          "model.text.transformer.hidden",
          "model.vision.registers",
          "model.joint.width",
          "model.actions.max_steps",
          "model.latent_action.decoded_steps",
          "model.latent_action.bottleneck.codes",
      )
      for size in (8_000_000, 10**12, 10**30)),
    *((path, 10**9)
      for path in (
          "model.vision.transformer.depth",
          "model.fusion.transformer.depth",
          "model.latent_action.dynamics.transformer.depth",
      )),
    ("model.vision.stem", {"widths": [4, 4, 4], "blocks": 10**9}),
    ("model.vision.stem", {"widths": [4] * 10**5}),
    ("model.latent_action.bottleneck.levels", [1000] * 9),
    ("model.latent_action.dynamics", {"kind": "convolution", "widths": [8] * 10**5}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), BEYOND, ids=lambda value: str(value)[:60])
def test_a_configuration_that_asks_for_more_than_the_weights_hold_costs_no_memory(
    folder: Path, path: str, value: object
) -> None:
    config = json.loads((folder / "config.json").read_text())
    edited(config, path, value)
    (folder / "config.json").write_text(json.dumps(config))

    with Meter() as meter:
        refusal(folder)

    assert meter.largest < 2**20


def test_fixed_tables_are_counted_though_no_weights_hold_them(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for path, value in {
        "images.size": 4096,
        "model.vision.image_size": 4096,
        "model.vision.patch_size": 32,
        "model.video.image_size": 4096,
        "model.video.patch_size": 32,
        "model.video.positions": "sincos",
        "model.video.transformer.width": 1024,
    }.items():
        edited(config, path, value)
    (folder / "config.json").write_text(json.dumps(config))

    with Meter() as meter:
        assert f"allowed are {2**26}" in refusal(folder)

    assert meter.largest < 2**20


# ---------------------------------------------------------------- the golden check


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("images", (6000, 1, 1, 3)),
        ("images", (3, 1000, 1000, 3)),
        ("clip", (4000, 1, 1, 3)),
        ("actions", (9000, 8, 4)),
        ("states", (900_000, 3)),
    ],
)
def test_golden_inputs_that_no_such_model_has_are_refused_before_any_runs(
    folder: Path, name: str, form: tuple[int, ...]
) -> None:
    path = folder / "golden.safetensors"
    with safe_open(path, framework="pt") as file:
        texts = file.metadata()
    tensors = load_file(path)
    tensors[f"input/{name}"] = torch.zeros(form, dtype=tensors[f"input/{name}"].dtype)
    save_file(tensors, path, metadata=texts)
    predictor = Predictor(read_bundle(folder, "arm"))

    with Meter() as meter, pytest.raises(GoldenMismatch, match=f"golden input/{name} is "):
        check_golden(predictor)

    assert meter.largest == 0


def test_attention_to_many_patches_is_not_held_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformer, "_WEIGHTS", 2**20)
    trunk = vision(transformer=stack(4), image_size=64, patch_size=1)
    write_untrained(tmp_path / "b", bare_model(vision=trunk), ImagePreprocessing(size=64))
    predictor = Predictor(read_bundle(tmp_path / "b", "b"))
    whole = 2 * 64**4 * 4  # two heads, and each of 64·64 patches asks each, in float32

    with Meter() as meter:
        check_golden(predictor)

    assert meter.largest <= whole / 16


def test_the_check_of_a_sound_bundle_is_metered(folder: Path) -> None:
    predictor = Predictor(read_bundle(folder, "arm"))

    with Meter() as meter:  # or the tests above would prove nothing
        check_golden(predictor)

    assert meter.largest >= 3 * 3 * 32 * 32 * 4


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.vision.patch_size", 1, "1048576 patches; allowed are at most 32768"),
        ("model.video.frames", 2**13, "patches; allowed are at most 32768"),
        ("model.text.max_tokens", 8193, "less than or equal to 8192"),
        ("model.actions.max_steps", 8193, "less than or equal to 8192"),
        ("model.vision.transformer.hidden", 2**22, "vision: a layer of 71303168 numbers"),
        ("model.video.transformer.hidden", 2**23, "video: a layer of "),
        ("model.pixel_decoder.transformer.hidden", 2**22, "vision decoder: a layer of "),
        ("model.text.transformer.hidden", 2**22, "text: a layer of "),
        ("model.text.vocabulary_size", 2**24, "text.vocabulary_size: a layer of "),
        ("model.fusion.transformer.hidden", 2**21, "fusion: a layer of "),
        ("model.latent_action.dynamics.transformer.hidden", 2**22, "latent_action: a layer of "),
        (
            "model.actions",
            {"dimensions": 64, "max_steps": 2048, "bins": {"count": 1024}},
            "actions.bins: a layer of 134217728 numbers",
        ),
        (
            "model.latent_action.dynamics",
            {"kind": "convolution", "widths": [2**18, 8]},
            "latent_action: a layer of 67108864 numbers",
        ),
        (
            "model.vision.stem",
            {"widths": [2**18, 4, 4]},
            "vision.stem: a layer of 67108864 numbers",
        ),
    ],
)
def test_a_configuration_whose_layers_fill_memory_is_refused(
    folder: Path, path: str, value: object, words: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    if path == "model.vision.patch_size":
        edited(config, "model.vision.image_size", 1024)
    edited(config, path, value)
    (folder / "config.json").write_text(json.dumps(config))

    assert words in refusal(folder)


@pytest.mark.parametrize(
    ("width", "side", "patch", "frames"),
    [
        (1536, 518, 14, 1),  # DINOv2's giant
        (1152, 512, 16, 1),  # SigLIP 2
        (1280, 1024, 16, 1),  # SAM's huge
        (1024, 224, 16, 16),  # VideoMAE's large
        (1408, 384, 16, 64),  # V-JEPA 2's giant
    ],
)
def test_published_models_fit(width: int, side: int, patch: int, frames: int) -> None:
    stacked = TransformerConfig(width=width, depth=1, heads=8, hidden=4 * width)
    time: dict[str, Any] = {"frames": frames, "tubelet_frames": 2, "frame_interval": 0.1}

    trunk = VisionConfig(
        transformer=stacked, image_size=side, patch_size=patch, **(time if frames > 1 else {})
    )

    assert full_model(**{"vision" if frames == 1 else "video": trunk})


# ---------------------------------------------------------------- nothing stays mapped


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_no_file_of_a_bundle_stays_mapped(folder: Path) -> None:
    bundle = read_bundle(folder, "arm")

    assert str(folder) not in Path("/proc/self/maps").read_text()
    assert bundle.golden


def test_a_sound_bundle_is_built_in_memory(folder: Path) -> None:
    with Meter() as meter:  # or the tests above would prove nothing
        read_bundle(folder, "arm")

    assert meter.largest >= 32 * 192 * 4
