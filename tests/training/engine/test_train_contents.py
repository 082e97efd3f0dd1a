"""What batches contain beside a frame: views, crops, clips, moments, labels, a moved camera.

Each against the samples' own frames, and again from (seed, step) alone.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.tiny import job, parts
from torch import Tensor

from tectum_core.preprocess import to_pixels
from tectum_core.tokenizer import Tokenizer
from tectum_train.augment import Draws, Frames, Views
from tectum_train.data.samples import Order, Samples
from tectum_train.engine.batches import BatchMaker
from tectum_train.engine.building import open_samples
from tectum_train.engine.scaling import scaling_of
from tectum_train.engine.words import mirrored
from tectum_train.objectives import Batch, Reads
from tectum_train.objectives.batch import given
from tectum_train.objectives.sim_clr import SimClrConfig
from tectum_train.recipe import Recipe

ALL = Reads.LATER | Reads.VIEWS | Reads.CROPS | Reads.CLIP | Reads.MOMENTS
STILL: dict[str, Any] = {"shift": 0, "zoom": 0.0, "colour": 0.0, "hue": 0.0}
UNCHANGED = {
    "area": [1.0, 1.0], "aspect": 1, "crop_area": [1.0, 1.0], "colour": 0, "hue": 0, "grey": 0,
    "blur": 0,
}  # fmt: skip
CROP: dict[str, Any] = {"area": [0.4, 1.0]}
MOVING: dict[str, Any] = {
    "shift": 3, "zoom": 0.2, "crop": CROP, "colour": 0.3, "hue": 0.1, "grey": 0.2, "blur": 0.3,
}  # fmt: skip
MIRROR = {"actions": [0], "states": [0], "words": {"left": "right"}, "labels": {}}
FRAMES, STEPS = 4, 3


@pytest.fixture(scope="module")
def samples(tiny_data: Path) -> Samples:
    return open_samples(job(tiny_data, tiny_data), "train", lambda *_: None)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """SimCLR as an objective that reads all that batches can contain."""
    monkeypatch.setattr(SimClrConfig, "reads", property(lambda _: ALL))
    monkeypatch.setattr(SimClrConfig, "sees_frames", property(lambda _: True))
    monkeypatch.setattr(SimClrConfig, "labels", property(lambda _: ("task_family", "layout")))


def recipe(data: Path, augmentation: dict[str, Any], **changes: Any) -> Recipe:
    actions = {"dimensions": 4, "state_dimensions": 8, "max_steps": 8}
    views = {"crops": 3, "crop_size": 16, **augmentation.get("views", {})}
    given_: dict[str, Any] = {
        "objectives": [{"kind": "sim_clr"}],
        "model": parts(actions=actions),
        "data__intrinsics": "camera.intrinsics",
        "data__clip": {"frames": FRAMES, "steps": STEPS},
        "augmentation": {**augmentation, "views": views},
        **changes,
    }
    return job(data, data, **given_)


def maker(made_of: Recipe, samples: Samples) -> BatchMaker:
    tokenizer = Tokenizer.train(samples.instructions, 120)
    scaling = scaling_of(made_of, samples)
    return BatchMaker(made_of, samples, tokenizer, scaling, torch.device("cpu"))


def drawn(made_of: Recipe, samples: Samples, step: int) -> Draws:
    """Which samples a step takes, and in which epoch."""
    index, epoch = Order(made_of.seed, made_of.schedule.batch_size, len(samples)).of(step)
    return Draws(made_of.seed, epoch, index)


def recorded(samples: Samples, at: Any) -> Tensor:
    """uint8[…, 3, S, S], the samples' frames there."""
    return torch.from_numpy(np.moveaxis(samples.frames[at], -1, -3).copy())


def pixels(seen: Tensor, made_of: Recipe) -> Tensor:
    return to_pixels(seen, made_of.images)


def tensors(batch: Batch) -> dict[str, Tensor]:
    """Everything that a batch contains."""
    found: dict[str, Tensor] = {f"label {name}": one for name, one in batch.labels.items()}
    for part, prefix in ((batch, ""), (batch.clip, "clip ")):
        for one in fields(part):  # type: ignore[arg-type]
            value = getattr(part, one.name)
            if isinstance(value, Tensor):
                found[prefix + one.name] = value
    return found


# ---------------------------------------------------------------- exactly again


@pytest.mark.usefixtures("reading")
def test_all_of_a_batch_is_made_again_from_seed_and_step(tiny_data: Path, samples: Samples) -> None:
    second = {"blur": 0.1, "solarise": 0.4}
    views = {"flip": 0.5, "blur": 0.5, "second": second, "crop_area": [0.05, 0.3]}
    made_of = recipe(tiny_data, {**MOVING, "flip": MIRROR, "views": views})
    first, again = maker(made_of, samples), maker(made_of, samples)

    before = {step: tensors(first.make(step)) for step in (0, 40)}

    assert before[0].keys() >= {
        "views", "crops", "moments", "later", "clip frames", "clip actions", "label layout",
    }  # fmt: skip
    for step in (40, 0):
        after = tensors(again.make(step))
        assert after.keys() == before[step].keys()
        for name, tensor in after.items():
            assert torch.equal(tensor, before[step][name]), name
    other = maker(recipe(tiny_data, MOVING, seed=1), samples).make(0)
    assert not torch.equal(given(other.views, "views"), before[0]["views"])


def test_what_no_objective_reads_is_not_made(tiny_data: Path, samples: Samples) -> None:
    plain = job(tiny_data, tiny_data, objectives=[{"kind": "sim_clr"}])

    made = maker(plain, samples).make(0)

    assert given(made.views, "views").shape == (8, 2, 3, 32, 32)
    assert (made.later, made.crops, made.clip, made.moments, made.labels) == (
        None, None, None, None, {},
    )  # fmt: skip


# ---------------------------------------------------------------- what each contains


@pytest.mark.usefixtures("reading")
def test_unchanged_views_and_crops_are_the_frame(tiny_data: Path, samples: Samples) -> None:
    views = {**UNCHANGED, "crop_size": 32}
    made_of = recipe(tiny_data, {**STILL, "views": views})
    made = maker(made_of, samples).make(2)
    frames = recorded(samples, drawn(made_of, samples, 2).index)

    for seen in (given(made.views, "views"), given(made.crops, "crops")):
        for view in pixels(seen, made_of).unbind(1):
            assert (view.int() - frames.int()).abs().max() <= 1


@pytest.mark.usefixtures("reading")
def test_views_and_crops_are_those_of_their_samples_draws(
    tiny_data: Path, samples: Samples
) -> None:
    made_of = recipe(tiny_data, MOVING)
    made, draws = maker(made_of, samples).make(5), drawn(made_of, samples, 5)
    frames, views = recorded(samples, draws.index), Views(32, made_of.augmentation.views)

    whole, small = given(made.views, "views"), given(made.crops, "crops")

    assert small.shape == (8, 3, 3, 16, 16)
    assert torch.equal(pixels(whole, made_of), views.whole(frames, draws))
    assert torch.equal(pixels(small, made_of), views.small(frames, draws))
    assert not torch.equal(whole[:, 0], whole[:, 1])


@pytest.mark.usefixtures("reading")
def test_clips_are_frames_in_a_row_with_what_was_done(tiny_data: Path, samples: Samples) -> None:
    made_of = recipe(tiny_data, STILL)
    made, index = maker(made_of, samples).make(1), drawn(made_of, samples, 1).index
    scaling, clip = scaling_of(made_of, samples), given(made.clip, "a clip")
    seen = pixels(clip.frames, made_of)

    for row, start in enumerate(samples.clip(index, FRAMES, STEPS)):
        last = samples.last[start]
        at = [min(start + STEPS * frame, last) for frame in range(FRAMES)]
        assert torch.equal(seen[row], recorded(samples, at))
        assert clip.inside[row].tolist() == [start + STEPS * f <= last for f in range(FRAMES)]
        for frame in range(FRAMES):
            steps = [start + STEPS * frame + step for step in range(STEPS)]
            done = samples.column("action")[[min(step, last) for step in steps]]
            acted = scaling.restore(clip.actions[row, frame])
            assert torch.allclose(acted, torch.from_numpy(done.astype(np.float32)), atol=1e-6)


@pytest.mark.usefixtures("reading")
def test_moments_are_five_frames_of_the_samples_episode_in_order(
    tiny_data: Path, samples: Samples
) -> None:
    made_of = recipe(tiny_data, STILL)
    made, draws = maker(made_of, samples).make(3), drawn(made_of, samples, 3)
    at = samples.moments(draws.index, draws.uniform("moments", 5).numpy())

    seen = pixels(given(made.moments, "moments"), made_of)

    assert torch.equal(seen, recorded(samples, at))
    for row, index in enumerate(draws.index):
        assert (samples.episode[at[row]] == samples.episode[index]).all()
        assert (np.diff(at[row, 1:4]) > 0).all()
        assert samples.progress[at[row, 0]] <= 0.2
        assert samples.progress[at[row, 4]] >= 0.8


@pytest.mark.usefixtures("reading")
def test_labels_are_the_features_of_the_frame(tiny_data: Path, samples: Samples) -> None:
    made_of = recipe(tiny_data, MOVING)
    made, index = maker(made_of, samples).make(4), drawn(made_of, samples, 4).index

    assert made.labels.keys() == {"task_family", "layout"}
    for name, values in made.labels.items():
        assert values.dtype == torch.int64
        assert values.tolist() == samples.column(name)[index].tolist()


# ---------------------------------------------------------------- moved together


@pytest.mark.usefixtures("reading")
def test_all_frames_of_a_sample_and_its_camera_are_moved_alike(
    tiny_data: Path, samples: Samples
) -> None:
    made_of = recipe(tiny_data, {**MOVING, "flip": MIRROR})
    still = Samples(samples.dataset, samples.frames[:1].repeat(len(samples), 0))
    made, draws = maker(made_of, still).make(6), drawn(made_of, still, 6)
    scaling = scaling_of(made_of, still)
    placement = Frames(32, made_of.augmentation).placement(draws)

    clip, moments = given(made.clip, "a clip"), given(made.moments, "moments")

    for frames in (clip.frames, moments, given(made.later, "later frames")[:, None]):
        assert torch.equal(frames, made.earlier[:, None].expand(frames.shape))
    expected = placement.intrinsics(torch.tensor([40.0, 40, 16, 16]).expand(8, 4))
    deviation = torch.tensor(scaling.state_standard_deviation[4:])
    found = made.state[:, 4:] * deviation + torch.tensor(scaling.state_mean[4:])
    assert torch.allclose(found, expected, atol=1e-3)
    assert not torch.equal(expected[0], expected[1])


@pytest.mark.usefixtures("reading")
def test_mirrored_samples_are_mirrored_in_pictures_words_actions_and_states(
    tiny_data: Path, samples: Samples
) -> None:
    tokenizer = Tokenizer.train(samples.instructions, 120)
    plain_of = recipe(tiny_data, STILL)
    turned_of = recipe(tiny_data, {**STILL, "flip": MIRROR | {"share": 1.0}})
    plain, turned = (
        BatchMaker(made_of, samples, tokenizer, None, torch.device("cpu")).make(2)
        for made_of in (plain_of, turned_of)
    )
    before, after = given(plain.clip, "a clip"), given(turned.clip, "a clip")
    sign = torch.tensor([-1.0, 1, 1, 1])

    assert torch.equal(turned.earlier, plain.earlier.flip(-1))
    for row, (task, ids) in enumerate(zip(plain.task.tolist(), turned.ids.tolist(), strict=True)):
        said = tokenizer.decode(ids)
        assert said == mirrored(samples.instructions[task], {"left": "right"})
        assert said != samples.instructions[task]
        assert int(turned.task[row]) == samples.instructions.index(said)
    assert torch.equal(after.frames, before.frames.flip(-1))
    assert torch.equal(turned.actions, plain.actions * sign)
    assert torch.equal(after.actions, before.actions * sign)
    assert torch.equal(turned.state[:, :4], plain.state[:, :4] * sign)
    assert (turned.state[:, 4:] == torch.tensor([40.0, 40, 15, 16])).all()


def test_samples_come_of_a_few_episodes_at_once(tiny_data: Path, samples: Samples) -> None:
    few = job(tiny_data, tiny_data, data__episodes_at_once=2)

    made = [maker(few, samples).make(step) for step in range(2)]
    every = maker(job(tiny_data, tiny_data), samples).make(0)

    (pool,) = {frozenset(batch.episode.tolist()) for batch in made}
    assert len(pool) == 2
    assert len(set(every.episode.tolist())) > 2


def test_so_many_of_each_episodes_frames_make_each_steps_episodes_other_ones(
    tiny_data: Path, samples: Samples
) -> None:
    size = job(tiny_data, tiny_data).schedule.batch_size
    few = {"data__episodes_at_once": 2, "data__frames_at_once": size // 2}

    one, other = (maker(job(tiny_data, tiny_data, **few), samples).make(step) for step in range(2))

    assert np.unique(one.episode, return_counts=True)[1].tolist() == [size // 2] * 2
    assert not set(one.episode.tolist()) & set(other.episode.tolist())
