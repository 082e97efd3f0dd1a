"""Bundles with random weights: the shapes of real models for benchmarks and tests.

An untrained bundle is whole (golden outputs, spaces, card) and says what it is.
"""

from __future__ import annotations

from pathlib import Path

import torch

from tectum_core.architecture import ModelConfig
from tectum_core.bundle import Bundle, BundleConfig, TrainingSummary, write_bundle
from tectum_core.golden import make_golden
from tectum_core.golden_inputs import golden_inputs
from tectum_core.model import PerceptionModel
from tectum_core.preprocess import ActionScaling, ImagePreprocessing
from tectum_core.tokenizer import Tokenizer

__all__ = ["write_untrained"]

_TEXTS = ("open the drawer", "close the door", "push the red button")


def write_untrained(
    folder: Path,
    model: ModelConfig,
    images: ImagePreprocessing,
    tokenizer: Tokenizer | None = None,
    actions: ActionScaling | None = None,
    seed: int = 0,
) -> str:
    """Write a bundle of random weights into `folder` and give its version.

    Args:
        folder: must not exist yet.
        model: the architecture.
        images: preprocessing.
        tokenizer: required with a text trunk.
        actions: required with an action path.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    config = BundleConfig(
        model=model,
        images=images,
        actions=actions,
        training=TrainingSummary(recipe="", data="none", steps=0, seed=seed, commit=""),
    )
    network = PerceptionModel(model).eval()
    texts = _TEXTS if model.text is not None else ()
    draft = Bundle("untrained", "", config, network, tokenizer, {}, texts, "")
    golden = make_golden(draft, golden_inputs(draft), texts)
    card = "# Untrained\n\nRandom weights, for benchmarks and tests. Its vectors mean nothing.\n"
    return write_bundle(folder, config, network, tokenizer, golden, texts, card)
