"""InfoNCE and SigLIP between two kinds of vectors, against formulas in float64 NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.losses.computed import (
    Arrays,
    Floats,
    computed,
    departure,
    groups_of,
    slopes,
    units,
)
from tests.training.ranks import Ranks

from tectum_train.losses.contrastive import Older, info_nce, sigmoid_pairs

SEEDS = st.integers(0, 2**32)


def formula_info_nce(
    left: Floats,
    right: Floats,
    scale: float,
    group: NDArray[np.int64],
    counted: NDArray[np.bool_],
    older: dict[str, NDArray[Any]] | None = None,
    hardest: int | None = None,
) -> float:
    left, right, group = left[counted], right[counted], group[counted]
    total = 0.0
    for name, rows, columns in (("right", left, right), ("left", right, left)):
        for row, own in zip(rows, group, strict=True):
            positives = scale * columns[group == own] @ row
            negatives = scale * columns[group != own] @ row
            if older is not None:
                apart = older["counted"] & (older["group"] != own)
                negatives = np.append(negatives, scale * older[name][apart] @ row)
            negatives = np.sort(negatives)[::-1][:hardest]
            total += np.logaddexp.reduce(np.append(positives, negatives)) - positives.mean()
    return total / 2 / len(group)


def formula_sigmoid(
    left: Floats,
    right: Floats,
    scale: float,
    bias: float,
    group: NDArray[np.int64],
    counted: NDArray[np.bool_],
) -> float:
    left, right, group = left[counted], right[counted], group[counted]
    logits = scale * left @ right.T + bias
    sign = np.where(group[:, None] == group[None, :], 1, -1)
    return float(np.logaddexp(0, -sign * logits).sum() / len(left))


# ---------------------------------------------------------------- InfoNCE


def remembered(length: int, seed: int) -> dict[str, NDArray[Any]]:
    draw = np.random.default_rng(seed)
    return {
        "left": units(length, seed + 3),
        "right": units(length, seed + 4),
        "group": draw.integers(0, 5, length),
        "counted": draw.random(length) < 0.8,
    }


def some_of(rows: int, seed: int) -> NDArray[np.bool_]:
    counted = np.random.default_rng(seed).random(rows) < 0.7
    counted[0] = True
    return counted


@given(
    rows=st.integers(2, 9),
    seed=SEEDS,
    scale=st.floats(0.5, 100),
    length=st.none() | st.integers(1, 7),
    hardest=st.none() | st.integers(1, 12),
)
def test_info_nce_and_its_gradient_are_their_formulas(
    rows: int, seed: int, scale: float, length: int | None, hardest: int | None
) -> None:
    left, right, group = units(rows, seed), units(rows, seed + 1), groups_of(rows, seed)
    counted, older = some_of(rows, seed), None if length is None else remembered(length, seed)
    more: dict[str, Any] = {f"older_{key}_shared": value for key, value in (older or {}).items()}

    found = computed(
        "info_nce", left=left, right=right, scale=scale, group=group, counted=counted,
        hardest=hardest, **more,
    )  # fmt: skip

    def formula(left: Floats, right: Floats, scale: float) -> float:
        return formula_info_nce(left, right, scale, group, counted, older, hardest)

    def close(key: str, slope: Floats) -> bool:
        return np.allclose(found[key], slope, rtol=1e-4, atol=1e-6)

    assert np.isclose(found["loss"], formula(left, right, scale), rtol=1e-9)
    assert close("left", slopes(lambda x: formula(x, right, scale), left))
    assert close("right", slopes(lambda x: formula(left, x, scale), right))
    assert close("scale", slopes(lambda x: formula(left, right, float(x)), np.array(scale)))


@pytest.mark.parametrize("hardest", [None, 3])
@pytest.mark.parametrize("length", [None, 5])
def test_info_nce_over_two_ranks_is_that_of_one_however_unequally_samples_count(
    ranks: Ranks, length: int | None, hardest: int | None
) -> None:
    older = {} if length is None else remembered(length, 7)

    far = departure(
        ranks, "info_nce", left=units(8, 1), right=units(8, 2), scale=np.array(14.0),
        group=np.array([0, 1, 0, 2, 1, 1, 3, 0]), hardest=hardest,
        counted=np.array([True, False, False, False, True, True, True, True]),
        **{f"older_{key}_shared": value for key, value in older.items()},
    )  # fmt: skip

    assert far <= 1e-6


def test_info_nce_of_equal_vectors_is_the_logarithm_of_how_many_candidates_there_are() -> None:
    same, scale, group = torch.ones(8, 4) / 2, torch.tensor(10.0), torch.arange(8)
    old = Older(same[:5], same[:5], torch.full((5,), 99), torch.ones(5, dtype=torch.bool))

    found = (
        info_nce(same, same, scale, group),
        info_nce(same, same, scale, group, older=old),
        info_nce(same, same, scale, group, older=old, hardest=3),
    )

    assert [one.loss.item() for one in found] == pytest.approx([np.log(8), np.log(13), np.log(4)])
    assert all(one.chance == pytest.approx(one.loss.item()) for one in found)


@pytest.mark.parametrize("hardest", [None, 1, 3])
@pytest.mark.parametrize("counted", [[True] * 6, [True, False, True, True, True, False]])
def test_chance_is_what_equal_vectors_cost_however_many_share_a_group(
    hardest: int | None, counted: list[bool]
) -> None:
    same, scale, group = torch.ones(6, 4) / 2, torch.tensor(10.0), torch.tensor([0, 0, 0, 1, 1, 2])
    old = Older(same, same, torch.tensor([0, 0, 0, 0, 1, 7]), torch.arange(6) != 3)

    found = info_nce(same, same, scale, group, torch.tensor(counted), old, hardest)

    assert found.chance == pytest.approx(found.loss.item())


def test_the_nearest_of_its_group_is_a_hit() -> None:
    right = torch.eye(4)
    left = right[[1, 1, 2, 3]]
    old = Older(left[3:], right[3:], torch.tensor([7]), torch.ones(1, dtype=torch.bool))
    scale, group = torch.tensor(5.0), torch.tensor([0, 1, 1, 0])

    _, hit, _ = info_nce(left, right, scale, group)
    _, beside_older, _ = info_nce(left, 0.9 * right, scale, group, older=old)

    # 0 is nearest to 1, of another group; 1 to itself; 2 to itself; 3 to itself
    assert hit.tolist() == [False, True, True, True]
    assert beside_older.tolist() == [False, True, True, False]


def test_what_is_no_candidate_is_nearest_to_nothing() -> None:
    left, group = torch.eye(4), torch.arange(4)
    right = 0.9 * left
    right[3] = left[0]
    counted = torch.tensor([True, True, True, False])
    # A place that nothing has come to yet, and an older vector of the row's own group.
    old = Older(left[1:3], left[1:3], torch.tensor([7, 2]), torch.tensor([False, True]))

    _, hit, _ = info_nce(left, right, torch.tensor(5.0), group, counted, old)

    assert hit[:3].all()


def test_where_nothing_counts_info_nce_is_zero_and_so_are_its_gradients() -> None:
    left = torch.from_numpy(units(4, 0)).requires_grad_()
    nothing = torch.zeros(4, dtype=torch.bool)

    losses = (
        info_nce(left, left.detach(), torch.tensor(14.0), torch.arange(4), nothing, hardest=2)[0],
        sigmoid_pairs(
            left, left.detach(), torch.tensor(9.0), torch.tensor(0.0), torch.arange(4), nothing
        )[0],
    )
    (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), left)

    assert [one.item() for one in losses] == [0, 0]
    assert not gradient.any()


# ---------------------------------------------------------------- SigLIP


@pytest.mark.parametrize("way", ["ring", "gather"])
@given(rows=st.integers(2, 9), seed=SEEDS, scale=st.floats(0.5, 50), bias=st.floats(-10, 1))
def test_sigmoid_pairs_and_their_gradient_are_their_formulas(
    way: str, rows: int, seed: int, scale: float, bias: float
) -> None:
    left, right, group = units(rows, seed), units(rows, seed + 1), groups_of(rows, seed)
    counted = some_of(rows, seed)

    found = computed(
        way, left=left, right=right, scale=scale, bias=bias, group=group, counted=counted
    )

    def formula(left: Floats, right: Floats, scale: float, bias: float) -> float:
        return formula_sigmoid(left, right, scale, bias, group, counted)

    assert np.isclose(found["loss"], formula(left, right, scale, bias), rtol=1e-9)
    expected = {
        "left": slopes(lambda x: formula(x, right, scale, bias), left),
        "right": slopes(lambda x: formula(left, x, scale, bias), right),
        "scale": slopes(lambda x: formula(left, right, float(x), bias), np.array(scale)),
        "bias": slopes(lambda x: formula(left, right, scale, float(x)), np.array(bias)),
    }
    for key, slope in expected.items():
        assert np.allclose(found[key], slope, rtol=1e-4, atol=1e-5), key


@pytest.mark.parametrize("way", ["ring", "gather"])
@pytest.mark.parametrize("world", ["ranks", "three_ranks"])
def test_sigmoid_pairs_over_several_ranks_are_those_of_one(
    request: pytest.FixtureRequest, world: str, way: str
) -> None:
    far = departure(
        request.getfixturevalue(world), way, left=units(6, 1), right=units(6, 2),
        scale=np.array(10.0), bias=np.array(-10.0), group=np.array([0, 1, 2, 0, 4, 5]),
        counted=np.array([True, True, False, True, True, True]),
    )  # fmt: skip

    assert far <= 1e-6


def hits(
    left: Floats, right: Floats, group: NDArray[np.int64], counted: NDArray[np.bool_], way: str
) -> Arrays:
    first, second = torch.from_numpy(left), torch.from_numpy(right)
    alike, which = torch.from_numpy(group), torch.from_numpy(counted)
    scale, bias = torch.tensor(9.0), torch.tensor(-3.0)
    _, pairs, _ = sigmoid_pairs(first, second, scale, bias, alike, which, way)
    _, single, _ = info_nce(first, second, scale, alike, which)
    return {"pairs": pairs.numpy(), "single": single.numpy()}


@pytest.mark.parametrize("way", ["ring", "gather"])
def test_what_is_nearest_over_all_ranks_is_what_is_nearest_on_one(
    three_ranks: Ranks, way: str
) -> None:
    given_: dict[str, Any] = {
        "left": units(18, 5, 3), "right": units(18, 6, 3), "group": groups_of(18, 5),
        "counted": some_of(18, 5),
    }  # fmt: skip

    alone, every = hits(**given_, way=way), three_ranks.run(hits, **given_, way=way)

    own = np.flatnonzero(given_["counted"])
    nearest = own[(given_["left"] @ given_["right"][own].T).argmax(axis=1)]
    expected = given_["group"][nearest] == given_["group"]
    for name in ("pairs", "single"):
        found = np.concatenate([one[name] for one in every])
        for some in (found, alone[name]):
            assert np.array_equal(some[own], expected[own])
