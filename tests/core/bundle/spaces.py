"""Bundles in memory, and the ids of their spaces."""

from tests.bundles import (
    IMAGES,
    SCALING,
    tokenizer,
)

from tectum_core.architecture import (
    ModelConfig,
)
from tectum_core.bundle import Bundle, BundleConfig, TrainingSummary
from tectum_core.bundle.spaces import spaces_of
from tectum_core.model import PerceptionModel


def ids(bundle: Bundle) -> dict[str, str]:
    found = spaces_of(bundle.config, bundle.model, bundle.tokenizer)
    return {space.name: space.space_id for space in found}


def moved(before: Bundle, after: Bundle) -> set[str]:
    """The spaces whose id is another."""
    old, new = ids(before), ids(after)
    assert old.keys() == new.keys()
    return {name for name in old if old[name] != new[name]}


def in_memory(model: ModelConfig) -> Bundle:
    """A bundle of random weights that was never written."""
    training = TrainingSummary(recipe="", data="", steps=0, seed=0, commit="")
    config = BundleConfig(model=model, images=IMAGES, actions=SCALING, training=training)
    network = PerceptionModel(model).eval().requires_grad_(False)
    if network.world_model is not None:  # at first it says that nothing moves
        network.world_model.change.weight.normal_(std=0.1)
    return Bundle("made", "", config, network, tokenizer(), {}, (), "")
