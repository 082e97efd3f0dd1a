"""Runs of codes and clips: what they leave for other recipes, and that they resume exactly."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from tests.training.engine.runs import checkpoint, died_and_resumed, folder, same, trained
from tests.training.tiny import (
    FPS,
    INTERVAL_STEPS,
    batch,
    code_shape,
    image_tokenizer,
    job,
    model,
    tokenizer,
    video,
    vision_alone,
)

from tectum_train.engine.accumulation import backward
from tectum_train.engine.checkpoint import CheckpointError
from tectum_train.image_tokenizer import FILE, read_image_tokenizer
from tectum_train.objectives import ObjectiveConfig, WeightedSum, objective_for
from tectum_train.objectives.beit import Beit
from tectum_train.recipe import Recipe, RecipeError

CLIP = {"frames": 4, "steps": INTERVAL_STEPS}


def naming(data: Path, output: Path, **changes: Any) -> Recipe:
    """A run whose codes die so often that each step draws new ones."""
    learnt = {"kind": "image_codes", **code_shape(), "restart_below": 0.9}
    return job(data, output, model=vision_alone(), objectives=[learnt], **changes)


def guessing(data: Path, output: Path, tokenizer: Path, **changes: Any) -> Recipe:
    learnt = {"kind": "beit", "tokenizer": str(tokenizer)}
    return job(data, output, model=vision_alone(), objectives=[learnt], **changes)


def filling(data: Path, output: Path, **changes: Any) -> Recipe:
    given = {
        "model": {**vision_alone(), **video()}, "objectives": [{"kind": "video_mae"}],
        "data__clip": CLIP, **changes,
    }  # fmt: skip
    return job(data, output, **given)


RUNS = {
    "image_codes": naming,
    "beit": lambda data, output, **changes: guessing(data, output, image_tokenizer(), **changes),
    "video_mae": filling,
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_that_died_goes_on_as_the_one_that_did_not(
    kind: str, tiny_data: Path, tmp_path: Path, after_step: Any
) -> None:
    straight, broken = (
        RUNS[kind](tiny_data, tmp_path / name, schedule__checkpoint_every=2)
        for name in ("one", "two")
    )
    trained(straight)

    died_and_resumed(broken, after_step)

    assert same(checkpoint(straight), checkpoint(broken))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("image_codes", code_shape()),
        ("beit", {"tokenizer": str(image_tokenizer())}),
        ("video_mae", {"mask": {"kind": "random", "ratios": (0.3, 0.8)}}),
    ],
)
def test_a_batch_in_pieces_teaches_what_the_whole_does(kind: str, settings: Any) -> None:
    config: Any = TypeAdapter[Any](ObjectiveConfig).validate_python({"kind": kind, **settings})
    gradients = []
    for pieces in (1, 4):
        network = model(**video())
        torch.manual_seed(0)
        learnt = WeightedSum([(1.0, objective_for(config, network, None))])
        made = batch(8)
        assert made.clip is not None
        made.clip.inside = torch.arange(4)[None] < 1 + torch.arange(8)[:, None] % 4
        backward(learnt, made, pieces, nullcontext)
        gradients.append({k: p.grad for k, p in learnt.named_parameters() if p.grad is not None})

    whole, summed = gradients
    assert whole.keys() == summed.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(summed[name], gradient, rtol=1e-3, atol=1e-6)


# ---------------------------------------------------------------- the tokenizer of a run


def test_a_finished_run_leaves_its_tokenizer_for_another_to_learn_from(
    tiny_data: Path, tmp_path: Path
) -> None:
    made = naming(tiny_data, tmp_path / "codes")
    run = trained(made)

    learnt = trained(guessing(tiny_data, tmp_path / "beit", folder(made)))

    tokenizer, config = read_image_tokenizer(folder(made) / FILE)
    pixels = batch(4).earlier
    assert torch.equal(tokenizer.encoder(pixels).tokens, run.model.vision(pixels).tokens)
    assert config.images == made.images
    (objective,) = learnt.parts
    assert isinstance(objective, Beit)
    assert torch.equal(objective.codes(pixels), tokenizer.codes(pixels))
    assert learnt.config.training.learnt("vision")


def test_a_run_with_another_tokenizer_is_not_resumed(tiny_data: Path, tmp_path: Path) -> None:
    path = tmp_path / FILE
    shutil.copy(image_tokenizer(0) / FILE, path)
    recipe = guessing(tiny_data, tmp_path, tmp_path, schedule__checkpoint_every=3)
    trained(recipe)

    trained(recipe, resume=True)
    shutil.copy(image_tokenizer(1) / FILE, path)

    with pytest.raises(CheckpointError, match=rf"another recipe \(content\.{path}: .* → "):
        trained(recipe, resume=True)


def test_where_a_tokenizer_lies_is_written_and_what_it_holds_is_not_taken_from_there(
    tiny_data: Path, tmp_path: Path
) -> None:
    recipe = guessing(tiny_data, tmp_path, image_tokenizer())

    tree = json.loads(recipe.identity())

    (held,) = tree.pop("content").values()
    assert len(held) == 64
    assert "content" not in json.loads(naming(tiny_data, tmp_path).identity())
    with pytest.raises(RecipeError, match=r"a file that an objective learns from: .*nowhere"):
        guessing(tiny_data, tmp_path, Path("/nowhere")).identity()


def test_a_tokenizer_of_pictures_made_otherwise_is_refused_before_the_first_step(
    tiny_data: Path, tmp_path: Path
) -> None:
    recipe = guessing(
        tiny_data, tmp_path, image_tokenizer(), images={"size": 32, "interpolation": "bicubic"}
    )

    with pytest.raises(ValueError, match="made otherwise: interpolation bilinear there, bicubic"):
        trained(recipe)
    assert not recipe.checkpoint.exists()


# ---------------------------------------------------------------- clips


def test_clips_as_long_as_the_trunks_input_or_none(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"frames \(8\) must equal model\.video\.frames \(4\)"):
        filling(tiny_data, tmp_path, data__clip={"frames": 8, "steps": INTERVAL_STEPS})


def test_frames_of_a_clip_lie_as_far_apart_as_the_bundle_will_say(
    tiny_data: Path, tmp_path: Path
) -> None:
    recipe = filling(tiny_data, tmp_path, data__clip={"frames": 4, "steps": 3})

    with pytest.raises(RecipeError, match=rf"3 steps at {FPS} a second are 0\.1875 s, but model"):
        trained(recipe)


def test_a_run_on_clips_trains_the_clip_trunk_and_says_that_it_did_no_other(
    tiny_data: Path, tmp_path: Path
) -> None:
    run = trained(filling(tiny_data, tmp_path))

    assert run.config.training.learnt("video", "video_decoder")
    assert not run.config.training.learnt("vision")


@pytest.mark.parametrize("kind", ["beit", "video_mae"])
def test_what_counts_is_what_is_hidden_whoever_draws_before(kind: str) -> None:
    settings = {"tokenizer": str(image_tokenizer())} if kind == "beit" else {}
    mask = {"kind": "random", "ratios": (0.2, 0.4, 0.6, 0.8)}
    config: Any = TypeAdapter[Any](ObjectiveConfig).validate_python(
        {"kind": kind, "mask": mask, **settings}
    )
    objective: Any = objective_for(config, model(**video()), tokenizer())
    counts = []
    for drawn in range(12):  # by objectives before it
        made = batch(8)
        torch.rand(drawn, generator=made.generator)
        counts.append(float(objective.counted(made)))
        first = objective(made).loss.item()
        second = objective(batch(8)).loss.item()
        assert first == second

    assert len(set(counts)) == 1
