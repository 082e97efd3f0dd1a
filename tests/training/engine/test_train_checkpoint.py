"""Checkpoints: everything that must come back, in a file that holds tensors and nothing else."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.training.tiny import batch, latent_action, model
from torch import Tensor
from torch.optim import AdamW

from tectum_core.architecture import VqBottleneck
from tectum_core.model import PerceptionModel
from tectum_train.engine import checkpoint
from tectum_train.engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from tectum_train.engine.optimiser import optimiser_for
from tectum_train.objectives import WeightedSum, objective_for
from tectum_train.objectives.image_text import ImageTextConfig
from tectum_train.objectives.latent_action import LatentActionObjectiveConfig
from tectum_train.recipe import OptimiserConfig

RECIPE = '{"name": "tiny", "seed": 0}'


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
    save_checkpoint(path, 3, RECIPE, *learnt)
    fresh = learning(seed=99)

    done = load_checkpoint(path, RECIPE, *fresh)

    assert done == 3
    assert same(state(*learnt), state(*fresh))
    assert float(fresh[0].state_dict()["parts.1.copy_error"]) > 0


def test_learning_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    straight, halted, resumed = learning(), learning(), learning(seed=99)
    learn(*straight, 0, 5)
    learn(*halted, 0, 2)
    save_checkpoint(path, 2, RECIPE, *halted)

    load_checkpoint(path, RECIPE, *resumed)
    learn(*resumed, 2, 5)

    assert same(state(*straight), state(*resumed))


def test_the_file_is_tensors_and_a_header_to_the_last_byte(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    learnt = learning()
    learn(*learnt, 0, 1)

    save_checkpoint(path, 1, RECIPE, *learnt)

    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert metadata == {"step": "1", "recipe": RECIPE}
    spans = sorted(tensor["data_offsets"] for tensor in header.values())
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert (spans[0][0], spans[-1][1]) == (0, len(content) - 8 - length)


def test_the_model_that_objectives_share_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    objective, adam = learning()

    save_checkpoint(path, 0, RECIPE, objective, adam)

    with safe_open(path, framework="pt") as file:
        kept = [key for key in file.keys() if key.endswith("vision.embed.weight")]  # noqa: SIM118
    assert (
        len([name for name in objective.state_dict() if name.endswith("vision.embed.weight")]) > 1
    )
    assert len(kept) == 1


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path / "checkpoint.safetensors", step, RECIPE, *learning())

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_another_recipe_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, 3, RECIPE, *learning())
    fresh = learning(seed=99)
    before = {key: value.clone() for key, value in state(*fresh).items()}

    with pytest.raises(CheckpointError, match="written under another recipe"):
        load_checkpoint(path, '{"name": "tiny", "seed": 1}', *fresh)

    assert same(before, state(*fresh))


def test_a_recipe_is_the_same_however_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, 3, RECIPE, *learning())

    assert load_checkpoint(path, '{"seed":0,\n"name":"tiny"}', *learning()) == 3


def test_a_file_that_lacks_a_tensor_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    objective, adam = learning()
    smaller = WeightedSum(
        [(1.0, objective_for(ImageTextConfig(), model(latent_action=None), None))]
    )
    save_checkpoint(path, 3, RECIPE, smaller, adam)

    with pytest.raises(CheckpointError, match=r"lacks parts\.0\.model\.latent_action\."):
        load_checkpoint(path, RECIPE, objective, adam)


def test_a_write_that_dies_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    learnt = learning()
    save_checkpoint(path, 3, RECIPE, *learnt)

    def die(tensors: Any, draft: Path, **_: Any) -> None:
        draft.write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", die)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(path, 4, RECIPE, *learnt)

    assert load_checkpoint(path, RECIPE, *learning()) == 3
