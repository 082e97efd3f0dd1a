"""Resuming where an objective remembers: queues, slow copies, units, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.bundles import stack
from tests.training.engine.runs import checkpoint, died_and_resumed, metrics, same, trained
from tests.training.tiny import job, latent_action, parts, world_model

FROM_TRUNK = {"kind": "transformer", "transformer": stack().model_dump(), "source": "trunk"}
LEARNING = latent_action(target="latents", dynamics=FROM_TRUNK, decoded_steps=0)
REMEMBERING: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "queues": (
        {},
        [
            {"kind": "image_text", "after": 0.3, "negatives": {"queue": 20}},
            {"kind": "sim_clr", "fraction": 0.5},
            {"kind": "mo_co", "queue": 20, "fraction": 0.5, "momentum": 0.6},
        ],
    ),
    "momentum contrast without a queue": (
        {},
        [{"kind": "mo_co", "queue": 0, "momentum": 0.6}],
    ),
    "sigmoid": (
        {"joint": {"width": 16, "bias": -10.0}},
        [{"kind": "image_text", "loss": "sigmoid"}],
    ),
    "latents of a trunk that learns": (
        {"latent_action": LEARNING},
        [{"kind": "latent_action", "encoder": "trained", "momentum": 0.6}],
    ),
    "futures of a trunk that learns": (
        {"world_model": world_model()},
        [{"kind": "world_model", "encoder": "trained", "momentum": 0.6, "rollout": 2}],
    ),
}


@pytest.mark.parametrize("name", REMEMBERING)
def test_what_is_remembered_between_steps_goes_on_where_it_was(
    name: str, tiny_data: Path, tmp_path: Path, after_step: Any
) -> None:
    changes, objectives = REMEMBERING[name]
    straight, broken = (
        job(
            tiny_data,
            tmp_path / folder,
            model=parts(**changes),
            objectives=objectives,
            schedule__checkpoint_every=2,
        )
        for folder in ("one", "two")
    )
    trained(straight)

    died_and_resumed(broken, after_step)

    kept = checkpoint(straight)
    assert same(kept, checkpoint(broken))
    assert metrics(broken)[-1]["loss"] == metrics(straight)[-1]["loss"]
    if "trunk that learns" in name:
        assert any(".slow." in key for key in kept), sorted(kept)
    if name == "queues":
        assert sum("queue" in key for key in kept) > 1, sorted(kept)
