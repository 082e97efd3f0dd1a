"""Reading and writing the folder. No pickle: JSON, safetensors, Markdown.

    config.json          architecture, preprocessing, training summary
    model.safetensors    weights
    tokenizer.json       Hugging Face tokenizers; only with a text trunk
    golden.safetensors   a few inputs and every head's outputs
    README.md            the model card

A bundle's version is the hash of these files' content.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tectum_core.architecture import ModelConfig
from tectum_core.bundle.config import BundleConfig
from tectum_core.bundle.spaces import Space, spaces_of
from tectum_core.model import PerceptionModel
from tectum_core.model.outline import outline
from tectum_core.model.world_model import older_layout
from tectum_core.tokenizer import Tokenizer

__all__ = [
    "FILES",
    "Bundle",
    "BundleError",
    "Examined",
    "content_version",
    "examine_bundle",
    "largest_size",
    "memory_of",
    "read_bundle",
    "read_examined",
    "write_bundle",
]

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
GOLDEN, CARD = "golden.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, TOKENIZER, GOLDEN, CARD)
"""Every file of a bundle; what the weights may be like stands in the first."""
_LARGEST = {CONFIG: 2**24, TOKENIZER: 2**26, GOLDEN: 2**27, CARD: 2**20}
"""Bytes; weights are as large as the configuration says."""
_LARGEST_HEADER = 2**26
"""Bytes of what a safetensors file says about its tensors."""
_LARGEST_TABLES = 2**26
"""Bytes of what the architecture computes when it is built, such as fixed positions."""


class BundleError(ValueError):
    """A folder that is no sound bundle; says which file and what is wrong with it."""


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory: configuration, model on the CPU in float32, tokenizer, golden tensors."""

    name: str
    """Name in the repository."""
    version: str
    """Hash of the content, 16 hex digits."""
    config: BundleConfig
    """`config.json`."""
    model: PerceptionModel
    """In evaluation mode."""
    tokenizer: Tokenizer | None
    """None without a text trunk."""
    golden: dict[str, Tensor]
    """Inputs and outputs; empty only while a bundle is being made."""
    golden_texts: tuple[str, ...]
    """The texts among the golden inputs."""
    card: str
    """Markdown."""
    told_spaces: tuple[Space, ...] = ()
    """Of the weights as they were read, where `model` has others made of them; empty: of `model`'s
    own."""

    @cached_property
    def spaces(self) -> tuple[Space, ...]:
        """The spaces of this bundle's vectors."""
        return self.told_spaces or spaces_of(self.config, self.model, self.tokenizer)


def write_bundle(
    folder: Path,
    config: BundleConfig,
    model: PerceptionModel,
    tokenizer: Tokenizer | None,
    golden: dict[str, Tensor],
    golden_texts: tuple[str, ...],
    card: str,
) -> str:
    """Write a bundle into `folder`, which must not exist yet, and give its version.

    The folder appears whole or not at all.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        draft = Path(scratch) / "bundle"
        draft.mkdir()
        (draft / CONFIG).write_text(config.model_dump_json(indent=2) + "\n", "utf-8")
        save_file(_plain(model.state_dict()), draft / WEIGHTS)
        if tokenizer is not None:
            (draft / TOKENIZER).write_text(tokenizer.json, "utf-8")
        save_file(_plain(golden), draft / GOLDEN, metadata={"texts": json.dumps(golden_texts)})
        (draft / CARD).write_text(card, "utf-8")
        for name in (WEIGHTS, GOLDEN):  # safetensors lets nobody but the owner read them
            (draft / name).chmod((draft / CONFIG).stat().st_mode)
        version = content_version(draft)
        draft.replace(folder)
    return version


@dataclass(frozen=True)
class Examined:
    """A bundle that is sound as far as its files say, and of it what is small beside the weights.

    What is wrong with it yet, its golden outputs would tell.
    """

    folder: Path
    name: str
    version: str
    config: BundleConfig
    tokenizer: Tokenizer | None
    golden: dict[str, Tensor]
    golden_texts: tuple[str, ...]
    card: str
    """Each as in `Bundle`."""


def read_bundle(folder: Path, name: str, version: str | None = None) -> Bundle:
    """Read and check a bundle.

    Args:
        folder: where it lies.
        name: what it is called.
        version: what its content must hash to; None: whatever it does.

    Raises:
        BundleError: a file is missing, unreadable, corrupt, too large or not what the
            configuration says.
    """
    return read_examined(examine_bundle(folder, name, version))


def examine_bundle(folder: Path, name: str, version: str | None = None) -> Examined:
    """The first half of `read_bundle`: all that needs no memory for the weights.

    Raises:
        BundleError: as there; but weights that are not finite are found as they are read.
    """
    try:
        return _examine(folder, name, version)
    except OSError as error:
        raise BundleError(f"{name}: {error}") from error


def read_examined(found: Examined) -> Bundle:
    """The other half: the weights.

    Raises:
        BundleError: they are unreadable, not finite, or were changed since.
    """
    try:
        model = _read_model(found.folder, found.name, found.config.model)
    except OSError as error:
        raise BundleError(f"{found.name}: {error}") from error
    return Bundle(
        name=found.name,
        version=found.version,
        config=found.config,
        model=model.eval().requires_grad_(False),
        tokenizer=found.tokenizer,
        golden=found.golden,
        golden_texts=found.golden_texts,
        card=found.card,
    )


def _examine(folder: Path, name: str, version: str | None) -> Examined:
    for required in (CONFIG, WEIGHTS, GOLDEN, CARD):
        if not (folder / required).is_file():
            raise BundleError(f"{name}: {required} is missing")
    for limited, largest in _LARGEST.items():
        if (folder / limited).is_file() and (folder / limited).stat().st_size > largest:
            raise BundleError(f"{name}: {limited} is larger than {largest} bytes")
    found = content_version(folder)
    if version is not None and found != version:
        raise BundleError(f"{name}: the content hashes to {found}, not to its version {version}")
    config = _read_config(folder, name)
    tokenizer = _read_tokenizer(folder, name, config)
    _check_shapes(folder / WEIGHTS, name, config.model)
    golden, metadata = _read_tensors(folder / GOLDEN, name)
    return Examined(
        folder=folder,
        name=name,
        version=found,
        config=config,
        tokenizer=tokenizer,
        golden=golden,
        golden_texts=_read_texts(metadata, name),
        card=_read_card(folder, name),
    )


def largest_size(folder: Path, file: str, name: str) -> int:
    """How long a file of a bundle may be, bytes.

    Args:
        folder: holds the bundle's `config.json` already, if weights are asked about.
        file: one of `FILES`.
        name: what the bundle is called.

    Raises:
        BundleError: the configuration is missing or unsound.
    """
    if file != WEIGHTS:
        return _LARGEST[file]
    shapes = _expected_shapes(_read_config(folder, name).model, name)
    # Eight bytes a number are as many as any of its types has.
    return 8 * sum(math.prod(shape) for shape in shapes.values()) + _LARGEST_HEADER


def memory_of(folder: Path, name: str) -> int:
    """Bytes that a bundle's weights and tables take once it is read, by its configuration alone.

    Raises:
        BundleError: the configuration is missing or unsound.
    """
    try:
        outline = _outline(_read_config(folder, name).model, name)
    except OSError as error:
        raise BundleError(f"{name}: {error}") from error
    return sum(t.numel() * t.element_size() for t in (*outline.parameters(), *outline.buffers()))


def content_version(folder: Path) -> str:
    """SHA-256 over each file's name and content, shortened to 16 hex digits."""
    total = hashlib.sha256()
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        total.update(name.encode() + b"\0" + digest.digest())
    return total.hexdigest()[:16]


def _read_config(folder: Path, name: str) -> BundleConfig:
    if not (folder / CONFIG).is_file():
        raise BundleError(f"{name}: {CONFIG} is missing")
    if (folder / CONFIG).stat().st_size > _LARGEST[CONFIG]:
        raise BundleError(f"{name}: {CONFIG} is larger than {_LARGEST[CONFIG]} bytes")
    try:
        return BundleConfig.model_validate_json((folder / CONFIG).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise BundleError(f"{name}: {CONFIG}: {where}: {first['msg']}") from error


def _read_tokenizer(folder: Path, name: str, config: BundleConfig) -> Tokenizer | None:
    path = folder / TOKENIZER
    if config.model.text is None:
        return None
    if not path.is_file():
        raise BundleError(f"{name}: {TOKENIZER} is missing, and the model has a text trunk")
    try:
        tokenizer = Tokenizer(path.read_text("utf-8"))
    except ValueError as error:
        raise BundleError(f"{name}: {TOKENIZER}: {error}") from error
    if tokenizer.vocabulary_size > config.model.text.vocabulary_size:
        raise BundleError(
            f"{name}: the tokenizer's ids go up to {tokenizer.vocabulary_size - 1}, "
            f"the model has only {config.model.text.vocabulary_size} entries"
        )
    return tokenizer


def _read_tensors(path: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            # Copies: what stays mapped kills the process if somebody cuts the file short.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{name}: {path.name}: {error}") from error


def _read_texts(metadata: dict[str, str], name: str) -> tuple[str, ...]:
    try:
        texts = json.loads(metadata.get("texts", "[]"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name}: {GOLDEN}: its texts are no JSON: {error}") from error
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BundleError(f"{name}: {GOLDEN}: its texts must be a list of strings")
    return tuple(texts)


def _read_card(folder: Path, name: str) -> str:
    try:
        return (folder / CARD).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{name}: {CARD}: {error}") from error


def _check_shapes(path: Path, name: str, config: ModelConfig) -> None:
    """Whether the weights are those of the architecture, by their file's header."""
    expected = _expected_shapes(config, name)
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{name}: {path.name}: {error}") from error
    if (why := older_layout(found)) is not None:
        raise BundleError(f"{name}: {WEIGHTS} {why}")
    for key in sorted(expected.keys() - found.keys()):
        raise BundleError(f"{name}: {WEIGHTS} lacks {key}")
    for key in sorted(found.keys() - expected.keys()):
        raise BundleError(f"{name}: {WEIGHTS} has {key}, which the architecture does not")
    for key, shape in found.items():
        if shape != expected[key]:
            raise BundleError(
                f"{name}: {key} has shape {shape}, the architecture wants {expected[key]}"
            )


def _read_model(folder: Path, name: str, config: ModelConfig) -> PerceptionModel:
    """The model with its weights; no memory is taken for it before the file is known to fit."""
    _check_shapes(folder / WEIGHTS, name, config)  # it may have been changed since it was examined
    weights, _ = _read_tensors(folder / WEIGHTS, name)
    for key, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{name}: {key} has numbers that are not finite")
    model = PerceptionModel(config)
    model.load_state_dict(weights)
    return model


def _expected_shapes(config: ModelConfig, name: str) -> dict[str, tuple[int, ...]]:
    """Of every tensor that the weights must hold."""
    empty = _outline(config, name)
    shapes = {key: tuple(tensor.shape) for key, tensor in empty.state_dict().items()}
    tables = sum(b.numel() * b.element_size() for k, b in empty.named_buffers() if k not in shapes)
    if tables > _LARGEST_TABLES:
        raise BundleError(
            f"{name}: {CONFIG}: tables of {tables} bytes; allowed are {_LARGEST_TABLES}"
        )
    return shapes


def _outline(config: ModelConfig, name: str) -> PerceptionModel:
    """The model without memory.

    Raises:
        BundleError: no such model can be built.
    """
    try:
        return outline(config)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:  # sizes beyond 64 bits
        raise BundleError(f"{name}: {CONFIG}: no such model can be built: {error}") from error


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, none sharing memory: what safetensors takes."""
    return {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
