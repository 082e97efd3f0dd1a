"""Batches: a pure function of the step, whose masks spare special tokens, made one ahead."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.tiny import batch, job, model, parts, vision_alone
from torch import Tensor

from tectum_core.preprocess import ActionScaling
from tectum_core.tokenizer import Tokenizer
from tectum_train.data.samples import Samples
from tectum_train.engine.batches import BatchMaker, Prefetch
from tectum_train.engine.building import open_samples
from tectum_train.objectives import Batch
from tectum_train.objectives.batch import given
from tectum_train.recipe import Recipe

FIELDS = (
    "earlier", "later", "paired", "ids", "ids_seen", "content", "task", "episode", "actions",
    "padded", "progress", "seeds", "state",
)  # fmt: skip


@pytest.fixture(scope="module")
def samples(tiny_data: Path) -> Samples:
    return open_samples(job(tiny_data, tiny_data), "train", lambda *_: None)


def maker(
    recipe: Recipe, samples: Samples, vocabulary: int = 120, scaling: ActionScaling | None = None
) -> tuple[BatchMaker, Tokenizer]:
    tokenizer = Tokenizer.train(samples.instructions, vocabulary)
    return BatchMaker(recipe, samples, tokenizer, scaling, torch.device("cpu")), tokenizer


def fields(one: Batch) -> dict[str, Tensor]:
    return {name: getattr(one, name) for name in FIELDS}


# ---------------------------------------------------------------- making


def test_a_steps_batch_is_always_the_same_one(tiny_data: Path, samples: Samples) -> None:
    recipe = job(tiny_data, tiny_data, augmentation__colour=0.3, data__pair_steps=[2, 3, 4])
    first, again = maker(recipe, samples)[0], maker(recipe, samples)[0]

    made = {step: first.make(step) for step in (0, 1, 7)}

    for step in (7, 0, 1):  # in another order, by another maker
        other = again.make(step)
        for name, tensor in fields(made[step]).items():
            assert torch.equal(tensor, getattr(other, name)), name
        assert torch.equal(
            torch.rand(5, generator=made[step].generator), torch.rand(5, generator=other.generator)
        )


def test_no_draw_of_a_step_gives_another_one_away(tiny_data: Path, samples: Samples) -> None:
    making = maker(job(tiny_data, tiny_data), samples)[0]

    made = [making.make(step) for step in range(3)]

    seeds = [*(b.noise for b in made), *(b.generator.initial_seed() for b in made)]
    assert len(set(seeds)) == 6


def test_steps_and_seeds_differ(tiny_data: Path, samples: Samples) -> None:
    one = maker(job(tiny_data, tiny_data, seed=1), samples)[0]
    two = maker(job(tiny_data, tiny_data, seed=2), samples)[0]

    assert not torch.equal(one.make(0).earlier, one.make(1).earlier)
    assert not torch.equal(one.make(0).earlier, two.make(0).earlier)
    assert one.make(0).generator.initial_seed() != one.make(1).generator.initial_seed()


def test_a_samples_own_draws_are_the_same_in_batches_of_any_size_and_others_in_another_epoch(
    tiny_data: Path, samples: Samples
) -> None:
    whole = len(samples)
    large, small = (
        maker(job(tiny_data, tiny_data, schedule__batch_size=size), samples)[0] for size in (8, 4)
    )
    epoch = maker(job(tiny_data, tiny_data, schedule__batch_size=whole), samples)[0]

    halves = torch.cat([small.make(step).seeds for step in (2, 3)])
    seeds = torch.cat([epoch.make(step).seeds for step in (0, 1)])

    assert torch.equal(halves, large.make(1).seeds)
    assert len(seeds.unique()) == 2 * whole


def test_parts_of_every_third_sample_have_their_own_draws_and_share_the_steps() -> None:
    whole = batch(9)
    whole.image(model())
    torch.rand(2, generator=whole.generator)
    state = whole.generator.get_state()

    parts = [whole.part(number, 9, 3) for number in range(3)]

    for name in FIELDS:
        together = torch.stack([getattr(one, name) for one in parts], dim=1).flatten(0, 1)
        assert torch.equal(together, getattr(whole, name)), name
    drawn = [torch.rand(4, generator=one.generator) for one in parts]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(whole.generator.get_state(), state)
    first = [torch.rand((), generator=one) for one in whole.streams("mask")]
    own = [torch.rand((), generator=one) for one in parts[1].streams("mask")]
    assert own == first[1::3]
    assert not any(one._image for one in parts)
    assert parts[2].clip is not None
    assert torch.equal(parts[2].labels["task_family"], whole.labels["task_family"][2::3])


def test_shapes_are_what_the_batch_says(tiny_data: Path, samples: Samples) -> None:
    made = maker(job(tiny_data, tiny_data), samples)[0].make(0)

    shapes = {name: tuple(tensor.shape) for name, tensor in fields(made).items()}
    assert shapes == {
        "earlier": (8, 3, 32, 32),
        "later": (8, 3, 32, 32),
        "paired": (8,),
        "ids": (8, 12),
        "ids_seen": (8, 12),
        "content": (8, 12),
        "task": (8,),
        "episode": (8,),
        "progress": (8,),
        "actions": (8, 8, 4),
        "padded": (8, 8),
        "seeds": (8,),
        "state": (8, 4),
    }
    assert len(made) == 8


def test_without_augmentation_pixels_are_the_normalised_frames(
    tiny_data: Path, samples: Samples
) -> None:
    recipe = job(
        tiny_data, tiny_data, augmentation={"shift": 0, "colour": 0, "hue": 0},
        images={"size": 32, "mean": [0.2, 0.4, 0.6], "standard_deviation": [0.5, 1, 2]},
    )  # fmt: skip

    made = maker(recipe, samples)[0].make(3)

    scaled = made.earlier * torch.tensor([0.5, 1, 2]).view(3, 1, 1)
    pixels = (scaled + torch.tensor([0.2, 0.4, 0.6]).view(3, 1, 1)) * 255
    nearest = [
        (torch.from_numpy(samples.frames.copy()).permute(0, 3, 1, 2) - one).abs().amax((1, 2, 3))
        for one in pixels
    ]
    assert all(float(found.min()) < 0.01 for found in nearest)


def test_both_frames_of_a_pair_move_alike(tiny_data: Path, samples: Samples) -> None:
    still = Samples(samples.dataset, samples.frames[:1].repeat(len(samples), 0))
    recipe = job(tiny_data, tiny_data, augmentation__shift=3, augmentation__colour=0.3)

    made = maker(recipe, still)[0].make(0)

    assert torch.equal(made.earlier, given(made.later, "later frames"))
    assert not torch.equal(made.earlier[0], made.earlier[1])


APART = [{"kind": "latent_action", "appearance": "apart"}]


def test_a_pair_in_other_colours_sits_where_the_pair_does(
    tiny_data: Path, samples: Samples
) -> None:
    grey = Samples(samples.dataset, np.repeat(samples.frames[..., :1], 3, axis=-1))
    recipe = job(
        tiny_data, tiny_data, objectives=APART,
        augmentation={"shift": 3, "zoom": 0.1, "colour": 0, "hue": 0.3},
    )  # fmt: skip

    made = maker(recipe, grey)[0].make(0)  # whose hues cannot be seen

    pair = torch.stack([made.earlier, given(made.later, "later frames")], dim=1)
    assert torch.equal(given(made.recoloured, "pairs in other colours"), pair)


def test_other_colours_are_drawn_once_for_a_pair_and_always_the_same(
    tiny_data: Path, samples: Samples
) -> None:
    still = Samples(samples.dataset, samples.frames[:1].repeat(len(samples), 0))
    recipe = job(tiny_data, tiny_data, objectives=APART, augmentation__colour=0.5)

    one, again = (maker(recipe, still)[0].make(4) for _ in range(2))

    apart = given(one.recoloured, "pairs in other colours")
    assert torch.equal(apart[:, 0], apart[:, 1])
    assert all(not torch.equal(*pair) for pair in zip(apart[:, 0], one.earlier, strict=True))
    assert torch.equal(apart, given(again.recoloured, "pairs in other colours"))


def test_noise_on_actions_is_a_samples_own_and_leaves_what_is_to_be_told(
    tiny_data: Path, samples: Samples
) -> None:
    plain, made, again = (
        maker(job(tiny_data, tiny_data, augmentation__action_noise=noise), samples)[0].make(1)
        for noise in (0.0, 0.5, 0.5)
    )

    added = given(made.action_noise, "noise")
    assert torch.equal(made.actions, plain.actions)
    assert torch.equal(plain.shown_actions, plain.actions)
    assert torch.equal(made.shown_actions, made.actions + added)
    assert torch.equal(added, given(again.action_noise, "noise"))
    assert 0.4 < float(added.std()) < 0.6
    assert all(not torch.equal(added[0], other) for other in added[1:])
    clips = [given(one.clip, "clips").actions for one in (plain, made, again)]
    assert 0.4 < float((clips[1] - clips[0]).std()) < 0.6
    assert torch.equal(clips[1], clips[2])
    assert not torch.allclose((clips[1] - clips[0]).flatten(), added.flatten(), atol=0.01)


def test_actions_and_states_are_standardised(tiny_data: Path, samples: Samples) -> None:
    scaling = ActionScaling(
        names=tuple("xyzg"), mean=(1,) * 4, standard_deviation=(2,) * 4, step_interval=0.1,
        state_names=tuple("xyzg"), state_mean=(3,) * 4, state_standard_deviation=(4,) * 4,
    )  # fmt: skip
    recipe = job(tiny_data, tiny_data)

    raw = maker(recipe, samples)[0].make(0)
    scaled = maker(recipe, samples, scaling=scaling)[0].make(0)

    assert torch.allclose(scaled.actions, (raw.actions - 1) / 2)
    assert torch.allclose(scaled.state, (raw.state - 3) / 4)


def test_content_covers_neither_special_tokens_nor_padding(
    tiny_data: Path, samples: Samples
) -> None:
    maker_, tokenizer = maker(job(tiny_data, tiny_data), samples)
    special = {tokenizer.encode("", 12).ids[0], tokenizer.encode("", 12).ids[-1], tokenizer.pad_id}

    made = maker_.make(0)

    assert special.isdisjoint(made.ids[made.content].tolist())
    assert set(made.ids[~made.content].tolist()) == special
    assert (made.content <= made.ids_seen).all()
    assert torch.equal(made.ids_seen, made.ids != tokenizer.pad_id)
    assert made.content.any(dim=1).all()


def test_a_sentence_that_is_cut_keeps_its_end_token(tiny_data: Path, samples: Samples) -> None:
    text = parts()["text"] | {"max_tokens": 4}
    recipe = job(tiny_data, tiny_data, model=parts(text=text))

    made = maker(recipe, samples)[0].make(0)

    assert made.ids.shape == (8, 4)
    assert made.content.tolist() == [[False, True, True, False]] * 8
    assert made.ids_seen.all()


def test_the_words_are_the_instructions(tiny_data: Path, samples: Samples) -> None:
    maker_, tokenizer = maker(job(tiny_data, tiny_data), samples)

    made = maker_.make(2)

    for ids, task in zip(made.ids.tolist(), made.task.tolist(), strict=True):
        assert tokenizer.decode(ids) == samples.instructions[task]


def test_of_a_tasks_paraphrases_each_is_drawn_and_no_other(
    tiny_data: Path, samples: Samples
) -> None:
    maker_, tokenizer = maker(job(tiny_data, tiny_data, data__task="task_family"), samples)
    paraphrases = samples.paraphrases("task_family")
    drawn: dict[int, set[str]] = {task: set() for task in paraphrases}

    for step in range(12):
        made = maker_.make(step)
        for ids, task in zip(made.ids.tolist(), made.task.tolist(), strict=True):
            drawn[task].add(tokenizer.decode(ids))

    assert drawn == {
        task: {samples.instructions[i] for i in places} for task, places in paraphrases.items()
    }
    assert all(len(sentences) == 2 for sentences in drawn.values())


def test_a_sample_keeps_its_own_task(tiny_data: Path, samples: Samples) -> None:
    recipe = job(
        tiny_data,
        tiny_data,
        data__task="task_family",
        augmentation={"shift": 0, "colour": 0, "hue": 0},
    )

    made = maker(recipe, samples)[0].make(1)

    # Somewhere in a blue scene there is a blue block; families 2 and 3 are blue.
    blue = (made.earlier[:, 2] - made.earlier[:, 0]).amax((1, 2)) > 1
    assert torch.equal(blue, made.task >= 2)


def test_without_a_text_trunk_nothing_is_content(tiny_data: Path, samples: Samples) -> None:
    objectives = [{"kind": "masked_image"}]
    recipe = job(tiny_data, tiny_data, model=vision_alone(), objectives=objectives)

    made = BatchMaker(recipe, samples, None, None, torch.device("cpu")).make(0)

    assert made.ids_seen.all()
    assert not made.content.any()


# ---------------------------------------------------------------- one ahead


def test_batches_come_in_order() -> None:
    made = [batch(2, seed=step) for step in range(5)]

    found = list(Prefetch(lambda step: made[step], 1, 5))

    assert [step for step, _, _ in found] == [1, 2, 3, 4]
    assert all(one is made[step] for step, one, _ in found)
    assert all(waited >= 0 for _, _, waited in found)


def test_nothing_is_made_when_nothing_is_left() -> None:
    def make(step: int) -> Batch:
        raise AssertionError(step)

    assert list(Prefetch(make, 4, 4)) == []


def test_an_error_reaches_the_loop_after_the_batches_before_it() -> None:
    def make(step: int) -> Batch:
        if step == 2:
            raise OSError("the disk is gone")
        return batch(1)

    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        for step, _, _ in Prefetch(make, 0, 9):
            seen.append(step)

    assert seen == [0, 1]


def test_no_more_than_three_are_made_ahead() -> None:
    begun: list[int] = []

    def make(step: int) -> Any:
        begun.append(step)
        return batch(1)

    prefetch = Prefetch(make, 0, 100)
    next(iter(prefetch))
    _until(lambda: len(begun) == 4)  # one is taken, two lie ready, one waits to be put down

    prefetch.stop()
    assert len(begun) <= 5


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_stopping_ends_the_thread_wherever_it_is(taken: int) -> None:
    before = set(threading.enumerate())
    prefetch = Prefetch(lambda _: batch(1), 0, 1000)
    batches = iter(prefetch)
    for _ in range(taken):
        next(batches)

    prefetch.stop()

    assert set(threading.enumerate()) <= before


def test_a_slow_batch_is_waited_for_when_stopping() -> None:
    ended = threading.Event()

    def make(step: int) -> Batch:
        if step == 1:
            ended.wait(0.1)
        return batch(1)

    prefetch = Prefetch(make, 0, 10)
    next(iter(prefetch))
    prefetch.stop()

    assert "batches" not in {thread.name for thread in threading.enumerate()}


def _until(holds: Any) -> None:
    ends = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < ends, "never"
        time.sleep(0.005)
