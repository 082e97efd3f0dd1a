"""What a recipe and a data set must have in common, refused before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.training.tiny import INTERVAL_STEPS, job, latent_action, parts

from tectum_core.architecture import ActionConfig
from tectum_train.engine.run import train
from tectum_train.recipe import RecipeError


def refused(data: Path, folder: Path, **changes: Any) -> str:
    """Why a run does not begin; it leaves neither metrics nor a checkpoint."""
    recipe = job(data, folder, **changes)
    with Path("/dev/null").open("w") as nowhere, pytest.raises(RecipeError) as told:
        train(recipe, console=Console(file=nowhere))
    assert not [path for path in folder.rglob("*") if path.suffix in {".jsonl", ".safetensors"}]
    return str(told.value)


def test_pairs_lie_as_far_apart_as_the_model_says(tiny_data: Path, tmp_path: Path) -> None:
    far = [INTERVAL_STEPS, 4 * INTERVAL_STEPS]

    told = refused(tiny_data, tmp_path, data__pair_steps=far)

    assert told.startswith(f"data.pair_steps: {far[1]} steps at ")
    assert "but model.latent_action.interval is" in told


def test_the_model_has_as_many_actions_and_states_as_the_data(
    tiny_data: Path, tmp_path: Path
) -> None:
    actions = ActionConfig(dimensions=3, state_dimensions=4, max_steps=8)

    told = refused(tiny_data, tmp_path, model=parts(actions=actions))

    assert told == (
        "tiny on this data set: Value error, actions name (4, 4) dimensions, the model has (3, 4)"
    )


@pytest.mark.parametrize("queue", [240, 4096])
def test_a_queue_of_keys_holds_fewer_than_there_are_pictures(
    tiny_data: Path, tmp_path: Path, queue: int
) -> None:
    told = refused(tiny_data, tmp_path, objectives=[{"kind": "mo_co", "queue": queue}])

    assert f"objectives.mo_co.queue: found {queue}; allowed: fewer than the 240 frames" in told


def test_pictures_alone_are_enough_for_what_reads_no_more(tiny_data: Path, tmp_path: Path) -> None:
    recipe = job(
        tiny_data,
        tmp_path,
        data__action=None,
        model=parts(actions=None, fusion=None, latent_action=latent_action(decoded_steps=0)),
        objectives=[{"kind": "latent_action", "decode_weight": 0.0}],
        schedule__steps=1,
    )
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"state": None})})

    with Path("/dev/null").open("w") as nowhere:
        run = train(recipe, console=Console(file=nowhere))

    assert (run.scaling, run.config.actions) == (None, None)
