"""A space is the hash of the path that makes its vectors, and of nothing beside it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.bundles import (
    IMAGES,
    SCALING,
    clip,
    full_model,
    picture,
    stack,
    vision,
    world_model,
)
from tests.core.bundle.spaces import ids, in_memory, moved

from tectum_core.architecture import (
    ContinuousBottleneck,
    ConvolutionDynamicsConfig,
    FsqBottleneck,
    JointConfig,
    LatentActionConfig,
    ModelConfig,
    StemConfig,
    TransformerDynamicsConfig,
    VqBottleneck,
)
from tectum_core.bundle import Bundle, TrainingSummary, read_bundle
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.rollouts import RolloutRequest
from tectum_core.tokenizer import Tokenizer

ALL = {
    "joint", "pooled", "tokens", "clip_pooled", "clip_tokens", "latent_action", "world_latent",
}  # fmt: skip
IMAGE_PATH = {"joint", "pooled", "tokens", "world_latent"}
CLIP_PATH = {"clip_pooled", "clip_tokens"}


def latent(**changes: object) -> LatentActionConfig:
    """Latent actions as the full model has them, but for `changes`."""
    found = full_model().latent_action
    assert found is not None
    return LatentActionConfig.model_validate({**dict(found), **changes})


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
        ("joint.log_scale", set()),
        ("latent_action.dynamics.positions", {"latent_action"}),
        ("latent_action.dynamics.embed_pair", {"latent_action"}),
        ("latent_action.dynamics.queries", {"latent_action"}),
        ("latent_action.dynamics.inverse.", {"latent_action"}),
        ("latent_action.dynamics.inverse_norm", {"latent_action"}),
        ("latent_action.bottleneck", {"latent_action"}),
        ("latent_action.dynamics.embed_earlier", set()),
        ("latent_action.dynamics.embed_code", set()),
        ("latent_action.dynamics.forward_dynamics", set()),
        ("latent_action.dynamics.forward_norm", set()),
        ("latent_action.dynamics.paint", set()),
        ("latent_action.action_decoder", set()),
        ("pixel_decoder.", set()),
        ("video_decoder.", set()),
        ("fusion.", set()),
        ("world_model.embed", {"world_latent"}),
        ("world_model.blocks", {"world_latent"}),
        ("world_model.change", {"world_latent"}),
        ("world_model.decoder", set()),
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


def test_an_entry_of_the_codebook_moves_the_latent_space_and_its_averages_do_not() -> None:
    bundle = in_memory(full_model(latent_action=latent(bottleneck=VqBottleneck())))
    before = ids(bundle)
    assert bundle.model.latent_action is not None
    codebook = bundle.model.latent_action.get_submodule("bottleneck.quantise._codebook")

    codebook.get_buffer("embed_avg")[0, 2, 5] += 1
    codebook.get_buffer("cluster_size")[0, 2] += 1
    assert ids(bundle) == before
    codebook.get_buffer("embed")[0, 2, 5] += 1
    assert {name for name, found in ids(bundle).items() if found != before[name]} == {
        "latent_action"
    }


PICTURES = [picture(seed) for seed in range(3)]


def vectors(bundle: Bundle) -> dict[str, list[NDArray[np.float32]]]:
    """Of fixed inputs, by space."""
    predictor = Predictor(bundle)
    texts = ("open the drawer", "close the door")
    return {
        "joint": [predictor.embed_images(PICTURES, "joint"), predictor.embed_texts(texts)],
        "pooled": [predictor.embed_images(PICTURES, "pooled")],
        "tokens": [predictor.embed_images(PICTURES, "tokens")],
        "clip_pooled": [predictor.embed_clips([clip()], "pooled")],
        "clip_tokens": [predictor.embed_clips([clip()], "tokens")],
        "latent_action": [predictor.latent_actions(PICTURES[:2], PICTURES[1:]).vectors],
        "world_latent": [rolled_out(predictor)],
    }


def rolled_out(predictor: Predictor) -> NDArray[np.float32]:
    """Two steps after three pictures."""
    world = predictor.model.world_model
    assert world is not None
    seen = predictor.embed_images(PICTURES, world.config.latents)[None]
    done = np.ones((1, 8, 4), np.float32)
    return predictor.rollout(RolloutRequest(seen, 2, done, done)).latents


OTHERS = {
    "convolutions": full_model(
        vision=vision(transformer=stack(), pooling="attention"),
        joint=JointConfig(width=16, bias=-10.0),
        latent_action=latent(
            dynamics=ConvolutionDynamicsConfig(widths=(16, 32)), bottleneck=ContinuousBottleneck()
        ),
    ),
    "on the trunk": full_model(
        vision=vision(stem=StemConfig(widths=(4, 8, 12), blocks=1, groups=2)),
        latent_action=latent(
            dynamics=TransformerDynamicsConfig(transformer=stack(), patch_size=4, source="trunk"),
            bottleneck=ContinuousBottleneck(),
        ),
    ),
}
ANOTHER = ("vision.", "joint.", "latent_action.")
"""Parts of these that the first model has otherwise."""


@pytest.mark.parametrize(
    ("model", "parts"),
    [(full_model(), ("",)), *((model, ANOTHER) for model in OTHERS.values())],
    ids=["transformers", *OTHERS],
)
def test_an_id_moves_with_a_weight_exactly_if_the_vectors_do(
    model: ModelConfig, parts: tuple[str, ...]
) -> None:
    bundle = in_memory(model)
    before, known = vectors(bundle), ids(bundle)
    weights = {k: w for k, w in bundle.model.state_dict().items() if k.startswith(parts)}
    assert {k.partition(".")[0] for k in weights} >= {part.strip(".") for part in parts} - {""}

    for key, weight in weights.items():
        if not weight.is_floating_point():
            continue
        kept = weight.clone()
        weight.add_(torch.randn(weight.shape))
        after, found = vectors(bundle), ids(bundle)
        weight.copy_(kept)
        changed = {
            name
            for name in ALL
            if any(not np.array_equal(a, b) for a, b in zip(after[name], before[name], strict=True))
        }
        assert {name for name in ALL if found[name] != known[name]} == changed, key


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("joint", {"initial_scale": 5.0, "bias": -1.0, "truncations": ()}),
        (
            "latent_action",
            {"interval": 0.5, "tolerance": 0.1, "decoded_steps": 1, "target": "latents"},
        ),
        ("video", {"frame_interval": 0.7}),
        ("pixel_decoder", {"mask_ratio": 0.5}),
        ("actions", {"mask_ratio": 0.25}),
        ("world_model", {"interval": 0.7, "max_steps": 2, "decoder": None}),
    ],
)
def test_settings_that_change_no_vector_move_nothing(
    full_bundle: Bundle, part: str, change: dict[str, object]
) -> None:
    architecture = full_bundle.config.model
    other = getattr(architecture, part).model_copy(update=change)
    config = full_bundle.config.model_copy(
        update={"model": architecture.model_copy(update={part: other})}
    )

    assert moved(full_bundle, replace(full_bundle, config=config)) == set()


@pytest.mark.parametrize(
    ("change", "spaces"), [({"pooling": "attention"}, {"joint", "pooled"}), ({"registers": 1}, ALL)]
)
def test_how_a_trunk_pools_is_no_matter_to_its_tokens(
    full_bundle: Bundle, change: dict[str, object], spaces: set[str]
) -> None:
    architecture = full_bundle.config.model
    trunk = architecture.vision.model_copy(update=change)
    config = full_bundle.config.model_copy(
        update={"model": architecture.model_copy(update={"vision": trunk})}
    )

    found = moved(full_bundle, replace(full_bundle, config=config))

    assert found == spaces & IMAGE_PATH


def test_the_scale_of_the_actions_that_it_reads_moves_a_world_models_space(
    full_bundle: Bundle,
) -> None:
    wider = SCALING.model_copy(update={"standard_deviation": (2.0,) * 4})
    config = full_bundle.config.model_copy(update={"actions": wider})

    assert moved(full_bundle, replace(full_bundle, config=config)) == {"world_latent"}


def test_how_a_trunk_pools_matters_to_a_world_model_of_pooled_vectors() -> None:
    bundle = in_memory(full_model(world_model=world_model(latents="pooled")))
    architecture = bundle.config.model
    trunk = architecture.vision.model_copy(update={"pooling": "attention"})
    config = bundle.config.model_copy(
        update={"model": architecture.model_copy(update={"vision": trunk})}
    )

    assert moved(bundle, replace(bundle, config=config)) == {"joint", "pooled", "world_latent"}


def test_whether_a_pair_or_its_change_is_said_moves_the_space_of_latent_actions(
    full_bundle: Bundle,
) -> None:
    architecture = full_bundle.config.model
    assert architecture.latent_action is not None
    other = architecture.latent_action.model_copy(update={"says": "change"})
    config = full_bundle.config.model_copy(
        update={"model": architecture.model_copy(update={"latent_action": other})}
    )

    assert moved(full_bundle, replace(full_bundle, config=config)) == {"latent_action"}


def test_kinds_of_bottleneck_are_told_apart_though_all_else_is_at_its_default(
    full_bundle: Bundle,
) -> None:
    kinds = (ContinuousBottleneck(), FsqBottleneck(), VqBottleneck())
    configs = [
        in_memory(full_model(latent_action=latent(bottleneck=kind))).config for kind in kinds
    ]

    found = {ids(replace(full_bundle, config=config))["latent_action"] for config in configs}

    assert len(found) == 3  # at equal weights


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
        "world_latent": 32,
    }
    assert spaces["joint"].truncations == (8,)
    assert spaces["pooled"].truncations == ()
