"""Runs over several ranks: what one would have done, written and said once.

In float64, so that what differs is more than the order of sums: in float32, Adam makes whole steps
of gradients that are nothing but rounding.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from tests.training.engine.runs import checkpoint, folder, metrics, trained
from tests.training.ranks import Ranks
from tests.training.tiny import code_shape, image_tokenizer, job, video, vision_alone
from torch import Tensor

from tectum_train import distributed
from tectum_train.distributed import rank
from tectum_train.engine import building
from tectum_train.engine import run as engine
from tectum_train.engine.batches import BatchMaker
from tectum_train.engine.building import Run
from tectum_train.engine.checkpoint import CheckpointError
from tectum_train.engine.run import Interrupted
from tectum_train.objectives import Batch, Objective, WeightedSum
from tectum_train.recipe import Recipe, RecipeError
from tectum_train.tasks import ManyTasks

Arrays = dict[str, NDArray[Any]]
OBJECTIVES = [
    {"kind": "image_text", "after": 0.3, "negatives": {"queue": 20}},
    {"kind": "sim_clr", "fraction": 0.5},
    {"kind": "mo_co", "queue": 20, "fraction": 0.5, "momentum": 0.6, "koleo_weight": 0.3},
]
WHOLE = [
    {"kind": "dino", "prototypes": 8, "hidden": 16, "bottleneck": 8, "masked_share": 0.5},
    {"kind": "latent_action", "decode_weight": 0.5},
    {"kind": "supervised", "classes": {"task_family": 4}},
]
"""Some of them must see a batch as a whole."""
CODES = [
    {"kind": "image_codes", **code_shape(), "restart_below": 0.9},
    {"kind": "beit", "tokenizer": str(image_tokenizer())},
    {"kind": "video_mae"},
]
"""Each step draws codes anew."""


def recipe(data: Path, output: Path, **changes: Any) -> Recipe:
    changes = {"schedule__batch_size": 12, "objectives": OBJECTIVES, **changes}
    return job(data, output, **changes)


def run(made: Recipe, resume: bool = False, signalled: tuple[int, int] | None = None) -> Arrays:
    """Train in float64, recording each step; a signal may come to a rank after a step."""
    whole = BatchMaker.make

    def make(self: BatchMaker, step: int) -> Batch:
        found = whole(self, step)
        for part in (found, found.clip):
            for one in fields(part) if part is not None else ():
                value = getattr(part, one.name)
                if isinstance(value, Tensor) and value.is_floating_point():
                    setattr(part, one.name, value.double())
        return found

    asked = 0

    def heard(flag: bool, device: str) -> bool:
        nonlocal asked
        asked += 1
        if signalled == (rank(), asked):
            signal.raise_signal(signal.SIGINT)
            flag = True
        return distributed.anywhere(flag, device)

    def joint(weighted: Sequence[tuple[float, Objective]]) -> WeightedSum:
        return WeightedSum(weighted).double()

    def many(*given: Any) -> ManyTasks:
        return ManyTasks(*given).double()

    try:
        with (
            mock.patch.object(BatchMaker, "make", make),
            mock.patch.object(building, "WeightedSum", joint),
            mock.patch.object(building, "ManyTasks", many),
            mock.patch.object(engine, "anywhere", heard),
            mock.patch.object(engine, "_RECORD_EVERY", 1),
        ):
            trained(made, resume)
    except Interrupted as error:
        return {"said": np.array(str(error))}
    return {"said": np.array("done")}


def apart(one: Recipe, other: Recipe) -> float:
    """The largest difference between two runs' states."""
    states = checkpoint(one), checkpoint(other)
    assert states[0].keys() == states[1].keys()
    return max(
        float((states[0][key].double() - value.double()).abs().max())
        for key, value in states[1].items()
    )


def recorded(made: Recipe) -> list[dict[str, float]]:
    """What was recorded of each step, but for how long it took."""
    timed = {"images_per_second", "data_wait_percent"}
    return [{k: v for k, v in line.items() if k not in timed} for line in metrics(made)]


@pytest.fixture(scope="module")
def alone(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """One rank's run."""
    made = recipe(tiny_data, tmp_path_factory.mktemp("alone"))
    run(made)
    return made


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_two_ranks_train_and_record_what_one_does(
    ranks: Ranks, tiny_data: Path, tmp_path: Path, alone: Recipe, micro_batch: int | None
) -> None:
    shared = recipe(tiny_data, tmp_path, schedule__micro_batch=micro_batch)

    ranks.run(run, made=shared)

    assert apart(shared, alone) <= 1e-9
    assert [line["step"] for line in metrics(shared)] == [1, 2, 3, 4, 5, 6]
    for found, line in zip(recorded(shared), recorded(alone), strict=True):
        assert found == pytest.approx(line, abs=1e-6)  # accuracies are float32


def run_from_elsewhere(made: Recipe) -> Arrays:
    """Train where the other ranks have built another model."""
    whole = building.build

    def build(*given: Any) -> Run:
        found = whole(*given)
        with torch.no_grad():
            for one in found.objective.parameters():
                one.add_(0.1 * rank())
        return found

    with mock.patch.object(engine, "build", build):
        return run(made)


def test_all_ranks_begin_with_what_the_first_one_built(
    ranks: Ranks, tiny_data: Path, tmp_path: Path, alone: Recipe
) -> None:
    shared = recipe(tiny_data, tmp_path)

    ranks.run(run_from_elsewhere, made=shared)

    assert apart(shared, alone) <= 1e-9


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_two_ranks_keep_the_codebook_of_one(
    ranks: Ranks, tiny_data: Path, tmp_path: Path, micro_batch: int | None
) -> None:
    changes = {"objectives": CODES, "model": {**vision_alone(), **video()}}
    single = recipe(tiny_data, tmp_path / "alone", **changes)
    shared = recipe(tiny_data, tmp_path, schedule__micro_batch=micro_batch, **changes)

    run(single)
    ranks.run(run, made=shared)

    assert any("codebook" in key for key in checkpoint(shared))
    assert apart(shared, single) <= 1e-9
    for found, line in zip(recorded(shared), recorded(single), strict=True):
        assert found == pytest.approx(line, abs=1e-6)


def test_two_ranks_train_what_one_does_where_a_batch_must_be_whole(
    ranks: Ranks, tiny_data: Path, tmp_path: Path
) -> None:
    views = {"crops": 1, "crop_size": 16}
    alone, shared = (
        recipe(tiny_data, tmp_path / name, objectives=WHOLE, augmentation__views=views)
        for name in ("alone", "shared")
    )
    run(alone)

    ranks.run(run, made=shared)

    assert apart(shared, alone) <= 1e-9
    for found, line in zip(recorded(shared), recorded(alone), strict=True):
        assert found == pytest.approx(line, abs=1e-6)


def test_a_signal_to_one_rank_stops_all_after_the_same_step_and_any_number_resumes(
    ranks: Ranks, tiny_data: Path, tmp_path: Path, alone: Recipe
) -> None:
    broken = recipe(tiny_data, tmp_path)

    said = [str(one["said"]) for one in ranks.run(run, made=broken, signalled=(1, 3))]
    kept = recorded(broken)
    run(broken, resume=True)

    assert said == [f"saved after step 3 in {folder(broken)}"] * 2
    assert [line["step"] for line in kept] == [1, 2, 3]
    assert apart(broken, alone) <= 1e-9


def goes_on(made: Recipe, other: Recipe) -> Arrays:
    """What ranks with a disk each say that shall go on, the first one by what lies on its own."""
    with pytest.raises(CheckpointError) as told:
        trained(other if rank() else made, resume=True)
    return {"said": np.array(str(told.value))}


def test_ranks_of_which_one_has_no_checkpoint_are_refused(
    ranks: Ranks, tiny_data: Path, tmp_path: Path
) -> None:
    broken, other = (recipe(tiny_data, tmp_path / name) for name in ("first", "second"))
    run(broken, signalled=(0, 3))

    for one in ranks.run(goes_on, made=broken, other=other):
        assert "found the state after step 3 on rank 0; no checkpoint on rank 1" in str(one["said"])
        assert "allowed: the same on all ranks" in str(one["said"])
    assert not (folder(other) / "metrics.jsonl").exists()


def test_what_cannot_be_divided_ends_every_rank(
    ranks: Ranks, tiny_data: Path, tmp_path: Path
) -> None:
    said = ranks.run(refused, made=recipe(tiny_data, tmp_path, schedule__batch_size=9))

    assert len({str(one["said"]) for one in said}) == 1
    assert "must be a multiple of their number (2)" in str(said[0]["said"])
    assert not folder(recipe(tiny_data, tmp_path)).exists()


def refused(made: Recipe) -> Arrays:
    with pytest.raises(RecipeError) as told:
        trained(made)
    return {"said": np.array(str(told.value))}


# ---------------------------------------------------------------- as the command line starts them


def launch(made: Path, *more: str) -> subprocess.Popen[str]:
    """`tectum train` on two ranks."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "tectum_cli", "train", str(made), "--no-evaluate", *more,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.slow
def test_the_command_line_trains_on_all_ranks_saves_on_ctrl_c_and_speaks_once(
    tiny_data: Path, tmp_path: Path
) -> None:
    made = recipe(tiny_data, tmp_path, schedule__steps=50, objectives=OBJECTIVES[:1])
    path = tmp_path / "shared.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(mode="json")))

    first = launch(path)
    record = folder(made) / "metrics.jsonl"
    while first.poll() is None and not (record.exists() and record.read_text()):
        time.sleep(0.05)  # until all have taken a step
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=120)
    saved = made.checkpoint.exists()
    second = launch(path, "--resume")
    shown, told = second.communicate(timeout=240)

    assert saved, errors
    assert errors.count("the same command goes on") == 1
    assert second.returncode == 0, told
    assert told.count("goes on after step") == 1
    assert shown.count("serve it: ") == 1
    assert (folder(made) / "bundle" / "config.json").exists()
    assert [line["step"] for line in metrics(made)][-1] == 50
