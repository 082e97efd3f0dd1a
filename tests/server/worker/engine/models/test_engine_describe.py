"""What is told of a model: no more than what it has, and of that no more than what was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.bundles import INTERVAL, TOLERANCE, stack, world_model, write_full

from tectum.v1 import call_pb2, model_pb2
from tectum_core.architecture import LatentActionConfig, TransformerDynamicsConfig
from tectum_core.bundle import Bundle, Part, read_bundle
from tectum_core.golden import GoldenReport
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.models.describe import describe
from tectum_server.worker.engine.models.warmup import warm_up

WORDS: tuple[Part, ...] = ("joint", "fusion.token_head")
"""What takes texts for their own sake."""
ROLLS: tuple[Part, ...] = ("world_model",)
"""What takes actions to foresee what they do."""


def told(bundle: Bundle, *untrained: Part) -> model_pb2.Model:
    """The bundle as it is told of if training had not reached these parts."""
    summary = bundle.config.training.model_copy(update={"untrained": untrained})
    config = bundle.config.model_copy(update={"training": summary})
    report = GoldenReport(outputs=1, min_cosine=1.0, max_abs_difference=0.0)
    return describe(replace(bundle, config=config), report, call_pb2.Numerics())


@pytest.mark.parametrize(
    ("untrained", "missing"),
    [
        ((), set()),
        (("latent_action",), {"latent_action"}),
        (("latent_action.action_decoder",), set()),
        (("vision", "vision.pool"), {"world_model"}),
        (("video",), set()),
        (("video", "video_decoder"), {"clip"}),
        (WORDS, set()),
        ((*WORDS, "pixel_decoder"), set()),
        ((*WORDS, "fusion.action_head"), set()),
        ((*WORDS, "fusion.action_head", "pixel_decoder"), {"text"}),
        (("world_model",), {"world_model"}),
        (("world_model.decoder",), set()),
        (("fusion.action_head", "latent_action.action_decoder"), set()),
        (
            ("fusion.action_head", "latent_action.action_decoder", *ROLLS),
            {"actions", "world_model"},
        ),
        (
            ("fusion.action_head", "latent_action", *ROLLS),
            {"actions", "latent_action", "world_model"},
        ),
        ((*WORDS, "pixel_decoder.from_text"), set()),
        ((*WORDS, "fusion.from_text"), set()),
        ((*WORDS, "pixel_decoder.from_text", "fusion.from_text"), {"text"}),
        (
            ("fusion.actions.embed", "latent_action", *ROLLS),
            {"actions", "latent_action", "world_model"},
        ),
    ],
)
def test_no_input_is_asked_for_that_nothing_trained_takes(
    untrained: tuple[Part, ...], missing: set[str], full_bundle: Bundle
) -> None:
    found = {part.name for part, _ in told(full_bundle, *untrained).input.ListFields()}

    assert {"image", "text", "clip", "actions", "latent_action", "world_model"} - found == missing


def test_a_decoder_that_was_not_trained_decodes_no_steps(full_bundle: Bundle) -> None:
    found = told(full_bundle, "latent_action.action_decoder")

    assert model_pb2.CAPABILITY_PREDICT_LATENT_ACTIONS in found.capabilities
    assert model_pb2.CAPABILITY_DECODE_ACTIONS not in found.capabilities
    assert found.input.latent_action.dimensions == 8
    assert found.input.latent_action.decoded_steps == 0


def test_what_only_decodes_actions_names_them_and_takes_none(full_bundle: Bundle) -> None:
    found = told(full_bundle, "fusion.action_head").input

    assert list(found.actions.names) == ["x", "y", "z", "grip"]
    assert found.actions.max_steps == 0
    assert not found.actions.state_names
    assert found.latent_action.decoded_steps == 4


def test_a_state_that_the_training_never_showed_is_not_asked_for(full_bundle: Bundle) -> None:
    found = told(full_bundle, "fusion.actions.embed_state")

    assert model_pb2.CAPABILITY_RECONSTRUCT_ACTIONS in found.capabilities
    assert found.input.actions.max_steps == 8
    assert not found.input.actions.state_names


def test_who_reads_no_visible_action_reconstructs_none(full_bundle: Bundle) -> None:
    found = told(full_bundle, "fusion.actions.embed")

    # One step at least is visible in whatever is asked.
    assert model_pb2.CAPABILITY_RECONSTRUCT_ACTIONS not in found.capabilities


def test_what_rollouts_take_is_told(full_bundle: Bundle) -> None:
    found = told(full_bundle)

    world = found.input.world_model
    assert (world.history, world.max_steps, world.action_steps) == (3, 6, 4)
    assert world.interval.ToMilliseconds() == 50
    assert world.actions == model_pb2.WORLD_ACTIONS_REAL
    assert world.action_dimensions == len(found.input.actions.names) == 4
    assert (world.latents, world.latent_count) == (call_pb2.VECTOR_KIND_TOKENS, 16)
    assert {model_pb2.CAPABILITY_ROLLOUT, model_pb2.CAPABILITY_DECODE_ROLLOUTS} <= {
        *found.capabilities
    }


@pytest.mark.parametrize(
    ("changes", "actions", "steps", "numbers"),
    [
        ({"actions": "latent", "action_steps": None}, model_pb2.WORLD_ACTIONS_LATENT, 1, 8),
        ({"actions": "none", "action_steps": None}, model_pb2.WORLD_ACTIONS_NONE, 0, 0),
    ],
)
def test_what_is_read_of_what_is_done_is_told(
    tmp_path: Path, changes: dict[str, Any], actions: int, steps: int, numbers: int
) -> None:
    write_full(tmp_path / "b", world_model=world_model(latents="pooled", **changes))

    world = told(read_bundle(tmp_path / "b", "b")).input.world_model

    assert (world.actions, world.action_steps, world.action_dimensions) == (actions, steps, numbers)
    assert (world.latents, world.latent_count) == (call_pb2.VECTOR_KIND_POOLED, 1)


def test_a_decoder_of_rollouts_that_was_not_trained_paints_none(full_bundle: Bundle) -> None:
    found = told(full_bundle, "world_model.decoder").capabilities

    assert model_pb2.CAPABILITY_ROLLOUT in found
    assert model_pb2.CAPABILITY_DECODE_ROLLOUTS not in found


def test_actions_that_only_rollouts_read_are_named_too(full_bundle: Bundle) -> None:
    found = told(full_bundle, "fusion.action_head", "latent_action.action_decoder").input.actions

    assert list(found.names) == ["x", "y", "z", "grip"]
    assert found.max_steps == 0


def test_who_predicts_latents_predicts_no_frames(tmp_path: Path) -> None:
    latent = LatentActionConfig(
        dynamics=TransformerDynamicsConfig(transformer=stack()), image_size=16,
        interval=INTERVAL, tolerance=TOLERANCE, target="latents",
    )  # fmt: skip
    write_full(tmp_path / "b", latent_action=latent)
    bundle = read_bundle(tmp_path / "b", "b")

    found = told(bundle)

    assert model_pb2.CAPABILITY_PREDICT_LATENT_ACTIONS in found.capabilities
    assert model_pb2.CAPABILITY_PREDICT_FRAMES not in found.capabilities
    assert warm_up(Predictor(bundle), 1)  # which runs whatever is announced, and nothing else
