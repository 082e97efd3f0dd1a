"""Runs of several objectives under `tasks`: learnt, resumed, over ranks, and what they leave."""

from __future__ import annotations

import signal
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from tests.training.engine.runs import checkpoint, metrics, same, trained
from tests.training.engine.test_train_ranks import apart, recorded, run
from tests.training.ranks import Ranks
from tests.training.tiny import job, write_untrained_bundle

from tectum_core.bundle import read_bundle
from tectum_train.engine import run as engine
from tectum_train.engine.optimiser import optimiser_for, set_rate
from tectum_train.engine.run import Interrupted
from tectum_train.job import run_job
from tectum_train.recipe import Recipe, RecipeError, read_recipe
from tectum_train.tasks import ManyTasks

pytestmark = pytest.mark.usefixtures("few_draws")

TWO = [{"kind": "image_text", "weight": 2.0}, {"kind": "masked_image"}]
TURNS: dict[str, Any] = {"alternate": {"pattern": ["image_text", "masked_image"]}}
SETTINGS: dict[str, Any] = {
    "units": {"weighting": {"kind": "importance"}, "normalise": "chance"},
    "uncertainty": {"weighting": {"kind": "uncertainty"}, "normalise": "initial"},
    "grad_norm": {"weighting": {"kind": "grad_norm"}, "conflict_every": 2},
    "dwa": {"weighting": {"kind": "dwa", "window": 2}},
    "alternate": {"alternate": {"pattern": ["image_text", "masked_image", "masked_image"]}},
    "distance": {"sharing": {"kind": "distance", "served": "image_text"}},
    "cross_stitch": {"sharing": {"kind": "cross_stitch"}},
}


def many(data: Path, output: Path, tasks: Any, **changes: Any) -> Recipe:
    """The tiny recipe with two objectives, which learn together as `tasks` says."""
    changes = {"objectives": TWO, "schedule__batch_size": 8, **changes}
    return job(data, output, tasks=tasks, **changes)


@pytest.mark.parametrize("tasks", SETTINGS.values(), ids=SETTINGS)
def test_a_run_that_was_interrupted_resumes_exactly(
    tiny_data: Path, tmp_path: Path, after_step: Any, tasks: Any
) -> None:
    straight, broken = (many(tiny_data, tmp_path / name, tasks) for name in ("one", "two"))
    trained(straight)

    after_step(2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted):
        trained(broken)
    trained(broken, resume=True)

    assert same(checkpoint(straight), checkpoint(broken))
    assert {key for line in metrics(straight) for key in line} >= {
        "image_text/loss", "masked_image/loss",
    }  # fmt: skip


@pytest.mark.parametrize("tasks", SETTINGS.values(), ids=SETTINGS)
def test_two_ranks_train_and_record_what_one_does(
    ranks: Ranks, tiny_data: Path, tmp_path: Path, tasks: Any
) -> None:
    alone, shared = (many(tiny_data, tmp_path / name, tasks) for name in ("alone", "shared"))
    run(alone)

    ranks.run(run, made=shared)

    told = ("loss", "gradient", "weight", "distance", "masked_image")
    assert apart(shared, alone) <= 1e-6  # units and weights are kept in float32
    for found, line in zip(recorded(shared), recorded(alone), strict=True):
        kept = {key: value for key, value in line.items() if key.endswith(told)}
        assert {key: found[key] for key in kept} == pytest.approx(kept, abs=1e-5)


def test_uncertainty_is_learnt_at_a_rate_of_its_own(tiny_data: Path, tmp_path: Path) -> None:
    tasks = {"weighting": {"kind": "uncertainty", "lr_scale": 7.0}}
    made = trained(many(tiny_data, tmp_path, tasks))
    adam = optimiser_for(made.objective, made.recipe.optimiser)

    set_rate(adam, 0.5)

    assert isinstance(made.objective, ManyTasks)
    learnt = [*made.objective.weighting.parameters()]
    rates = {id(one): group["lr"] for group in adam.param_groups for one in group["params"]}
    decays = {
        id(one): group["weight_decay"] for group in adam.param_groups for one in group["params"]
    }
    assert len(learnt) == len(made.recipe.objectives)
    assert [rates.pop(id(one)) for one in learnt] == [3.5] * len(learnt)
    assert set(rates.values()) == {0.5}
    assert [decays[id(one)] for one in learnt] == [0.0] * len(learnt)


@pytest.mark.parametrize(("window", "found"), [(0, r"\d+ \(an epoch\)"), (3, "3")])
def test_windows_of_which_a_run_has_not_two_are_refused(
    tiny_data: Path, tmp_path: Path, window: int, found: str
) -> None:
    recipe = many(tiny_data, tmp_path, {"weighting": {"kind": "dwa", "window": window}})

    with pytest.raises(RecipeError, match=rf"window: found {found}; allowed: less than half of"):
        trained(recipe)


@pytest.mark.parametrize(("window", "found"), [(0, r"\d+ \(an epoch\)"), (4, "4")])
def test_windows_that_hold_other_turns_each_are_refused(
    tiny_data: Path, tmp_path: Path, window: int, found: str
) -> None:
    three = ["image_text", "masked_image", "masked_image"]
    even = {"image_text": 1, "masked_image": 6}  # seven turns, where an epoch has 30
    pattern = three if window else [kind for kind, times in even.items() for _ in range(times)]
    tasks = {"weighting": {"kind": "dwa", "window": window}, "alternate": {"pattern": pattern}}

    with pytest.raises(
        RecipeError, match=rf"window: found {found}; allowed: multiples of {len(pattern)}, the leng"
    ):
        trained(many(tiny_data, tmp_path, tasks, schedule__steps=999))


def test_weights_and_conflicts_are_recorded(tiny_data: Path, tmp_path: Path) -> None:
    tasks = {"weighting": {"kind": "dwa", "window": 2}, "conflict_every": 1}
    recipe = many(tiny_data, tmp_path, tasks)

    trained(recipe)

    (line, *_) = metrics(recipe)
    assert -1 <= line["conflict/image_text~masked_image"] <= 1
    assert line["image_text/weight"] == 2.0
    assert line["masked_image/weight"] == 1.0


def test_whoever_has_turns_is_in_every_record(tiny_data: Path, tmp_path: Path) -> None:
    tasks = {**TURNS, "normalise": "initial"}

    trained(many(tiny_data, tmp_path, tasks, schedule__steps=42))

    first, *others = metrics(many(tiny_data, tmp_path, tasks))
    assert [line["step"] for line in (first, *others)] == [1, 21, 41, 42]
    assert "masked_image/loss" not in first
    for line in others[:-1]:  # though the step itself is always image_text's
        for kind in ("image_text", "masked_image"):
            assert {f"{kind}/loss", f"{kind}/weight"} <= line.keys()


def test_a_record_has_the_means_of_the_steps_since_the_last_one(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every, some = (many(tiny_data, tmp_path / name, TURNS) for name in ("every", "some"))
    trained(some)
    monkeypatch.setattr(engine, "_RECORD_EVERY", 1)
    trained(every)

    _, *steps = metrics(every)
    _, last = metrics(some)
    for name in ("loss", "gradient", "image_text/loss", "masked_image/loss"):
        said = [line[name] for line in steps if name in line]
        assert len(said) == {"image_text/loss": 2, "masked_image/loss": 3}.get(name, 5)
        assert last[name] == pytest.approx(fmean(said), rel=1e-6)


def test_a_conflict_that_no_recorded_step_reports_is_told_with_the_next_record(
    tiny_data: Path, tmp_path: Path
) -> None:
    recipe = many(tiny_data, tmp_path, {"conflict_every": 4})  # steps 1 and 5 of 1 to 6

    trained(recipe)

    first, last = metrics(recipe)
    assert "conflict/image_text~masked_image" in first
    assert -1 <= last["conflict/image_text~masked_image"] <= 1


# ---------------------------------------------------------------- what soft sharing leaves


def test_a_bundle_has_the_served_trunk_and_nothing_that_another_ones_features_trained(
    tiny_data: Path, tmp_path: Path
) -> None:
    recipe = many(tiny_data, tmp_path, SETTINGS["distance"])
    console = Console(quiet=True)

    made = run_job(recipe, "cpu", False, False, None, console)

    assert made is not None
    training = read_bundle(made[0], "tiny").config.training
    assert training.learnt("vision")
    assert training.learnt("joint")
    assert not training.learnt("pixel_decoder")


def test_each_objectives_own_trunk_is_measured(tiny_data: Path, tmp_path: Path) -> None:
    recipe = many(tiny_data, tmp_path, SETTINGS["cross_stitch"])

    made = run_job(recipe, "cpu", False, True, None, Console(quiet=True))

    measured = yaml.safe_load((recipe.folder / "evaluation.json").read_text())
    names = {one["name"] for one in measured}
    assert made is None
    assert any(name.startswith("masked_image: ") for name in names)
    assert any(name.startswith("image_text: ") for name in names)
    assert not (recipe.folder / "bundle").exists()


def test_objectives_with_a_trunk_each_may_read_the_same_words(
    tiny_data: Path, tmp_path: Path
) -> None:
    reading = [{"kind": "image_text"}, {"kind": "masked_language"}]
    run = trained(many(tiny_data, tmp_path, SETTINGS["distance"], objectives=reading))

    untrained = {kind: view.config.training.untrained for kind, view in run.views.items()}
    assert "joint" in untrained["masked_language"]
    assert "joint" not in untrained["image_text"]


READERS = [{"kind": "latent_action"}, {"kind": "world_model"}]
"""Neither trains the trunk: latent actions are of pixels, and only the world model reads it."""


def bound(served: str) -> dict[str, Any]:
    """Trunks that are one after every step."""
    return {"sharing": {"kind": "distance", "strength": 1e6, "served": served}}


def test_who_trains_no_trunk_holds_none_of_those_that_learn(
    tiny_data: Path, tmp_path: Path
) -> None:
    """The served trunk goes as far as without them, and theirs is no other."""
    found = []
    for name, more in (("without", []), ("with", READERS)):
        recipe = many(
            tiny_data, tmp_path / name, bound("image_text"), objectives=[*TWO, *more],
            optimiser={"clip_norm": 1e9},
        )  # fmt: skip
        found.append(trained(recipe))

    alone, beside = (dict(run.model.vision.named_parameters()) for run in found)
    trunks = {kind: view.model.vision for kind, view in found[1].views.items()}
    assert trunks["latent_action"] is trunks["world_model"] is trunks["image_text"]
    assert trunks["masked_image"] is not trunks["image_text"]
    for name, parameter in alone.items():
        torch.testing.assert_close(beside[name], parameter, rtol=1e-4, atol=1e-6)


def test_a_bundle_has_what_was_learnt_by_reading_the_served_trunk(
    tiny_data: Path, tmp_path: Path
) -> None:
    write_untrained_bundle(tmp_path / "bundle")
    recipe = many(
        tiny_data, tmp_path, bound("masked_image"), objectives=[*TWO, *READERS],
        trunk=str(tmp_path / "bundle"),
    )  # fmt: skip

    made = run_job(recipe, "cpu", False, False, None, Console(quiet=True))

    assert made is not None
    training = read_bundle(made[0], "tiny").config.training
    assert training.learnt("vision", "vision.pool", "pixel_decoder", "world_model", "latent_action")
    assert not training.learnt("joint")  # of the other trunk


def test_trunks_that_are_stitched_together_are_not_published(
    tiny_data: Path, tmp_path: Path
) -> None:
    recipe = many(tiny_data, tmp_path, SETTINGS["cross_stitch"])

    with pytest.raises(RecipeError, match="leave no bundle"):
        run_job(recipe, "cpu", False, False, tmp_path / "models", Console(quiet=True))

    assert not recipe.folder.exists()


# ---------------------------------------------------------------- what a recipe cannot ask for


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ({"alternate": {"pattern": ["image_text"]}}, "tasks.alternate.pattern: found image_text"),
        (
            {"alternate": {"pattern": ["image_text", "masked_image", "dino"]}},
            "allowed: turns of image_text, masked_image",
        ),
        (
            {**SETTINGS["alternate"], "weighting": {"kind": "grad_norm"}},
            "all objectives are in one step",
        ),
        ({**SETTINGS["distance"], "conflict_every": 5}, "on one trunk for all"),
        (
            {"sharing": {"kind": "distance", "served": "dino"}},
            "tasks.sharing.served: found dino; allowed: one of image_text, masked_image",
        ),
        ({"weighting": {"kind": "sum"}}, "weighting"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_recipe_that_contradicts_itself_is_refused(tmp_path: Path, tasks: Any, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        read_recipe(str(written(tmp_path, tasks)))


def test_one_objective_alone_has_no_tasks(tmp_path: Path) -> None:
    path = written(tmp_path, SETTINGS["dwa"])

    with pytest.raises(RecipeError, match="two or more, all distinct"):
        read_recipe(str(path), ["objectives=[{kind: image_text}]"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dwa", "weighting dwa"),
        ("uncertainty", "weighting uncertainty, normalise initial"),
        ("grad_norm", "weighting grad_norm, conflict_every 2"),
        ("units", "normalise chance"),
        ("distance", "sharing distance"),
    ],
)
def test_what_looks_at_losses_of_whole_batches_takes_no_pieces(
    tmp_path: Path, name: str, told: str
) -> None:
    path = written(tmp_path, SETTINGS[name])

    with pytest.raises(RecipeError, match=rf"found tasks with {told}; allowed: weighting fixed or"):
        read_recipe(str(path), ["schedule.micro_batch=4"])


@pytest.mark.parametrize("tasks", [{}, {"weighting": {"kind": "importance"}}, TURNS], ids=str)
def test_fixed_weights_take_pieces(tiny_data: Path, tmp_path: Path, tasks: Any) -> None:
    whole, pieces = (
        many(tiny_data, tmp_path / str(micro), tasks, schedule__micro_batch=micro)
        for micro in (None, 4)
    )
    trained(whole)
    trained(pieces)

    for one, other in zip(metrics(whole), metrics(pieces), strict=True):
        assert one.keys() == other.keys()
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)


def written(folder: Path, tasks: Any) -> Path:
    """The tiny recipe of two objectives as a file, with these tasks."""
    tree = job(folder, folder, objectives=TWO).model_dump(mode="json") | {"tasks": tasks}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path
