"""A bundle is examined before its weights are in memory, and read in two halves as in one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.core.bundle.meter import Meter

from tectum_core.bundle import BundleError, examine_bundle, read_bundle, read_examined


def lose_card(folder: Path) -> None:
    (folder / "README.md").unlink()


def break_configuration(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def break_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def cut_weights(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1000)


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize(
    "harm", [lose_card, break_configuration, break_tokenizer, cut_weights, empty_weights]
)
def test_what_is_wrong_with_the_files_is_told_before_the_weights_are_read(
    folder: Path, harm: Callable[[Path], None]
) -> None:
    harm(folder)

    with pytest.raises(BundleError) as examined:
        examine_bundle(folder, "arm")
    with pytest.raises(BundleError) as read:
        read_bundle(folder, "arm")

    assert str(examined.value) == str(read.value)


def test_examining_holds_the_golden_tensors_and_no_weights(folder: Path) -> None:
    with Meter() as examining:
        found = examine_bundle(folder, "arm")
    largest = max(tensor.nbytes for tensor in found.golden.values())

    with Meter() as reading:
        bundle = read_examined(found)

    assert examining.largest <= largest
    assert reading.largest >= max(weights.nbytes for weights in bundle.model.parameters())
    assert (bundle.version, bundle.card) == (found.version, found.card)


def test_weights_that_were_changed_since_are_refused(folder: Path) -> None:
    found = examine_bundle(folder, "arm")
    empty_weights(folder)

    with pytest.raises(BundleError, match="lacks"):
        read_examined(found)
