"""Many tasks and each alone: all of these runs cost as many floating-point operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tests.training.engine.runs import trained
from tests.training.tiny import job
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from gates_rows import ROWS, Row, named
from gates_run import Places, recipe_of
from gates_tasks import MFLOP, MIXES, OBJECTIVES, SHARES, STEPS, steps_of
from tectum_train.engine.stepping import take_step
from tectum_train.job import evaluate_run, fitting_splits
from tectum_train.recipe import read_recipe

pytestmark = pytest.mark.usefixtures("few_draws")
BATCH = 2
MANY = [row for row in ROWS if row.recipe == "multi-task-small" and row.name not in SHARES]


class Counting(TorchDispatchMode):
    """Counts as FlopCounterMode does, without telling modules apart, which takes as long again."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        found = func(*args, **given)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **given, out_val=found)
        return found


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many each step takes, forwards and backwards."""
    seen = list[int]()

    def counted(*args: object) -> object:
        with Counting() as counter:
            found = take_step(*args)  # type: ignore[arg-type]
        seen.append(counter.flops)
        return found

    monkeypatch.setattr("tectum_train.engine.run.take_step", counted)
    return seen


def test_operations_are_counted_as_torch_counts_them() -> None:
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def step() -> None:
        layer(torch.ones(3, 5, 16)).sum().backward()

    with FlopCounterMode(display=False) as torchs:
        step()
    with Counting() as ours:
        step()

    assert ours.flops == torchs.get_total_flops() > 0


def test_the_mix_is_as_long_as_its_recipe_says() -> None:
    assert read_recipe("multi-task-small").schedule.steps == STEPS


@pytest.mark.parametrize("row", MANY, ids=lambda row: row.name)
def test_each_costs_as_many_operations(
    row: Row, operations: list[int], tiny_data: Path, tmp_path: Path
) -> None:
    turns = {"alternating": len(OBJECTIVES), "dwa": 3, "grad-norm": 20}.get(row.name, 2)
    small = (
        f"data.train={tiny_data / 'train'}", f"data.test={tiny_data / 'test'}",
        f"data.cache={tmp_path / 'frames'}", "model.latent_action.interval=0.3125",
        f"schedule.batch_size={BATCH}", f"schedule.steps={turns}",
        "schedule.warmup_steps=0",
    )  # fmt: skip
    windows = ["tasks.weighting.window=1"] if row.name == "dwa" else []  # two, and a step more
    recipe = read_recipe(row.recipe, [*row.changes, *small, *windows], str(tmp_path))
    steps = recipe_of(row, 0, Places()).schedule.steps

    trained(recipe)

    cost = sum(operations) / turns / BATCH / 1e6
    assert steps * cost == pytest.approx(STEPS * MFLOP["multi-task"], rel=0.03)
    assert steps == steps_of(row.name)


@pytest.mark.parametrize("mix", MIXES)
def test_one_run_of_each_task_for_its_share_costs_together_what_the_mix_costs(mix: str) -> None:
    rule, divided = MIXES[mix][0]
    whole, shares = (
        [recipe_of(named(name), 0, Places()).schedule.steps for name in one.rows]
        for one in (rule, divided)
    )

    spent = sum(share / alone for share, alone in zip(shares, whole, strict=True))

    assert [SHARES[name][0] for name in divided.rows] == [
        name.removesuffix("-alone") for name in rule.rows
    ]
    assert spent == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("mix", ["multi-task", "distance"])
def test_the_rule_finds_each_task_in_a_run_with_one_trunk_or_with_several(
    mix: str, tiny_data: Path, tmp_path: Path
) -> None:
    (rule, divided), several = MIXES[mix][0], mix == "distance"
    kinds = [kind for kind, task in OBJECTIVES.items() if task in rule.tasks]  # type: ignore[attr-defined]
    sharing = {"kind": "distance", "served": "image_text"} if several else None
    recipe = job(
        tiny_data, tmp_path, objectives=[{"kind": kind} for kind in kinds],
        tasks={"sharing": sharing}, schedule__steps=2,
    )  # fmt: skip
    quiet = Console(quiet=True)

    found = evaluate_run(trained(recipe), fitting_splits(recipe, quiet), "cpu", quiet)

    beside, *_ = divided.judge(found, dict.fromkeys(divided.rows, found))
    assert (beside.value, beside.passed) == (0, None)
    total, *tasks = rule.judge(found, dict.fromkeys(rule.rows, found))
    assert total.value == 0
    assert len(tasks) == len(kinds) == (3 if several else 6)
    own = [line.what.startswith(f"{kind}: ") for kind, line in zip(kinds, tasks, strict=True)]
    assert own == [several] * len(kinds)
