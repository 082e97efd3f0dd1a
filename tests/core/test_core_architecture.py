"""Configuration is checked at the door: a misspelt key stops, and so does a part without ground."""

from typing import Any

import pytest
from pydantic import ValidationError
from tests.bundles import IMAGES, SCALING, full_model

from tectum_core.architecture import ModelConfig
from tectum_core.bundle import BundleConfig, TrainingSummary

TRAINING = TrainingSummary(recipe="r", data="d", steps=1, seed=0, commit="")
WHOLE = BundleConfig(
    model=full_model(), images=IMAGES, actions=SCALING, training=TRAINING
).model_dump(mode="json")
MISSING = object()
NARROW = {"kind": "convolution", "widths": [8, 8]}
CONVOLUTION = {"kind": "convolution", "widths": [8] * 6}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The whole configuration with one value put at a dotted path (or taken away)."""
    config: dict[str, Any] = BundleConfig.model_validate(WHOLE).model_dump(mode="json")
    *parents, last = path.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return config


def refusal(path: str, value: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        BundleConfig.model_validate(changed(path, value))
    return str(caught.value)


def test_the_whole_survives_json() -> None:
    config = BundleConfig.model_validate(WHOLE)

    assert BundleConfig.model_validate_json(config.model_dump_json()) == config


SECTIONS = [
    "model",
    "model.vision",
    "model.vision.transformer",
    "model.video",
    "model.text",
    "model.joint",
    "model.pixel_decoder",
    "model.actions",
    "model.fusion",
    "model.latent_action",
    "model.latent_action.dynamics",
    "model.latent_action.bottleneck",
    "model.world_model",
    "images",
    "actions",
    "training",
    "tolerances.float32",
]


@pytest.mark.parametrize("section", SECTIONS)
def test_a_misspelt_key_is_named(section: str) -> None:
    words = refusal(f"{section}.dropuot", 0.1)

    assert "dropuot" in words
    assert "Extra inputs are not permitted" in words
    assert section.rsplit(".", 1)[-1] in words


@pytest.mark.parametrize(
    "path", ["model.vision", "model.vision.transformer.width", "images.size", "training", "model"]
)
def test_a_missing_key_is_named(path: str) -> None:
    words = refusal(path, MISSING)

    assert path in words
    assert "Field required" in words


def test_a_configuration_cannot_be_changed_in_place() -> None:
    config = ModelConfig.model_validate(WHOLE["model"])

    with pytest.raises(ValidationError, match="frozen"):
        config.vision = config.vision  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        # Numbers that fit no model.
        ("model.vision.transformer.heads", 3, "heads (3) must divide width (32)"),
        ("model.vision.transformer.activation", "relu", "'gelu', 'gelu_tanh' or 'quick_gelu'"),
        ("model.vision.transformer.depth", 0, "greater than 0"),
        ("model.vision.patch_size", 5, "patch_size (5) must divide image_size (32)"),
        ("model.vision.pooling", "class", "pooling 'class' needs class_token"),
        ("model.vision.registers", -1, "greater than or equal to 0"),
        ("model.video.tubelet_frames", 3, "tubelet_frames (3) must divide frames (4)"),
        ("model.video.frame_interval", None, "frame_interval belongs to clips"),
        ("model.vision.frame_interval", 0.1, "frame_interval belongs to clips"),
        ("model.text.max_tokens", 0, "greater than 0"),
        ("model.pixel_decoder.mask_ratio", 1.0, "less than 1"),
        ("model.fusion.text_mask_ratio", 0.0, "greater than 0"),
        ("model.latent_action.dynamics.patch_size", 5, "image_size (16) must be a multiple of 5"),
        ("model.latent_action.dynamics", CONVOLUTION, "image_size (16) must be a multiple of 32"),
        (
            "model.latent_action.dynamics",
            {"kind": "convolution", "widths": [8]},
            "at least 2 items",
        ),
        (
            "model.latent_action.dynamics",
            {"kind": "convolution", "widths": [8, 12]},
            "multiples of 8, found (8, 12)",
        ),
        ("model.latent_action.dynamics.kind", "magic", "'transformer', 'convolution'"),
        ("model.latent_action.bottleneck.kind", "gumbel", "'continuous', 'vq', 'fsq'"),
        ("model.latent_action.bottleneck.levels", [5, 2], "greater than or equal to 3"),
        ("model.latent_action.bottleneck.levels", [], "at least 1 item"),
        ("model.latent_action.tolerance", 0, "greater than 0"),
        ("model.latent_action.target", "words", "'pixels' or 'latents'"),
        (
            "model.latent_action",
            {**WHOLE["model"]["latent_action"], "target": "latents", "image_size": 32},
            "predicts the trunk's tokens, so its image_size / patch_size must be 4, not 8",
        ),
        (
            "model.latent_action",
            {**WHOLE["model"]["latent_action"], "target": "latents", "dynamics": NARROW},
            "target 'latents' needs dynamics of kind 'transformer'",
        ),
        # Numbers beyond any model: what they ask for is not in the weights that can be checked.
        ("model.fusion.transformer.depth", 257, "less than or equal to 256"),
        ("model.vision.image_size", 4104, "less than or equal to 4096"),
        ("model.vision.stem", {"widths": [4] * 9}, "at most 8 items"),
        ("model.vision.stem", {"widths": [4] * 3, "blocks": 257}, "less than or equal to 256"),
        (
            "model.latent_action.dynamics",
            {"kind": "convolution", "widths": [8] * 9},
            "at most 8 items",
        ),
        ("model.latent_action.bottleneck.levels", [41, 40, 40], "more than the 65536 codes"),
        ("images.resize_to", 8193, "less than or equal to 8192"),
        # Parts and what they stand on.
        ("model.text", None, "joint needs text"),
        ("model.video", None, "video_decoder needs video"),
        ("model.world_model.history", 65, "less than or equal to 64"),
        ("model.world_model.grid", 3, "world_model.grid (3) must divide the trunk's (4)"),
        ("model.world_model.max_steps", 1025, "less than or equal to 1024"),
        ("model.world_model.action_steps", None, "action_steps belongs to actions 'real'"),
        ("model.world_model.actions", "none", "action_steps belongs to actions 'real'"),
        ("model.world_model.interval", 0.1, "is 0.1 s, but its action_steps (4) take 0.05 s"),
        ("model.actions", None, "latent_action.decoded_steps needs actions"),
        ("model.vision", {**WHOLE["model"]["video"]}, "vision.frames must be 1"),
        ("model.video", {**WHOLE["model"]["vision"]}, "video.frames must be above 1"),
        ("model.text.causal", True, "text.causal must be false"),
        ("model.latent_action.image_size", 64, "at most vision.image_size"),
        ("model.joint.truncations", [8, 4], "found [8, 4]; allowed: ascending lengths, each once"),
        ("model.joint.truncations", [128], "and below width"),
        # Bundle and model.
        ("images.size", 64, "images.size (64) must equal model.vision.image_size (32)"),
        ("actions", None, "actions and model.actions come together"),
        ("actions.names", ["x"], "mean has 4 numbers for 1 names"),
        ("model.actions.dimensions", 5, "actions name (4, 3) dimensions, the model has (5, 3)"),
        ("model.actions.state_dimensions", 0, "the model has (4, 0)"),
        ("format", "tectum-bundle-2", "tectum-bundle-1"),
        ("tolerances.float32.min_cosine", 1.5, "less than or equal to 1"),
        ("tolerances.float64", {"min_cosine": 1, "max_relative_difference": 1}, "'float32'"),
        ("training.steps", -1, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_built_is_refused_with_its_reason(path: str, value: Any, words: str) -> None:
    assert words in refusal(path, value)


def test_text_needs_are_told_for_every_part_that_reads_it() -> None:
    for part in ("fusion", "joint"):
        given = changed("model.text", None)["model"]
        kept = {"vision": given["vision"], part: given[part]}
        with pytest.raises(ValidationError, match=f"{part} needs text"):
            ModelConfig.model_validate(kept)
    given = changed("model.text", None)["model"]
    with pytest.raises(ValidationError, match=r"pixel_decoder\.text_context needs text"):
        ModelConfig.model_validate(
            {"vision": given["vision"], "pixel_decoder": given["pixel_decoder"]}
        )


def test_actions_need_a_part_that_reads_them() -> None:
    given = changed("model.fusion", None)["model"]
    assert ModelConfig.model_validate(given).world_model is not None
    given["world_model"] = None

    with pytest.raises(ValidationError, match="actions needs fusion, or a world_model"):
        ModelConfig.model_validate(given)


@pytest.mark.parametrize(
    ("kind", "without", "words"),
    [
        ("real", {"fusion", "actions", "latent_action"}, "'real' needs actions"),
        ("latent", {"latent_action"}, "'latent' needs latent_action"),
    ],
)
def test_a_world_model_needs_the_actions_that_it_reads(
    kind: str, without: set[str], words: str
) -> None:
    given = BundleConfig.model_validate(WHOLE).model_dump(mode="json")["model"]
    given |= dict.fromkeys(without)
    given["world_model"] |= {"actions": kind, "action_steps": 4 if kind == "real" else None}

    with pytest.raises(ValidationError, match=words):
        ModelConfig.model_validate(given)


def test_a_world_model_reads_latent_actions_of_its_own_interval() -> None:
    given = BundleConfig.model_validate(WHOLE).model_dump(mode="json")["model"]
    given["world_model"] |= {"actions": "latent", "action_steps": None, "interval": 0.1}

    with pytest.raises(ValidationError, match=r"interval \(0\.1\) must be .* \(0\.05 ± 0\.01\)"):
        ModelConfig.model_validate(given)


def test_a_latent_action_from_the_trunk_has_as_many_patches_as_the_trunk() -> None:
    given = changed("model.latent_action.dynamics.source", "trunk")
    latent = BundleConfig.model_validate(given).model.latent_action
    assert latent is not None
    assert latent.reads_trunk
    given["model"]["latent_action"]["dynamics"]["patch_size"] = 2

    with pytest.raises(ValidationError, match=r"trunk's tokens, so .* must be 4, not 8"):
        BundleConfig.model_validate(given)


@pytest.mark.parametrize("part", ["vision", "pixel_decoder"])
def test_a_sine_cosine_table_needs_a_width_that_four_divides(part: str) -> None:
    given = changed(f"model.{part}.transformer.width", 34)
    if part == "vision":
        given["model"]["vision"]["positions"] = "sincos"

    with pytest.raises(ValidationError, match="that 4 divides, not 34"):
        BundleConfig.model_validate(given)


def test_a_clip_trunk_sees_what_the_preprocessing_makes() -> None:
    given = changed("model.video.image_size", 64)

    with pytest.raises(ValidationError, match=r"video\.image_size must equal images\.size"):
        BundleConfig.model_validate(given)


def test_grids_and_counts_follow_from_the_sizes() -> None:
    config = full_model()

    assert config.video is not None
    assert (config.vision.grid, config.vision.patches, config.vision.patch_values) == (4, 16, 192)
    assert (config.video.steps, config.video.patches, config.video.patch_values) == (2, 32, 384)
