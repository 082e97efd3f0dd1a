"""Many tasks and each alone: all of these runs have as many trunk passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from tests.training.engine.runs import trained
from tests.training.tiny import job
from torch import Tensor

from gates_rows import ROWS, Row
from gates_run import Places, recipe_of
from gates_tasks import MIXES, OBJECTIVES, PASSES, STEPS
from tectum_core.model import VisionTransformer
from tectum_train.job import evaluate_run, fitting_splits
from tectum_train.recipe import read_recipe

MANY = [row for row in ROWS if row.recipe == "multi-task-small"]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pictures of every pass through a trunk that learns."""
    seen, sequence = list[int](), VisionTransformer.sequence

    def counted(trunk: VisionTransformer, pixels: Tensor, *rest: object) -> Tensor:
        seen.append(len(pixels))
        return sequence(trunk, pixels, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(VisionTransformer, "sequence", counted)
    return seen


def test_the_mix_is_as_long_as_its_recipe_says() -> None:
    assert read_recipe("multi-task-small").schedule.steps == STEPS


@pytest.mark.parametrize("row", MANY, ids=lambda row: row.name)
def test_each_has_as_many_trunk_passes(
    row: Row, passes: list[int], tiny_data: Path, tmp_path: Path
) -> None:
    turns = {"alternating": len(OBJECTIVES), "dwa": 3}.get(row.name, 1)
    small = (
        f"data.train={tiny_data / 'train'}", f"data.test={tiny_data / 'test'}",
        f"data.cache={tmp_path / 'frames'}", "model.latent_action.interval=0.3125",
        "schedule.batch_size=2", f"schedule.steps={turns}",
    )  # fmt: skip
    windows = ["tasks.weighting.window=1"] if row.name == "dwa" else []  # two, and a step more
    changes = [*row.changes, *small, *windows]
    recipe = read_recipe(row.recipe, changes, str(tmp_path))
    steps = recipe_of(row, 0, Places()).schedule.steps

    trained(recipe)

    asked = 8 * len(recipe.objectives) if recipe.tasks and recipe.tasks.sharing else 0
    trunks = 3 if row.name == "cross-stitch" else 1
    learning = sum(passes) // 2 - asked * trunks  # at the end eight batches tell what each trains
    assert learning * steps == PASSES * turns


@pytest.mark.parametrize("mix", ["multi-task", "distance"])
def test_the_rule_finds_each_task_in_a_run_with_one_trunk_or_with_several(
    mix: str, tiny_data: Path, tmp_path: Path
) -> None:
    rule, several = MIXES[mix][0], mix == "distance"
    kinds = [kind for kind, task in OBJECTIVES.items() if task in rule.tasks]
    sharing = {"kind": "distance", "served": "image_text"} if several else None
    recipe = job(
        tiny_data, tmp_path, objectives=[{"kind": kind} for kind in kinds],
        tasks={"sharing": sharing}, schedule__steps=2,
    )  # fmt: skip
    quiet = Console(quiet=True)

    found = evaluate_run(trained(recipe), fitting_splits(recipe, quiet), "cpu", quiet)

    total, *tasks = rule.judge(found, dict.fromkeys(rule.rows, found))
    assert total.value == 0
    assert len(tasks) == len(kinds) == (3 if several else 6)
    own = [line.what.startswith(f"{kind}: ") for kind, line in zip(kinds, tasks, strict=True)]
    assert own == [several] * len(kinds)
