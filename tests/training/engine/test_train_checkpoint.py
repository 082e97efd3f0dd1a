"""Checkpoints: everything that must come back, in a file that holds tensors and nothing else."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.training.tiny import batch, latent_action, model
from torch import Tensor
from torch.optim import AdamW

from tectum_core.architecture import VqBottleneck
from tectum_core.model import PerceptionModel
from tectum_train.engine import checkpoint
from tectum_train.engine.checkpoint import CheckpointError, Origin, load_checkpoint, save_checkpoint
from tectum_train.engine.optimiser import optimiser_for
from tectum_train.objectives import WeightedSum, objective_for
from tectum_train.objectives.image_text import ImageTextConfig
from tectum_train.objectives.latent_action import LatentActionObjectiveConfig
from tectum_train.recipe import OptimiserConfig

RECIPE = '{"name": "tiny", "seed": 0}'
ORIGIN = Origin(RECIPE, "0123", ("aaa", "bbb"))


def learning(seed: int = 0) -> tuple[WeightedSum, AdamW]:
    """Two objectives over one model with a codebook, and their optimiser."""
    latent = latent_action(bottleneck=VqBottleneck(codes=2, codebook_size=4, code_width=5))
    network: PerceptionModel = model(seed, latent_action=latent)
    objective = WeightedSum(
        [
            (1.0, objective_for(ImageTextConfig(), network, None)),
            (1.0, objective_for(LatentActionObjectiveConfig(), network, None)),
        ]
    )
    return objective, optimiser_for(objective, OptimiserConfig())


def learn(objective: WeightedSum, adam: AdamW, first: int, last: int) -> None:
    for step in range(first, last):
        torch.manual_seed(step)
        adam.zero_grad()
        objective(batch(seed=step)).loss.backward()
        adam.step()
        objective.after_step()


def state(objective: WeightedSum, adam: AdamW) -> dict[str, Tensor]:
    """Every number that learning has moved."""
    found = dict(objective.state_dict())
    for number, moments in adam.state_dict()["state"].items():
        found |= {f"adam {number} {key}": torch.as_tensor(v) for key, v in moments.items()}
    return found


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_weights_moments_codebook_and_buffers_come_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    learnt = learning()
    learn(*learnt, 0, 3)
    save_checkpoint(path, 3, ORIGIN, *learnt)
    fresh = learning(seed=99)

    done = load_checkpoint(path, ORIGIN, *fresh)

    assert done == (3, ("aaa", "bbb"))
    assert same(state(*learnt), state(*fresh))
    assert float(fresh[0].state_dict()["parts.1.copy_error"]) > 0


def test_learning_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    straight, halted, resumed = learning(), learning(), learning(seed=99)
    learn(*straight, 0, 5)
    learn(*halted, 0, 2)
    save_checkpoint(path, 2, ORIGIN, *halted)

    load_checkpoint(path, ORIGIN, *resumed)
    learn(*resumed, 2, 5)

    assert same(state(*straight), state(*resumed))


def test_the_file_is_tensors_and_a_header_to_the_last_byte(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    learnt = learning()
    learn(*learnt, 0, 1)

    save_checkpoint(path, 1, ORIGIN, *learnt)

    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    moments = json.loads(metadata.pop("moments"))
    assert moments == sorted(learnt[1].state_dict()["state"])
    assert metadata == {
        "step": "1", "recipe": RECIPE, "data": "0123", "commits": '["aaa", "bbb"]',
    }  # fmt: skip
    spans = sorted(tensor["data_offsets"] for tensor in header.values())
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert (spans[0][0], spans[-1][1]) == (0, len(content) - 8 - length)


def test_the_model_that_objectives_share_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    objective, adam = learning()

    save_checkpoint(path, 0, ORIGIN, objective, adam)

    with safe_open(path, framework="pt") as file:
        kept = [key for key in file.keys() if key.endswith("vision.embed.weight")]  # noqa: SIM118
    assert (
        len([name for name in objective.state_dict() if name.endswith("vision.embed.weight")]) > 1
    )
    assert len(kept) == 1


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path / "checkpoint.safetensors", step, ORIGIN, *learning())

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_another_recipe_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, 3, ORIGIN, *learning())
    fresh = learning(seed=99)
    before = {key: value.clone() for key, value in state(*fresh).items()}

    told = r"written under another recipe \(seed: 0 → 1\); use the same settings"
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(path, replace(ORIGIN, recipe='{"name": "tiny", "seed": 1}'), *fresh)

    assert same(before, state(*fresh))


def test_a_recipe_is_the_same_however_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, 3, ORIGIN, *learning())

    same_recipe = replace(ORIGIN, recipe='{"seed":0,\n"name":"tiny"}')
    assert load_checkpoint(path, same_recipe, *learning())[0] == 3


def test_a_file_that_lacks_a_tensor_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    objective, adam = learning()
    smaller = WeightedSum(
        [(1.0, objective_for(ImageTextConfig(), model(latent_action=None), None))]
    )
    save_checkpoint(path, 3, ORIGIN, smaller, adam)

    with pytest.raises(CheckpointError, match=r"lacks module/parts\.0\.model\.latent_action\."):
        load_checkpoint(path, ORIGIN, objective, adam)


def test_a_world_model_of_the_older_layout_is_refused_by_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, 3, ORIGIN, *learning())
    key = "module/parts.0.model.world_model.embed_action"

    def older(tensors: dict[str, torch.Tensor], _: Any) -> None:
        for layer, name in ((0, "weight"), (0, "bias"), (2, "weight"), (2, "bias")):
            taken = tensors.pop(f"{key}.{layer}.{name}")
            tensors[f"{key}.{name}"] = taken

    rewritten(path, older)

    with pytest.raises(CheckpointError, match=r"older version .* train anew, or go on with the"):
        load_checkpoint(path, ORIGIN, *learning())


def rewritten(path: Path, edit: Any) -> None:
    """The checkpoint with its tensors and header changed."""
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    edit(tensors, header)
    save_file(tensors, path, metadata=header)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda tensors, _: tensors.pop("adam/3/exp_avg_sq"), "lacks adam/3/exp_avg_sq"),
        (lambda tensors, _: tensors.pop("adam/3/step"), "lacks adam/3/step"),
        (
            lambda tensors, _: [tensors.pop(f"adam/3/{k}") for k in ("exp_avg_sq", "exp_avg")],
            "lacks adam/3/exp_avg",
        ),
        (lambda tensors, _: tensors.update({"adam/3/more": torch.ones(1)}), "unknown adam/3/more"),
        (
            lambda tensors, _: tensors.update({"adam/3/exp_avg": torch.ones(1)}),
            r"adam/3/exp_avg has shape \[1\], not the model's",
        ),
        (lambda _, header: header.pop("data"), "does not say its data, .*begin a new run"),
        (lambda _, header: header.pop("moments"), "does not say its moments"),
        (lambda _, header: header.update({"data": "4567"}), "trained on other data than"),
    ],
)
def test_what_is_not_whole_or_not_its_own_is_refused_and_nothing_is_touched(
    tmp_path: Path, edit: Any, words: str
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    learnt = learning()
    learn(*learnt, 0, 1)
    save_checkpoint(path, 1, ORIGIN, *learnt)
    rewritten(path, edit)
    fresh = learning(seed=99)
    before = {key: value.clone() for key, value in state(*fresh).items()}

    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path, ORIGIN, *fresh)

    assert same(before, state(*fresh))


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, 1, ORIGIN, *learning())
    path.write_bytes(path.read_bytes()[:-9])

    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is damaged"):
        load_checkpoint(path, ORIGIN, *learning())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_the_file_does_not_stay_mapped(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    learnt, resumed = learning(), learning(seed=99)
    learn(*learnt, 0, 1)
    save_checkpoint(path, 1, ORIGIN, *learnt)

    load_checkpoint(path, ORIGIN, *resumed)

    assert str(path) not in Path("/proc/self/maps").read_text()


def test_a_write_that_dies_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    learnt = learning()
    save_checkpoint(path, 3, ORIGIN, *learnt)

    def die(tensors: Any, draft: Path, **_: Any) -> None:
        draft.write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", die)
    with pytest.raises(CheckpointError, match=f"{path} cannot be written: no space left"):
        save_checkpoint(path, 4, ORIGIN, *learnt)

    assert not path.with_suffix(".writing").exists()
    assert load_checkpoint(path, ORIGIN, *learning())[0] == 3
