"""Whole runs with teachers or labels: learnt from, and resumed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.engine.runs import checkpoint, metrics, same, trained
from tests.training.tiny import job, vision_alone

from tectum_train.augment import AugmentationConfig
from tectum_train.data import DataError
from tectum_train.engine.batches import BatchMaker
from tectum_train.engine.building import open_samples
from tectum_train.engine.run import Interrupted
from tectum_train.recipe import Recipe, RecipeError

DINO = {
    "kind": "dino", "prototypes": 16, "hidden": 32, "bottleneck": 8, "momentum_steps": 6,
    "teacher_temperature": (0.04, 0.07), "teacher_steps": 4, "frozen_steps": 4,
}  # fmt: skip
OBJECTIVES: dict[str, Any] = {
    "dino": DINO,
    "dino, balanced": DINO | {"centring": "sinkhorn_knopp", "patch_head": "own"},
    "masked, by a teacher's attention": {
        "kind": "masked_image", "mask": {"kind": "importance", "source": "attention"},
    },
    "supervised": {"kind": "supervised", "classes": {"task_family": 4, "next.success": 2}},
}  # fmt: skip


def run_of(objective: Any, data: Path, folder: Path) -> Recipe:
    views = {"crops": 2, "crop_size": 16} if objective["kind"] == "dino" else {}
    return job(
        data, folder, objectives=[objective], model=vision_alone(), augmentation={"views": views}
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run_resumes_exactly(tiny_data: Path, tmp_path: Path, after_step: Any, name: str) -> None:
    straight, broken = (
        run_of(OBJECTIVES[name], tiny_data, tmp_path / which) for which in ("one", "two")
    )
    trained(straight)

    after_step(2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match="saved after step 3"):
        trained(broken)
    torch.rand(7)  # the generator is elsewhere when the run is taken up again
    trained(broken, resume=True)

    assert same(checkpoint(straight), checkpoint(broken))
    assert "vision" not in trained(broken, resume=True).config.training.untrained


def test_a_mirrored_samples_label_is_mirrored(tiny_data: Path, tmp_path: Path) -> None:
    sides = {"actions": [], "states": [], "words": {"left": "right"}}
    exchanged = {"labels": {"task_family": {0: 1, 3: 2}}}

    def labels(**augmentation: Any) -> torch.Tensor:
        recipe = run_of(OBJECTIVES["supervised"], tiny_data, tmp_path).model_copy(
            update={"augmentation": AugmentationConfig.model_validate(augmentation)}
        )
        samples = open_samples(recipe, "train", lambda *_: None)
        made = BatchMaker(recipe, samples, None, None, torch.device("cpu"))
        return torch.cat([made.make(step).labels["task_family"] for step in range(4)])

    plain = labels()
    all_turned = labels(flip={"share": 1.0, **sides, **exchanged})
    half = labels(flip={"share": 0.5, **sides, **exchanged})

    assert set(plain.tolist()) >= {0, 1}
    assert torch.equal(all_turned, torch.tensor([1, 0, 3, 2])[plain])
    assert 0 < int((half != plain).sum()) < len(plain)
    assert torch.equal(labels(flip={"share": 1.0, **sides, "labels": {}}), plain)


def test_classes_of_tasks_with_sides_must_be_exchanged_by_a_mirror(
    tiny_data: Path, tmp_path: Path
) -> None:
    def opened(**labels: Any) -> object:
        flip = {"actions": [], "states": [], "words": {"left": "right"}, "labels": labels}
        recipe = job(
            tiny_data, tmp_path, objectives=[OBJECTIVES["supervised"]],
            augmentation={"flip": flip}, data__task="task_family",
        )  # fmt: skip
        return open_samples(recipe, "train", lambda *_: None)

    for labels in ({}, {"next.success": {0: 1}}):
        with pytest.raises(RecipeError, match=r"flip\.labels: found no pairs of task_fam"):
            opened(**labels)
    assert opened(task_family={0: 1, 3: 2})


def test_labels_are_the_data_sets_columns_and_every_metric_is_recorded(
    tiny_data: Path, tmp_path: Path
) -> None:
    recipe = run_of(OBJECTIVES["supervised"], tiny_data, tmp_path)

    trained(recipe)

    last = metrics(recipe)[-1]
    assert last["supervised/next.success/majority"] >= 0.5
    seen = checkpoint(recipe)["module/parts.0.seen0"]
    assert int(seen.sum()) == 6 * 8
    assert bool((seen > 0).all())


def test_a_label_that_the_data_set_lacks_is_named_with_those_it_has(
    tiny_data: Path, tmp_path: Path
) -> None:
    objective = {"kind": "supervised", "classes": {"colour": 2}}

    with pytest.raises(DataError, match="no feature 'colour'; it has: .*task_family") as told:
        trained(run_of(objective, tiny_data, tmp_path))

    assert str(told.value).startswith("objectives.supervised.classes.colour: ")
