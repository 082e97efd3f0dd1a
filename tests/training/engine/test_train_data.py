"""What a recipe and a data set must have in common, refused before the first step."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.training.engine.runs import trained
from tests.training.tiny import FPS, INTERVAL_STEPS, job, latent_action, parts, vision_alone

from tectum_core.architecture import ActionConfig
from tectum_train.data import DataError, FrameCache
from tectum_train.engine.agreement import oversized, seldom_begun
from tectum_train.engine.building import open_samples
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

    assert told == "model.actions.dimensions: found 3; allowed: 4, the numbers of action"


def test_of_the_state_too(tiny_data: Path, tmp_path: Path) -> None:
    actions = ActionConfig(dimensions=4, state_dimensions=7, max_steps=8)

    told = refused(tiny_data, tmp_path, model=parts(actions=actions))

    assert told == (
        "model.actions.state_dimensions: found 7; allowed: 4, the numbers of observation.state"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"data__action": "torque"},
        {"data__task": "colour"},
        {"data__state": "camera.matrix"},
        {"model": parts(actions=ActionConfig(dimensions=3, state_dimensions=4, max_steps=8))},
        {"data__pair_steps": [400]},
        {"objectives": [{"kind": "mo_co", "queue": 10**6}]},
    ],
    ids=["action", "task", "state", "dimensions", "pairs", "queue"],
)
def test_what_the_description_tells_is_asked_before_anything_is_decoded(
    tiny_data: Path, tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = list[object]()
    monkeypatch.setattr(FrameCache, "open", lambda *given, **_: decoded.append(given))

    with pytest.raises((RecipeError, DataError)):
        trained(job(tiny_data, tmp_path, **changes))

    assert decoded == []


@pytest.mark.parametrize("steps", [20, 400])
def test_what_lies_apart_in_time_lies_in_one_episode(
    tiny_data: Path, tmp_path: Path, steps: int
) -> None:
    latent = latent_action(interval=steps / FPS, tolerance=0.01)
    films = {"model": vision_alone(), "objectives": [{"kind": "cpc", "horizons": 1}]}

    pairs = refused(
        tiny_data, tmp_path, data__pair_steps=[steps], model=parts(latent_action=latent),
        objectives=[{"kind": "latent_action"}],
    )  # fmt: skip
    clips = refused(tiny_data, tmp_path, data__clip={"frames": 4, "steps": steps}, **films)

    allowed = f"found {steps}; allowed: at most 19, as the longest episode has 20 frames"
    assert pairs.startswith(f"data.pair_steps: {allowed}")
    assert clips.startswith(f"data.clip.steps: {allowed}")


@pytest.mark.parametrize(
    ("episodes", "frames", "told"),
    [
        (12, 0, "data.episodes_at_once: found 12; allowed: fewer than the 12 episodes"),
        (99, 0, "data.episodes_at_once: found 99; allowed: fewer than the 12 episodes"),
        (2, 20, "data.frames_at_once: found 20; allowed: at most 19, as the longest episode has"),
        (12, 20, "data.frames_at_once: found 20; allowed: at most 19"),
    ],
)
def test_a_few_at_once_are_fewer_than_all(
    tiny_data: Path, tmp_path: Path, episodes: int, frames: int, told: str
) -> None:
    at_once = {"data__episodes_at_once": episodes, "data__frames_at_once": frames}

    assert refused(tiny_data, tmp_path, **at_once).startswith(told)


@pytest.mark.parametrize(("episodes", "frames"), [(11, 0), (12, 19)])
def test_some_frames_of_all_episodes_or_all_of_some_are_a_few(
    tiny_data: Path, tmp_path: Path, episodes: int, frames: int
) -> None:
    at_once = {"data__episodes_at_once": episodes, "data__frames_at_once": frames}
    recipe = job(tiny_data, tmp_path, **at_once)

    assert open_samples(recipe, "train", lambda *_: None)


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        ([30, 30, 30], []),
        ([6, 6, 6, 7], ["data.clip: only 28%"]),
        ([3, 3, 5, 5], ["data.pair_steps: only 31%", "data.clip: only 0%"]),
    ],
)
def test_pairs_and_clips_that_most_episodes_are_too_short_for_are_told(
    lengths: list[int], told: list[str], tmp_path: Path
) -> None:
    recipe = job(
        tmp_path, tmp_path, data__pair_steps=[2, 4], data__clip={"frames": 4, "steps": 2},
        objectives=[{"kind": "latent_action"}, {"kind": "cpc", "horizons": 1}],
    )  # fmt: skip

    said = list(seldom_begun(recipe, lengths))

    assert [line[: len(words)] for line, words in zip(said, told, strict=True)] == told


def test_what_is_seldom_begun_is_told_once_as_the_run_begins(
    tiny_data: Path, tmp_path: Path
) -> None:
    said = io.StringIO()
    recipe = job(
        tiny_data, tmp_path, data__pair_steps=[12], schedule__steps=1,
        model=parts(latent_action=latent_action(interval=12 / FPS)),
        objectives=[{"kind": "latent_action"}],
    )  # fmt: skip

    train(recipe, console=Console(file=said, width=400))

    assert said.getvalue().count("data.pair_steps: only 40% of the frames have one 12 steps") == 1


def test_more_prototypes_than_so_few_frames_share_out_are_told(tmp_path: Path) -> None:
    recipe = job(tmp_path, tmp_path, objectives=[{"kind": "dino", "prototypes": 4097}])

    assert list(oversized(recipe, 1_000_000)) == []
    (said,) = oversized(recipe, 90_000)
    assert said.startswith("objectives.dino.prototypes: 4,097 for 90,000 frames; of so few, more")


@pytest.mark.parametrize(
    ("target", "holds"), [("pixels", 3 * 16 * 16), ("latents", 16 * 32)], ids=["pixels", "latents"]
)
def test_a_latent_action_that_could_hold_all_that_is_foretold_is_told(
    target: str, holds: int, tmp_path: Path
) -> None:
    def told(width: int) -> list[str]:
        bottle = {"kind": "continuous", "width": width}
        latent = latent_action(bottleneck=bottle, target=target, decoded_steps=0)
        trained = {"kind": "masked_image"}, {"kind": "latent_action"}
        recipe = job(
            tmp_path, tmp_path, objectives=list(trained), model=parts(latent_action=latent)
        )
        return list(oversized(recipe, 100))

    assert told(holds - 1) == []
    assert told(holds)[0].startswith(
        f"model.latent_action.bottleneck.width: {holds:,} numbers can hold all {holds:,} of what is"
    )


def test_a_folder_that_holds_the_splits_is_answered_with_the_split(
    tiny_data: Path, tmp_path: Path
) -> None:
    told = refused(tiny_data / "train", tmp_path, data__train=str(tiny_data))

    assert told == (
        f"data.train: found {tiny_data}, which is no LeRobot data set but holds one; allowed: "
        f"{tiny_data / 'train'}"
    )


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ({"observation.state": 3}, "found float32 of shape [4]; allowed: features of one whole"),
        ({"task_family": 3}, "found 3 for labels from 0 to 3; allowed: more than the largest"),
    ],
)
def test_labels_are_whole_numbers_and_each_is_a_class(
    tiny_data: Path, tmp_path: Path, classes: dict[str, int], told: str
) -> None:
    found = refused(tiny_data, tmp_path, objectives=[{"kind": "supervised", "classes": classes}])

    assert f"objectives.supervised.classes.{next(iter(classes))}: {told}" in found


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
