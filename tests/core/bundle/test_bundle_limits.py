"""A folder cannot make its reader take more memory than its own files are long."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tectum_core.bundle import BundleError, read_bundle


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


class Meter(TorchDispatchMode):
    """The largest tensor that was made in memory, bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.device.type != "meta":
            self.largest = max(self.largest, made.numel() * made.element_size())
        return made


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


@pytest.mark.parametrize("patch_size", [4, 1])
def test_fixed_tables_are_counted_though_no_weights_hold_them(
    folder: Path, patch_size: int
) -> None:
    config = json.loads((folder / "config.json").read_text())
    for path, value in {
        "images.size": 4096,
        "model.vision.image_size": 4096,
        "model.vision.patch_size": patch_size,
        "model.vision.positions": "sincos",
        "model.video": None,
        "model.video_decoder": None,
    }.items():
        edited(config, path, value)
    (folder / "config.json").write_text(json.dumps(config))

    with Meter() as meter:
        assert f"allowed are {2**26}" in refusal(folder)

    assert meter.largest < 2**20


def test_a_sound_bundle_is_built_in_memory(folder: Path) -> None:
    with Meter() as meter:  # or the tests above would prove nothing
        read_bundle(folder, "arm")

    assert meter.largest >= 32 * 192 * 4
