"""Runs that learn from clips and from moments of episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.training.engine.runs import checkpoint, died_and_resumed, metrics, same, trained
from tests.training.tiny import job, parts

from tectum_train.recipe import Recipe

BOTH = [
    {"kind": "cpc", "horizons": 3, "width": 8, "hidden": 16, "temperature": 0.2},
    {"kind": "r3m", "hidden": 16, "layers": 2},
]


def temporal(tiny_data: Path, output: Path, **changes: Any) -> Recipe:
    """Clips of 4 frames, 8 steps apart: longer than the episodes are."""
    given = {"model": parts(world_model=None), "data__clip": {"frames": 4, "steps": 8}, **changes}
    return job(tiny_data, output, objectives=BOTH, **given)


def test_a_run_that_died_resumes_exactly(tiny_data: Path, tmp_path: Path, after_step: Any) -> None:
    often = {"schedule__checkpoint_every": 2}
    straight, broken = (temporal(tiny_data, tmp_path / name, **often) for name in ("one", "two"))
    trained(straight)

    died_and_resumed(broken, after_step)

    assert same(checkpoint(straight), checkpoint(broken))


def test_what_it_says_of_itself_is_kept(tiny_data: Path, tmp_path: Path) -> None:
    recipe = temporal(tiny_data, tmp_path, precision="bfloat16")

    trained(recipe)

    last = metrics(recipe)[-1]
    horizons = {f"cpc/{name}_{k}" for name in ("loss", "accuracy", "chance") for k in (1, 2)}
    told = {f"r3m/{name}" for name in ("time", "aligned", "language", "progress", "told")}
    assert last.keys() >= horizons | told
    assert last["cpc/chance_2"] > 0
    # Frame 3 lies 24 steps on, in episodes of 20: nothing is asked about it.
    assert not any(name.endswith("_3") for name in last)
