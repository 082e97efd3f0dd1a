"""A space is the hash of the path that makes its vectors, and of nothing beside it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.bundles import IMAGES, full_model, stack

from tectum_core.architecture import TransformerDynamicsConfig, VqBottleneck
from tectum_core.bundle import Bundle, TrainingSummary, read_bundle
from tectum_core.bundle.spaces import spaces_of
from tectum_core.model import PerceptionModel
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.tokenizer import Tokenizer

ALL = {"joint", "pooled", "tokens", "clip_pooled", "clip_tokens", "latent_action"}
IMAGE_PATH = {"joint", "pooled", "tokens"}
CLIP_PATH = {"clip_pooled", "clip_tokens"}


def ids(bundle: Bundle) -> dict[str, str]:
    found = spaces_of(bundle.config, bundle.model, bundle.tokenizer)
    return {space.name: space.space_id for space in found}


def moved(before: Bundle, after: Bundle) -> set[str]:
    """The spaces whose id is another."""
    old, new = ids(before), ids(after)
    assert old.keys() == new.keys()
    return {name for name in old if old[name] != new[name]}


@pytest.fixture
def nudged(full_folder: Path) -> Callable[[str], Bundle]:
    """The full bundle with one weight of a part changed by the least that can be."""

    def nudge(prefix: str) -> Bundle:
        bundle = read_bundle(full_folder, "full")
        with torch.no_grad():
            key, weight = next(
                (k, p) for k, p in bundle.model.named_parameters() if k.startswith(prefix)
            )
            first = weight.view(-1)[:1]
            first.copy_(torch.nextafter(first, first + 1))
        assert key.startswith(prefix)
        return bundle

    return nudge


@pytest.mark.parametrize(
    ("part", "spaces"),
    [
        ("vision.embed", IMAGE_PATH),
        ("vision.transformer.blocks.1.mlp", IMAGE_PATH),
        ("text.", {"joint"}),
        ("joint.image", {"joint"}),
        ("joint.text", {"joint"}),
        ("video.", CLIP_PATH),
        ("latent_action.dynamics.inverse", {"latent_action"}),
        ("latent_action.bottleneck", {"latent_action"}),
        ("pixel_decoder.", set()),
        ("video_decoder.", set()),
        ("fusion.", set()),
    ],
)
def test_one_weight_moves_the_spaces_on_its_path_and_no_other(
    full_bundle: Bundle, nudged: Callable[[str], Bundle], part: str, spaces: set[str]
) -> None:
    assert moved(full_bundle, nudged(part)) == spaces


@pytest.mark.parametrize(
    "change", [{"interpolation": "bicubic"}, {"mean": (0.4, 0.5, 0.5)}], ids=str
)
def test_preprocessing_moves_every_space_that_pictures_enter(
    full_bundle: Bundle, change: dict[str, object]
) -> None:
    images = ImagePreprocessing.model_validate({**IMAGES.model_dump(), **change})
    config = full_bundle.config.model_copy(update={"images": images})

    assert moved(full_bundle, replace(full_bundle, config=config)) == ALL


def test_the_tokenizer_moves_the_space_that_texts_enter(full_bundle: Bundle) -> None:
    other = Tokenizer.train(["slowly quickly"] * 5, 60)

    assert moved(full_bundle, replace(full_bundle, tokenizer=other)) == {"joint"}


def test_training_numerics_card_and_names_move_nothing(full_bundle: Bundle) -> None:
    config = full_bundle.config.model_copy(
        update={
            "training": TrainingSummary(recipe="x", data="y", steps=9, seed=9, commit="c"),
            "tolerances": {},
        }
    )

    other = replace(full_bundle, config=config, card="# Other", name="other", version="0" * 16)

    assert moved(full_bundle, other) == set()


def test_a_configuration_on_the_path_moves_its_spaces_at_equal_weights(
    full_bundle: Bundle,
) -> None:
    trunk = full_bundle.config.model.vision
    steeper = trunk.transformer.model_copy(update={"activation": "quick_gelu"})
    model = full_bundle.config.model.model_copy(
        update={"vision": trunk.model_copy(update={"transformer": steeper})}
    )
    config = full_bundle.config.model_copy(update={"model": model})

    assert moved(full_bundle, replace(full_bundle, config=config)) == IMAGE_PATH


def test_a_latent_action_that_reads_the_trunk_moves_with_it(full_bundle: Bundle) -> None:
    latent = full_bundle.config.model.latent_action
    assert latent is not None
    dynamics = TransformerDynamicsConfig(transformer=stack(), source="trunk")
    reading = latent.model_copy(update={"dynamics": dynamics})
    architecture = full_bundle.config.model.model_copy(update={"latent_action": reading})
    config = full_bundle.config.model_copy(update={"model": architecture})
    model = PerceptionModel(architecture)
    before = {s.name: s.space_id for s in spaces_of(config, model, None)}
    with torch.no_grad():
        model.get_parameter("vision.embed.weight")[0, 0] += 1

    after = {s.name: s.space_id for s in spaces_of(config, model, None)}

    assert before["latent_action"] != after["latent_action"]


def test_a_codebook_is_part_of_the_latent_space() -> None:
    latent = full_model().latent_action
    assert latent is not None
    config = full_model(latent_action=latent.model_copy(update={"bottleneck": VqBottleneck()}))
    model = PerceptionModel(config)

    keys = model.latent_action.state_dict() if model.latent_action else {}

    assert any("codebook" in key for key in keys if not key.endswith("initted"))


def test_every_space_has_its_own_id_of_sixteen_digits(full_bundle: Bundle) -> None:
    found = ids(full_bundle)

    assert found.keys() == ALL
    assert len(set(found.values())) == len(ALL)
    assert all(len(i) == 16 and set(i) <= set("0123456789abcdef") for i in found.values())


def test_equal_trunks_in_unequal_bundles_share_their_spaces(
    full_bundle: Bundle, bare_folder: Path
) -> None:
    bare = read_bundle(bare_folder, "bare")
    bare.model.vision.load_state_dict(full_bundle.model.vision.state_dict())

    shared = ids(bare)

    assert shared == {name: ids(full_bundle)[name] for name in ("pooled", "tokens")}


def test_widths_and_truncations_are_told(full_bundle: Bundle) -> None:
    spaces = {space.name: space for space in full_bundle.spaces}

    assert {name: space.width for name, space in spaces.items()} == {
        "joint": 16,
        "pooled": 32,
        "tokens": 32,
        "clip_pooled": 32,
        "clip_tokens": 32,
        "latent_action": 8,
    }
    assert spaces["joint"].truncations == (8,)
    assert spaces["pooled"].truncations == ()
