"""Distillation losses against formulas in float64 NumPy, over one rank and over two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy
from tests.training.losses.distilled import (
    PROTOTYPES,
    SEEDS,
    SMALL,
    Arrays,
    Floats,
    computed,
    departure,
    drawn,
    formula_dino,
    formula_ibot,
    formula_koleo,
    formula_sinkhorn,
    shares,
    slope,
    some_hidden,
)
from tests.training.ranks import Ranks

from tectum_train.losses.distillation import (
    centred,
    dino_cross_entropy,
    entropy,
    ibot_cross_entropy,
    koleo,
    moved_centre,
    sinkhorn_knopp,
)

# ---------------------------------------------------------------- views


@given(SMALL, st.integers(2, 5), PROTOTYPES, SEEDS)
def test_dinos_loss_and_gradient_are_its_formulas(
    samples: int, views: int, prototypes: int, seed: int
) -> None:
    student = drawn(samples, views, prototypes, seed=seed, scale=0.3)
    teacher = shares(samples, 2, prototypes, seed=seed + 1)

    def formula(x: Floats) -> float:
        return formula_dino(x.swapaxes(0, 1), teacher.swapaxes(0, 1), 0.1)

    found = computed("dino", student, teacher=teacher)

    assert np.isclose(found["loss"], formula(student), rtol=1e-9)
    assert np.allclose(found["gradient"], slope(formula, student), atol=1e-5)


def test_dinos_loss_over_two_ranks_is_that_of_one(ranks: Ranks) -> None:
    given_ = {"student": drawn(6, 4, 5, seed=1), "teacher": shares(6, 2, 5, seed=2)}

    assert departure(ranks, "dino", **given_) <= 1e-6


@given(PROTOTYPES, SEEDS)
def test_a_student_that_tells_nothing_apart_is_at_the_logarithm_of_the_prototypes(
    prototypes: int, seed: int
) -> None:
    teacher, same = torch.from_numpy(shares(2, 3, prototypes, seed=seed)), 0.7

    loss = dino_cross_entropy(torch.full((4, 3, prototypes), same), teacher, 0.1)

    assert np.isclose(loss, np.log(prototypes), rtol=1e-6)


@given(PROTOTYPES, SEEDS)
def test_the_loss_of_whoever_says_the_same_as_the_teacher_is_the_teachers_entropy(
    prototypes: int, seed: int
) -> None:
    once = torch.from_numpy(shares(1, 3, prototypes, seed=seed))
    teacher = once.expand(2, -1, -1)

    loss = dino_cross_entropy(teacher.log() * 0.1, teacher, 0.1)

    assert np.isclose(loss, entropy(teacher).mean(), rtol=1e-9)


def test_no_view_is_asked_what_the_teacher_says_of_that_view_itself() -> None:
    # Prototype 0 in the first view, 1 in the second, and the student knows each from the other.
    teacher = torch.eye(2)[:, None]
    student = 10 * teacher.flip(0)

    assert dino_cross_entropy(student, teacher, 0.1) < 1e-6
    assert dino_cross_entropy(10 * teacher, teacher, 0.1) > 50


# ---------------------------------------------------------------- patches


@given(SMALL, SMALL, PROTOTYPES, SEEDS)
def test_ibots_loss_and_gradient_are_its_formulas(
    pictures: int, patches: int, prototypes: int, seed: int
) -> None:
    student = drawn(pictures, patches, prototypes, seed=seed, scale=0.3)
    teacher = shares(pictures, patches, prototypes, seed=seed + 1)
    hidden = some_hidden(pictures, patches, seed)

    def formula(x: Floats) -> float:
        return formula_ibot(x, teacher, hidden, 0.1)

    found = computed("ibot", student, teacher=teacher, hidden=hidden)

    assert np.isclose(found["loss"], formula(student), rtol=1e-9)
    assert np.allclose(found["gradient"], slope(formula, student), atol=1e-5)


def test_ibots_loss_over_two_ranks_is_that_of_one_however_unequally_patches_are_hidden(
    ranks: Ranks,
) -> None:
    hidden = some_hidden(6, 4, 3)
    hidden[3:] = False
    hidden[5, 1] = True

    given_ = {"student": drawn(6, 4, 5, seed=1), "teacher": shares(6, 4, 5, seed=2)}

    assert departure(ranks, "ibot", **given_, hidden=hidden) <= 1e-6


def test_ibots_loss_over_two_ranks_is_that_of_one_where_a_rank_hides_nothing(ranks: Ranks) -> None:
    hidden = np.zeros((4, 3), np.bool_)
    hidden[0, :2] = True

    given_ = {"student": drawn(4, 3, 5, seed=1), "teacher": shares(4, 3, 5, seed=2)}

    assert departure(ranks, "ibot", **given_, hidden=hidden) <= 1e-6


def test_a_student_that_tells_no_patches_apart_is_at_the_logarithm_of_the_prototypes() -> None:
    hidden = torch.from_numpy(some_hidden(4, 5, 0))
    count = int(hidden.sum())

    loss = ibot_cross_entropy(
        torch.zeros(count, 6), torch.from_numpy(shares(count, 6, seed=0)), hidden, 0.1
    )

    assert np.isclose(loss, np.log(6), rtol=1e-6)


def test_where_nothing_is_hidden_nothing_is_lost() -> None:
    none, hidden = torch.zeros(0, 6, requires_grad=True), torch.zeros(4, 5, dtype=torch.bool)

    loss = ibot_cross_entropy(none, none.detach(), hidden, 0.1)

    loss.backward()
    assert loss == 0


# ---------------------------------------------------------------- centring


@given(SMALL, PROTOTYPES, SEEDS, st.floats(0.02, 1))
def test_centred_shares_are_their_formula(
    rows: int, prototypes: int, seed: int, temperature: float
) -> None:
    logits, centre = drawn(rows, prototypes, seed=seed), drawn(prototypes, seed=seed + 1)

    found = centred(torch.from_numpy(logits), torch.from_numpy(centre), temperature)

    assert np.allclose(found, softmax((logits - centre) / temperature, axis=1), rtol=1e-9)


def test_nothing_is_learnt_through_centred_shares() -> None:
    logits = torch.from_numpy(drawn(4, 3, seed=0)).requires_grad_()

    assert not centred(logits, torch.zeros(3), 0.1).requires_grad


def moved(logits: NDArray[Any], centre_shared: Floats, hidden: NDArray[Any]) -> Arrays:
    """The centre after the rows that are not hidden."""
    rows, centre = torch.from_numpy(logits)[torch.from_numpy(~hidden)], centre_shared
    found = moved_centre(torch.from_numpy(centre), rows.sum(dim=0), len(rows), 0.9)
    return {"centre": found.numpy()}


@pytest.mark.parametrize("left_out", [(), (0,), (0, 1), (0, 1, 2)])
def test_a_centre_is_the_moving_average_of_all_ranks_rows_however_unequal(
    ranks: Ranks, left_out: tuple[int, ...]
) -> None:
    logits, centre = drawn(6, 4, seed=0), drawn(4, seed=1)
    hidden = np.isin(np.arange(6), left_out)

    both = ranks.run(moved, logits=logits, centre_shared=centre, hidden=hidden)

    wanted = 0.9 * centre + 0.1 * logits[~hidden].mean(axis=0)
    for one in (*both, moved(logits, centre, hidden)):
        assert np.allclose(one["centre"], wanted, rtol=1e-9)


def test_without_rows_a_centre_stays_where_it_is() -> None:
    centre = drawn(4, seed=0)

    found = moved(drawn(3, 4, seed=1), centre, np.ones(3, np.bool_))

    assert np.array_equal(found["centre"], centre)


def test_of_a_teacher_that_always_says_the_same_centring_leaves_nothing() -> None:
    logits, centre = torch.tensor([[0.0, 0.0, 5.0]] * 4), torch.zeros(3)
    for _ in range(200):
        centre = moved_centre(centre, logits.sum(dim=0), len(logits), 0.9)

    found = centred(logits, centre, 0.04)

    assert torch.allclose(entropy(found), torch.tensor(3.0).log(), atol=1e-3)


# ---------------------------------------------------------------- Sinkhorn–Knopp


@given(st.integers(1, 9), PROTOTYPES, SEEDS, st.integers(1, 5))
def test_balanced_shares_are_the_papers(
    samples: int, prototypes: int, seed: int, iterations: int
) -> None:
    logits = np.tanh(drawn(samples, prototypes, seed=seed))

    found = sinkhorn_knopp(torch.from_numpy(logits), 0.05, iterations)

    assert np.allclose(found, formula_sinkhorn(logits, 0.05, iterations), rtol=1e-8, atol=1e-14)


@given(st.integers(1, 9), PROTOTYPES, SEEDS)
def test_balanced_rows_sum_to_one_and_columns_come_to_the_same_sum(
    samples: int, prototypes: int, seed: int
) -> None:
    logits = torch.from_numpy(drawn(samples, prototypes, seed=seed, scale=0.3))

    soon, late = sinkhorn_knopp(logits, 0.3), sinkhorn_knopp(logits, 0.3, 500)

    for found in (soon, late):
        assert np.allclose(found.sum(dim=1), 1, rtol=1e-9)
    assert np.allclose(late.sum(dim=0), samples / prototypes, rtol=1e-3)


@given(st.integers(2, 9), PROTOTYPES, SEEDS)
def test_what_is_said_of_all_samples_alike_balancing_takes_out(
    samples: int, prototypes: int, seed: int
) -> None:
    logits, offset = drawn(samples, prototypes, seed=seed), drawn(prototypes, seed=seed + 1)

    one, other = (sinkhorn_knopp(torch.from_numpy(x), 0.5) for x in (logits, logits + offset))

    assert np.allclose(one, other, rtol=1e-8)


def balanced(logits: Floats) -> Arrays:
    return {"shares": sinkhorn_knopp(torch.from_numpy(logits), 0.1).numpy()}


def test_balanced_shares_over_two_ranks_are_those_of_one(ranks: Ranks) -> None:
    logits = drawn(6, 5, seed=0)

    both = ranks.run(balanced, logits=logits)

    found = np.concatenate([one["shares"] for one in both])
    assert np.allclose(found, balanced(logits)["shares"], rtol=1e-9)


def of_one_rank(logits: Floats, mine: NDArray[np.bool_]) -> Arrays:
    return balanced(logits[mine])


def test_a_rank_without_samples_waits_for_the_other(ranks: Ranks) -> None:
    logits = drawn(6, 5, seed=0)
    mine = np.array([True, True, True, False, False, False])

    both = ranks.run(of_one_rank, logits=logits, mine=mine)

    assert both[1]["shares"].shape == (0, 5)
    assert np.allclose(both[0]["shares"], balanced(logits[:3])["shares"], rtol=1e-9)


# ---------------------------------------------------------------- KoLeo


@given(st.integers(2, 9), SEEDS)
def test_koleo_and_its_gradient_are_their_formulas(samples: int, seed: int) -> None:
    features = drawn(samples, 4, seed=seed)

    found = computed("koleo", features)

    assert np.isclose(found["loss"], formula_koleo(features), rtol=1e-9)
    wanted = slope(formula_koleo, features)
    assert np.allclose(found["gradient"], wanted, atol=1e-4 * (1 + np.abs(wanted).max()))


def test_koleo_over_two_ranks_is_that_of_one(ranks: Ranks) -> None:
    assert departure(ranks, "koleo", student=drawn(8, 4, seed=3)) <= 1e-6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_koleo_of_duplicates_is_finite_and_pulls_nowhere(dtype: str) -> None:
    same = np.ones((5, 4))

    found = computed("koleo", same, dtype)

    assert np.isclose(found["loss"], -np.log(1e-4), rtol=1e-5)
    assert np.allclose(found["gradient"], 0)


def test_koleo_of_near_duplicates_has_no_gradient_that_outshines_all() -> None:
    features = np.ones((2, 4)) + 1e-4 * drawn(2, 4, seed=0)

    found = computed("koleo", features, "float32")

    assert np.isfinite(found["gradient"]).all()
    assert np.abs(found["gradient"]).max() <= 1e4


def test_koleo_of_a_single_sample_is_zero() -> None:
    found = computed("koleo", drawn(1, 4, seed=0))

    assert found["loss"] == 0
    assert np.array_equal(found["gradient"], np.zeros((1, 4)))


def test_koleo_is_in_float32_whatever_the_autocast() -> None:
    features = torch.from_numpy(drawn(6, 8, seed=0)).float()

    with torch.autocast("cpu", torch.bfloat16):
        found = koleo(features)

    assert torch.equal(found, koleo(features))


@given(st.integers(2, 9), SEEDS)
def test_koleo_asks_for_directions_only(samples: int, seed: int) -> None:
    features = drawn(samples, 4, seed=seed)
    longer = features * np.random.default_rng(seed).uniform(0.5, 2, (samples, 1))

    one, other = computed("koleo", features), computed("koleo", longer)

    assert np.isclose(one["loss"], other["loss"], rtol=1e-9)


# ---------------------------------------------------------------- laws


@given(PROTOTYPES, SEEDS)
def test_entropy_is_scipys_and_lies_between_zero_and_the_logarithm_of_the_prototypes(
    prototypes: int, seed: int
) -> None:
    told = shares(4, prototypes, seed=seed)

    found = entropy(torch.from_numpy(told)).numpy()

    assert np.allclose(found, scipy_entropy(told, axis=1), rtol=1e-9)
    assert ((found >= 0) & (found <= np.log(prototypes) + 1e-12)).all()
    assert entropy(torch.eye(prototypes)).tolist() == [0.0] * prototypes


@given(st.integers(2, 6), SEEDS)
def test_the_order_of_samples_and_of_prototypes_does_not_matter(samples: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    student, teacher = drawn(samples, 3, 5, seed=seed), shares(samples, 3, 5, seed=seed + 1)
    hidden = some_hidden(samples, 3, seed)
    rows, columns = draw.permutation(samples), draw.permutation(5)

    def mixed(x: Floats) -> Floats:
        return x[rows][..., columns]

    pairs = [
        (
            computed("dino", student, teacher=teacher[:, :2]),
            computed("dino", mixed(student), teacher=mixed(teacher[:, :2])),
        ),
        (
            computed("ibot", student, teacher=teacher, hidden=hidden),
            computed("ibot", mixed(student), teacher=mixed(teacher), hidden=hidden[rows]),
        ),
    ]
    for one, other in pairs:
        assert np.isclose(one["loss"], other["loss"], rtol=1e-9)
        assert np.allclose(mixed(one["gradient"]), other["gradient"], rtol=1e-7, atol=1e-12)
    flat = student[:, 0]
    assert np.allclose(mixed(balanced(flat)["shares"]), balanced(mixed(flat))["shares"], rtol=1e-9)
    apart, again = computed("koleo", flat), computed("koleo", flat[rows])
    assert np.isclose(apart["loss"], again["loss"], rtol=1e-9)
