"""What measures share: streams of choices that have nothing in common."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.evaluation.scene import FPS, context, recorded

from tectum_core.bundle import Bundle
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.evaluation.measuring.context import (
    Columns,
    NothingToMeasure,
    in_batches,
    model_input,
    of_others,
    random_twins,
    second_half,
    starts,
)

SAMPLES = recorded([4, 3], {})
WEIGHT = "vision.embed.weight"


def test_a_stream_repeats_itself_and_differs_from_others_and_by_seed() -> None:
    one, other_seed = context(SAMPLES, SAMPLES, seed=1), context(SAMPLES, SAMPLES, seed=2)

    drawn = [
        tuple(given.generator(stream).integers(1 << 40, size=4).tolist())
        for given, stream in (
            (one, "masks"), (one, "masks"), (one, "mask"), (one, "words"), (other_seed, "masks"),
        )
    ]  # fmt: skip

    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4
    assert one.seed_of("masks") == one.seed_of("masks") != one.seed_of("words")


def test_frames_are_read_where_they_are_asked_for() -> None:
    frames = np.arange(300, dtype=np.uint16)[:, None, None, None]

    found = in_batches(
        lambda part: np.stack(part).reshape(len(part), -1).astype(np.float32),
        frames,  # type: ignore[arg-type]
        np.arange(299, -1, -1),
    )

    assert found[:, 0].tolist() == list(range(299, -1, -1))


def test_frames_that_so_many_more_follow_are_told_and_their_absence_too() -> None:
    assert starts(SAMPLES, 2).tolist() == [0, 1, 4]

    with pytest.raises(NothingToMeasure, match="no episode goes on for 4 steps"):
        starts(SAMPLES, 4)


def test_the_second_half_of_an_episode_begins_where_half_of_it_has_gone_by() -> None:
    assert second_half(SAMPLES).tolist() == [2, 3, 6]


def test_what_is_counted_are_the_held_out_episodes() -> None:
    given = context(SAMPLES, recorded([2, 2, 2], {}), pair_steps=4)

    assert given.counted(np.array([0, 1, 4]), "frames") == "3 frames of 2 episodes"
    assert given.interval == 4 / FPS


def test_families_are_the_data_sets_and_its_sentences_where_it_names_none() -> None:
    sentences, families = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([5, 5, 5, 5, 2, 2, 2])
    named = recorded([4, 3], {"task_index": sentences, "family": families})
    nameless = recorded([4, 3], {"task_index": sentences})
    given = context(named, nameless, columns=Columns("state", "action", "family"))

    assert np.array_equal(given.families(named), families)
    assert np.array_equal(given.families(nameless), sentences)


def test_any_sample_of_another_group_may_take_ones_place_and_none_of_its_own() -> None:
    groups, draw = np.array([7, 7, 1, 3, 3]), np.random.default_rng(0)

    drawn = np.stack([of_others(groups, draw) for _ in range(4000)])

    for place, own in enumerate(groups):
        share = np.bincount(drawn[:, place], minlength=5) / 4000
        strangers = groups != own
        assert share[strangers] == pytest.approx(1 / strangers.sum(), abs=0.04)  # 5 deviations
        assert not share[~strangers].any()
    with pytest.raises(NothingToMeasure, match="all is of one episode or task"):
        of_others(np.zeros(3, np.int64), draw)


def test_a_model_sees_frames_upright_and_normalised() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    images = ImagePreprocessing(size=4, mean=(0.1, 0.2, 0.3), standard_deviation=(0.5, 0.6, 0.7))
    predictor: Any = SimpleNamespace(
        config=SimpleNamespace(images=images), device=torch.device("cpu")
    )

    found = model_input(predictor, frames)

    expected = (frames / 255 - np.array(images.mean)) / np.array(images.standard_deviation)
    assert np.allclose(found.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_twins_are_drawn_anew_each_alike_every_time_and_otherwise_by_another_seed(
    full_bundle: Bundle,
) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        return [one.model.get_parameter(WEIGHT) for one in random_twins(full_bundle, seed)]

    one, again, other = weights(1), weights(1), weights(2)

    assert all(torch.equal(left, right) for left, right in zip(one, again, strict=True))
    drawn = [*one, *other, full_bundle.model.get_parameter(WEIGHT)]
    assert len({tuple(each.flatten().tolist()) for each in drawn}) == len(drawn) == 7
