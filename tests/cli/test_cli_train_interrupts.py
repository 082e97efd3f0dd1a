"""`tectum train`, interrupted: nothing is lost, and it says how to go on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tests.cli.running import Running, invoke
from tests.cli.tiny_run import run_folder, written

from tectum_train import job as jobs
from tectum_train.engine.progress import RunProgress
from tectum_train.engine.run import Interrupted


@pytest.fixture
def recipe(tiny_data: Path, tmp_path: Path) -> Path:
    """The tiny recipe as a file, two steps long."""
    return written(tiny_data, tmp_path, schedule__steps=2)


@pytest.mark.parametrize("terminal", [True, False])
def test_an_interrupt_says_once_where_the_run_was_saved(
    terminal: bool, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any) -> None:
        if not terminal:  # then the checkpoint's line has said so
            given[-1].print("saved after step 1 in [red]")
        raise Interrupted("saved after step 1 in [red]")

    monkeypatch.setattr(Console, "is_terminal", terminal)
    monkeypatch.setattr(jobs, "run_job", interrupted)

    told = invoke("train", recipe).stderr

    assert told.count("saved after step 1") == 1
    assert "the same command goes on" in told


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = RunProgress.step

    def step(self: RunProgress, at: int, *rest: Any) -> None:
        whole(self, at, *rest)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RunProgress, "step", step)
    result = invoke("train", recipe)

    assert result.exit_code == 130
    assert "ending after this step, which will be saved; a second Ctrl-C ends it" in result.stderr
    assert result.stderr.count("saved after step 1") == 1
    assert result.stderr.endswith("the same command goes on\n")
    assert not (run_folder(tmp_path) / "bundle").exists()

    monkeypatch.setattr(RunProgress, "step", whole)
    result = invoke("train", recipe, "--no-evaluate")

    assert result.exit_code == 0, result.output
    assert f"goes on after step 1 with the run in {run_folder(tmp_path)}" in result.stderr
    assert (run_folder(tmp_path) / "bundle").exists()


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("fitting_splits", "nothing is trained yet: the same command begins anew"),
        ("evaluate_run", "tiny-seed0; --resume goes on with it"),
    ],
)
def test_an_interrupt_beside_the_training_says_how_to_go_on(
    where: str, told: str, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, where, interrupted)
    result = invoke("train", recipe)

    assert result.exit_code == 130
    assert result.stderr.endswith(f"{told}\n")


# ---------------------------------------------------------------- from process to process


@pytest.mark.slow
def test_a_run_that_ctrl_c_ended_in_one_process_is_taken_up_by_another_exactly(
    tiny_data: Path, tmp_path: Path
) -> None:
    steps = {"schedule__steps": 40}
    straight = written(tiny_data, tmp_path / "straight", **steps)
    broken = written(tiny_data, tmp_path / "broken", **steps)
    checkpoint = run_folder(tmp_path / "broken") / "checkpoint.safetensors"
    metrics = run_folder(tmp_path / "broken") / "metrics.jsonl"

    with Running("train", broken, "--no-evaluate", folder=tmp_path) as running:
        running.until(lambda: metrics.exists() and metrics.stat().st_size > 0)
        running.interrupt()
        assert running.ended() == 130, running.output
    assert checkpoint.exists()
    assert "the same command goes on" in running.output
    assert not (run_folder(tmp_path / "broken") / "bundle").exists()

    assert invoke("train", broken, "--no-evaluate", "--resume").exit_code == 0
    assert invoke("train", straight, "--no-evaluate").exit_code == 0

    one, two = (
        load_file(checkpoint),
        load_file(run_folder(tmp_path / "straight") / "checkpoint.safetensors"),
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    for name in ("model.safetensors", "tokenizer.json", "golden.safetensors"):
        made = [
            (run_folder(tmp_path / which) / "bundle" / name).read_bytes()
            for which in ("straight", "broken")
        ]
        assert made[0] == made[1], name
    recorded = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert recorded[0] == 1
    assert recorded[-1] == 40
