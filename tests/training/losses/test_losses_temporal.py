"""Losses between moments against loops in float64 NumPy, over one rank and over two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.losses.moments import (
    CLIPS,
    HORIZONS,
    LENGTH,
    NEGATIVES,
    WIDTH,
    Arrays,
    clips,
    drawn,
    episodes,
    formula,
    formula_foresight,
    scores,
)
from tests.training.ranks import Ranks

from tectum_train.distributed import gather, world_size
from tectum_train.losses.temporal import (
    foresight,
    language_reward,
    repeats,
    time_contrast,
)

SEEDS = st.integers(0, 2**32)


# ---------------------------------------------------------------- what is computed


def loss_of(name: str, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    match name:
        case "time":
            return time_contrast(**tensors)[0]
        case "language":
            return language_reward(**tensors)[0]
        case _:
            return foresight(**tensors, negatives=name)[0]  # type: ignore[arg-type]


def computed(name: str, **given_: Any) -> Arrays:
    """A loss, and this rank's share of the gradient of all that is real."""
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in given_.items()}
    leaves = {key: one.requires_grad_() for key, one in tensors.items() if one.is_floating_point()}
    loss = loss_of(name, tensors)
    if loss.requires_grad:
        loss.backward()
    gradients = {
        key: (leaf.new_zeros(leaf.shape) if leaf.grad is None else leaf.grad / world_size()).numpy()
        for key, leaf in leaves.items()
    }
    return {"loss": gather(loss.detach()[None]).mean().numpy(), **gradients}


def departure(ranks: Ranks, name: str, given_: Arrays) -> float:
    """How far two ranks' loss and gradients are from one rank's, relative to the largest."""
    alone = computed(name, **given_)
    both = ranks.run(computed, name=name, **given_)
    found: Arrays = {"loss": both[0]["loss"]}
    for key in set(alone) - {"loss"}:
        found[key] = np.concatenate([one[key] for one in both])
    return max(
        float(np.abs(found[key] - alone[key]).max() / np.abs(alone[key]).max()) for key in alone
    )


def difference(name: str, given_: Arrays, key: str, place: tuple[int, ...]) -> float:
    """One component of the formula's gradient, by central differences."""
    ends = []
    for step in (1e-6, -1e-6):
        moved = given_[key].copy()
        moved[place] += step
        ends.append(formula(name, {**given_, key: moved}))
    return (ends[0] - ends[1]) / 2e-6


ALL = pytest.mark.parametrize("name", [*NEGATIVES, "time", "language"])


@ALL
@given(count=st.integers(1, 7), seed=SEEDS)
def test_each_is_its_formula(name: str, count: int, seed: int) -> None:
    given_ = drawn(name, seed, count)

    assert np.isclose(computed(name, **given_)["loss"], formula(name, given_), rtol=1e-9)


@ALL
def test_gradients_are_the_formulas_differences(name: str) -> None:
    given_ = drawn(name, 5, 4)

    found = computed(name, **given_)

    for key in set(found) - {"loss"}:
        places = list(np.ndindex(found[key].shape))
        some = np.random.default_rng(0).permutation(len(places))[:12]
        assert any(found[key][places[at]] != 0 for at in some)
        for at in some:
            expected = difference(name, given_, key, places[at])
            assert np.isclose(found[key][places[at]], expected, atol=1e-8)


@ALL
@pytest.mark.parametrize("seed", [2, 3])
def test_over_two_ranks_each_is_that_of_one(ranks: Ranks, name: str, seed: int) -> None:
    assert departure(ranks, name, drawn(name, seed)) <= 1e-6


@ALL
@given(seed=SEEDS)
def test_the_order_of_a_batch_does_not_matter(name: str, seed: int) -> None:
    given_ = drawn(name, seed)
    order = np.random.default_rng(seed).permutation(6)
    mixed = {key: value[order] for key, value in given_.items()}
    if "others" in mixed:
        mixed["others"] = mixed["others"][:, order]

    assert np.isclose(computed(name, **given_)["loss"], computed(name, **mixed)["loss"], rtol=1e-9)


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_stay_finite_far_apart(name: str, dtype: torch.dtype) -> None:
    tensors = {key: torch.from_numpy(value) for key, value in drawn(name, 1).items()}
    leaves = {
        key: (value * 100).to(dtype).requires_grad_()
        for key, value in tensors.items()
        if value.is_floating_point()
    }

    loss = loss_of(name, tensors | leaves)
    loss.backward()

    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves.values())


@ALL
def test_autocast_changes_nothing(name: str) -> None:
    tensors = {
        key: value.float() if value.is_floating_point() else value
        for key, value in ((k, torch.from_numpy(v)) for k, v in drawn(name, 1).items())
    }

    with torch.autocast("cpu", torch.bfloat16):
        inside = loss_of(name, dict(tensors))

    assert torch.equal(inside, loss_of(name, dict(tensors)))


# ---------------------------------------------------------------- repeated pictures


@given(SEEDS, st.integers(1, 6))
def test_frames_repeat_where_every_pixel_is_the_same(seed: int, length: int) -> None:
    pictures = np.random.default_rng(seed).integers(0, 3, (3, length))
    frames = torch.from_numpy(pictures)[:, :, None, None, None].repeat(1, 1, 3, 2, 2).float()

    assert np.array_equal(repeats(frames).numpy(), pictures[:, :, None] == pictures[:, None])


def test_one_other_pixel_makes_another_picture() -> None:
    frames = torch.zeros(1, 3, 3, 4, 4)
    frames[0, 2, 1, 3, 3] = 1e-3

    assert repeats(frames)[0].tolist() == [[True, True, False]] * 2 + [[False, False, True]]


# ---------------------------------------------------------------- what comes next


def asked(given_: Arrays, negatives: Any = "both") -> Any:
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in given_.items()}
    return foresight(**tensors, negatives=negatives)[1]


@pytest.mark.parametrize("negatives", NEGATIVES)
@given(seed=SEEDS)
def test_choices_are_counted_and_questions_without_a_choice_are_not(
    negatives: str, seed: int
) -> None:
    given_ = clips(seed)
    _, choices = formula_foresight(given_, negatives)

    found = asked(given_, negatives)

    assert np.array_equal(found.counted.numpy(), choices > 0)
    assert np.array_equal(np.where(choices > 0, found.choices.numpy(), 0), choices)


@pytest.mark.parametrize(
    ("negatives", "number"), [("same_episode", 5), ("in_batch", 16), ("both", 20)]
)
def test_equal_vectors_cost_the_logarithm_of_the_choices(negatives: Any, number: int) -> None:
    loss, found = foresight(
        torch.ones(4, 5, 2, 3), torch.ones(4, 5, 3), torch.ones(4, 5, dtype=torch.bool),
        torch.eye(5, dtype=torch.bool).repeat(4, 1, 1), torch.arange(4), negatives,
    )  # fmt: skip

    assert torch.isclose(loss, torch.tensor(np.log(number), dtype=torch.float32))
    assert found.choices[found.counted].unique().tolist() == [number]
    assert not found.hit.any()  # all alike is not found


@given(SEEDS, st.integers(1, 3))
def test_frames_after_the_end_change_nothing(seed: int, more: int) -> None:
    given_, draw = clips(seed), np.random.default_rng(seed)
    padded = {
        "predicted": np.concatenate(
            [given_["predicted"], draw.normal(size=(CLIPS, more, HORIZONS, WIDTH))], axis=1
        ),
        "features": np.concatenate(
            [given_["features"], draw.normal(size=(CLIPS, more, WIDTH))], axis=1
        ),
        "inside": np.pad(given_["inside"], ((0, 0), (0, more))),
        "repeated": np.pad(given_["repeated"], ((0, 0), (0, more), (0, more))),
        "episode": given_["episode"],
    }
    other = {**given_, "features": given_["features"].copy()}
    other["features"][~given_["inside"]] = draw.normal(size=WIDTH)

    loss = computed("both", **given_)

    assert np.isclose(computed("both", **padded)["loss"], loss["loss"], rtol=1e-9)
    assert np.isclose(computed("both", **other)["loss"], loss["loss"], rtol=1e-9)
    assert not loss["features"][~given_["inside"]].any()


def test_a_scene_that_stands_still_asks_nothing_of_its_own_clip() -> None:
    given_ = {**clips(0), "repeated": np.ones((CLIPS, LENGTH, LENGTH), bool)}

    found = asked(given_, "same_episode")

    assert not found.counted.any()
    assert computed("same_episode", **given_)["loss"] == 0


def test_the_right_moment_above_all_others_is_a_hit() -> None:
    moments = torch.eye(4)[None]  # each unlike the others
    inside, still = torch.ones(1, 4, dtype=torch.bool), torch.eye(4, dtype=torch.bool)[None]
    predicted = torch.stack([moments.roll(-1, 1), moments], dim=2) * 9  # next, and never moving

    _, found = foresight(predicted, moments, inside, still, torch.zeros(1, dtype=torch.long))

    assert found.counted[0].tolist() == [[True, True], [True, True], [True, False], [False, False]]
    assert found.hit[found.counted].tolist() == [True, False, True, False, True]


def test_a_horizon_that_one_rank_alone_has_is_one_of_all_of_them(ranks: Ranks) -> None:
    given_ = clips(0)
    given_["inside"] = np.arange(LENGTH)[None] < np.array([2, 2, 1, 5, 5, 5])[:, None]

    assert departure(ranks, "both", given_) <= 1e-6


# ---------------------------------------------------------------- order in time


def test_equal_moments_cost_the_logarithm_of_episodes_and_one() -> None:
    apart = torch.eye(3, dtype=torch.bool).repeat(8, 1, 1)

    loss, aligned = time_contrast(torch.ones(8, 3, 4), apart, torch.arange(8))

    assert torch.isclose(loss, torch.tensor(np.log(9.0), dtype=torch.float32))
    assert not aligned.any()


def test_moments_whose_vectors_are_one_have_gradients_that_are_numbers() -> None:
    moments = torch.ones(4, 3, 2).requires_grad_()
    apart = torch.eye(3, dtype=torch.bool).repeat(4, 1, 1)

    time_contrast(moments, apart, torch.arange(4))[0].backward()

    assert moments.grad is not None
    assert moments.grad.isfinite().all()


def test_many_moments_that_lie_far_from_zero_are_still_as_far_apart_as_they_are() -> None:
    given_ = episodes(0, 40)
    given_["moments"] = (1000 + given_["moments"]).astype(np.float32)
    exact = {**given_, "moments": given_["moments"].astype(np.float64)}

    assert np.isclose(computed("time", **given_)["loss"], formula("time", exact), rtol=1e-4)


def test_random_moments_are_aligned_once_in_three_times() -> None:
    moments = torch.randn(20_000, 3, 16, generator=torch.Generator().manual_seed(0))
    apart = torch.eye(3, dtype=torch.bool).repeat(len(moments), 1, 1)

    aligned = [
        time_contrast(moments[at : at + 100], apart[:100], torch.arange(100))[1]
        for at in range(0, len(moments), 100)
    ]

    assert abs(float(torch.cat(aligned).float().mean()) - 1 / 3) < 0.015


def test_moments_on_a_line_are_aligned() -> None:
    line = torch.tensor([[[0.0], [1.0], [3.0]], [[0.0], [4.0], [3.0]]])
    apart = torch.eye(3, dtype=torch.bool).repeat(2, 1, 1)

    assert time_contrast(line, apart, torch.arange(2))[1].tolist() == [True, False]


@given(SEEDS)
def test_a_distance_has_no_direction_but_a_middle(seed: int) -> None:
    given_ = episodes(seed)
    given_["repeated"] = np.tile(np.eye(3, dtype=bool), (6, 1, 1))

    backwards = {**given_, "moments": given_["moments"][:, ::-1].copy()}
    turned = {**given_, "moments": given_["moments"][:, [1, 2, 0]].copy()}

    loss = computed("time", **given_)["loss"]
    assert np.isclose(computed("time", **backwards)["loss"], loss, rtol=1e-9)
    assert not np.isclose(computed("time", **turned)["loss"], loss, rtol=1e-9)


# ---------------------------------------------------------------- reward


def test_equal_scores_cost_the_logarithm_of_tasks_and_one() -> None:
    same, none = torch.ones(8), torch.zeros(8, dtype=torch.bool)

    loss, rises, tells = language_reward(same, same, torch.ones(8, 8), none, torch.arange(8), ~none)

    assert torch.isclose(loss, torch.tensor(np.log(9.0), dtype=torch.float32))
    assert not rises.any()
    assert not tells.any()


@given(SEEDS)
def test_time_reversed_a_reward_is_another(seed: int) -> None:
    given_ = scores(seed)
    given_["repeated"][:] = False
    backwards = {**given_, "later": given_["earlier"], "earlier": given_["later"]}

    loss = computed("language", **given_)["loss"]

    assert not np.isclose(computed("language", **backwards)["loss"], loss, rtol=1e-9)


def test_a_reward_rises_and_tells_episodes_apart() -> None:
    later, earlier = torch.tensor([2.0, 1.0, 3.0]), torch.tensor([1.0, 2.0, 3.0])
    others = torch.tensor([[9.0, 1.0, 5.0], [0.0, 9.0, 0.0], [9.0, 3.0, 0.0]])
    none = torch.zeros(3, dtype=torch.bool)

    _, rises, tells = language_reward(
        later, earlier, others, none, torch.tensor([0, 1, 0]), ~none
    )  # 0 and 2 are of one task

    assert rises.tolist() == [True, False, False]
    assert tells.tolist() == [True, True, False]
