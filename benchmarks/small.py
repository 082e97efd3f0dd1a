"""A small vision transformer with random weights, for where its speed is no question."""

from __future__ import annotations

from pathlib import Path

from tectum_cli.load.pictures import drawn
from tectum_core.architecture import ModelConfig, TransformerConfig, VisionConfig
from tectum_core.bundle import Repository
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.untrained import write_untrained

__all__ = ["MODEL", "NAME", "PICTURE", "SIDE", "publish_small", "write_small"]

NAME, SIDE = "small", 96
(PICTURE,) = drawn(SIDE, SIDE, 1, seed=0)
MODEL = ModelConfig(
    vision=VisionConfig(
        transformer=TransformerConfig(width=192, depth=6, heads=3, hidden=768),
        image_size=SIDE,
        patch_size=16,
    )
)


def write_small(folder: Path, seed: int = 0) -> None:
    """Write a bundle of it, with weights of this seed."""
    write_untrained(folder, MODEL, ImagePreprocessing(size=SIDE), seed=seed)


def publish_small(folder: Path) -> Path:
    """A repository that holds one."""
    write_small(folder / "bundle")
    Repository(folder / "repository").publish(folder / "bundle", NAME)
    return folder / "repository"
