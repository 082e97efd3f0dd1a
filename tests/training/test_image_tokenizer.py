"""The image tokenizer and its file: what is written is read again, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.bundles import IMAGES, stack, vision
from tests.training.tiny import batch, code_shape, image_tokenizer

from tectum_core.model import VisionTransformer, patchify
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.image_tokenizer import (
    FILE,
    CodeShape,
    ImageTokenizer,
    read_image_tokenizer,
    write_image_tokenizer,
)


def made(seed: int = 0) -> ImageTokenizer:
    torch.manual_seed(seed)
    return ImageTokenizer(VisionTransformer(vision()), CodeShape.model_validate(code_shape()))


def rewritten(path: Path, source: Path, **header: str) -> Path:
    """The same tensors under another header."""
    save_file(load_file(source), path, metadata=header)
    return path


# ---------------------------------------------------------------- codes


def test_each_patch_has_a_code_and_codes_are_painted_as_patches() -> None:
    tokenizer, pixels = made(), batch(3).earlier

    codes = tokenizer.codes(pixels)
    patches = tokenizer.decode(tokenizer.codebook.of(codes))

    assert codes.shape == (3, 16)
    assert codes.dtype == torch.int64
    assert patches.shape == patchify(pixels, 8).shape


def test_the_decoders_width_is_one_that_four_divides() -> None:
    with pytest.raises(ValidationError, match="one that 4 divides, not 6"):
        CodeShape(decoder=stack(width=6))


# ---------------------------------------------------------------- the file


def test_what_was_written_is_read_again_frozen(tmp_path: Path) -> None:
    tokenizer, path, pixels = made(), tmp_path / "codes.safetensors", batch(3).earlier
    write_image_tokenizer(path, tokenizer, IMAGES)

    read, config = read_image_tokenizer(path)

    assert config.images == IMAGES
    assert config.vision == vision()
    assert config.shape == tokenizer.shape
    assert torch.equal(read.codes(pixels), tokenizer.codes(pixels))
    assert not any(one.requires_grad for one in read.parameters())
    assert not read.training
    assert [one.name for one in tmp_path.iterdir()] == ["codes.safetensors"]


def test_reading_leaves_torchs_generator_where_it_was() -> None:
    path = image_tokenizer() / FILE
    torch.manual_seed(0)
    undisturbed = torch.rand(3)
    torch.manual_seed(0)

    read_image_tokenizer(path)

    assert torch.equal(torch.rand(3), undisturbed)


def test_a_file_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    for seed in (0, 1):
        write_image_tokenizer(path, made(seed), IMAGES)

    pixels = batch(3).earlier
    assert torch.equal(read_image_tokenizer(path)[0].encode(pixels), made(1).encode(pixels))


def test_a_file_says_how_its_pictures_were_made(tmp_path: Path) -> None:
    path, other = tmp_path / "codes.safetensors", ImagePreprocessing(size=32, mean=(0.1, 0.2, 0.3))

    write_image_tokenizer(path, made(), other)

    assert read_image_tokenizer(path)[1].images == other
    with safe_open(path, framework="pt") as file:
        assert set(file.metadata()) == {"config"}


def test_what_is_no_tokenizer_is_refused_and_named(tmp_path: Path) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("no tensors")
    bare = rewritten(tmp_path / "bare.safetensors", image_tokenizer() / FILE)
    known = image_tokenizer() / FILE
    strange = rewritten(tmp_path / "strange.safetensors", known, config='{"codes": 1}')

    with pytest.raises(
        ValueError, match=r"absent\.safetensors is not there; a finished run of a recipe"
    ):
        read_image_tokenizer(tmp_path / "absent.safetensors")
    for path in (text, bare, strange, tmp_path):
        with pytest.raises(ValueError, match=f"{path.name} is no image tokenizer"):
            read_image_tokenizer(path)


def test_tensors_of_another_shape_are_refused(tmp_path: Path) -> None:
    with safe_open(image_tokenizer() / FILE, framework="pt") as file:
        header = file.metadata()
    tensors = load_file(image_tokenizer() / FILE)
    tensors["codebook.vectors"] = tensors["codebook.vectors"][:3]
    path = tmp_path / "short.safetensors"
    save_file(tensors, path, metadata=header)

    with pytest.raises(ValueError, match=r"short\.safetensors: its tensors are not those"):
        read_image_tokenizer(path)
