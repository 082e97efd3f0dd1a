"""Codebooks: moving averages in closed form, codes that never stay dead, ranks that agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.ranks import Ranks
from torch import Tensor

from tectum_train.codebook import Codebook

Arrays = dict[str, NDArray[Any]]


def codebook(size: int = 4, width: int = 3, decay: float = 0.9, below: float = 0.1) -> Codebook:
    torch.manual_seed(0)
    return Codebook(size, width, decay, below).double()


def followed(made: Codebook, vectors: Tensor, codes: Tensor | None = None) -> None:
    """Let it follow these, one of a sample, by the codes they have or by others."""
    found = made.codes(vectors) if codes is None else codes
    made.learn(vectors[:, None], found[:, None])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


# ---------------------------------------------------------------- moving averages


@given(st.integers(1, 8), st.floats(0.1, 0.99), st.integers(0, 2**32))
def test_a_living_code_is_its_moving_average_in_closed_form(
    steps: int, decay: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    # Each code is used in every step, so that none dies but at the beginning.
    vectors = draw.normal(size=(steps, 12, 3))
    codes = np.stack([draw.permutation(np.arange(12) % 4) for _ in range(steps)])
    made = codebook(decay=decay, below=1e-6)
    made.uses.fill_(2.0)
    made.sums.copy_(made.vectors * 2)
    begun = made.vectors.numpy().copy()

    for step in range(steps):
        followed(made, torch.from_numpy(vectors[step]), torch.from_numpy(codes[step]))

    weights = (1 - decay) * decay ** np.arange(steps - 1, -1, -1)
    for code in range(4):
        uses = (codes == code).sum(axis=1)
        sums = np.stack([vectors[step][codes[step] == code].sum(axis=0) for step in range(steps)])
        total = decay**steps * 2.0 + weights @ uses
        moved = decay**steps * 2.0 * begun[code] + weights @ sums
        assert np.isclose(float(made.uses[code]), total, rtol=1e-6)
        assert np.allclose(made.vectors[code].numpy(), moved / total, rtol=1e-6, atol=1e-9)


def test_what_is_quantised_comes_back_in_its_own_shape() -> None:
    made = codebook()

    codes = made.codes(noise(2, 5, 3))

    assert codes.shape == (2, 5)
    assert made.of(codes).shape == (2, 5, 3)
    assert torch.equal(made.codes(made.of(codes)), codes)


def test_the_nearest_code_is_found_in_full_precision_under_autocast() -> None:
    made, vectors = codebook(size=64).float(), noise(500, 3).float()

    with torch.autocast("cpu", torch.bfloat16):
        found = made.codes(vectors)

    distance = torch.cdist(vectors.double(), made.vectors.double())
    assert torch.equal(found, distance.argmin(dim=1))


def test_the_order_of_a_steps_vectors_does_not_matter_to_living_codes() -> None:
    vectors, order = noise(40, 3), torch.randperm(40, generator=torch.Generator().manual_seed(0))
    one, two = codebook(below=1e-6), codebook(below=1e-6)
    for made in (one, two):
        made.uses.fill_(1.0)
        made.sums.copy_(made.vectors)

    followed(one, vectors)
    followed(two, vectors[order])

    torch.testing.assert_close(one.vectors, two.vectors)


# ---------------------------------------------------------------- codes that are drawn anew


def test_at_first_every_code_is_some_vector_of_the_step_and_no_two_are_the_same() -> None:
    made, vectors = codebook(size=8, below=0.9, decay=0.999), noise(40, 3)

    followed(made, vectors)

    found = {tuple(row) for row in made.vectors.tolist()}
    assert len(found) == 8
    # Through a product and a quotient, so not to the last bit.
    distance = torch.cdist(made.vectors, vectors).min(dim=1).values
    assert float(distance.max()) < 1e-6


def test_a_dead_code_is_drawn_anew_and_a_living_one_is_not() -> None:
    made, vectors = codebook(size=3, below=0.1), noise(30, 3)
    made.uses.fill_(10.0)
    made.sums.copy_(made.vectors * 10)
    made.uses[1] = 1.0
    made.sums[1] = made.vectors[1]
    living = torch.tensor([0, 2]).repeat(15)

    followed(made, vectors, living)

    # Even shares are 10; below 1 is dead.
    assert made.uses.tolist() == pytest.approx([10.5, 1.0, 10.5])
    assert float(torch.cdist(made.vectors[1:2], vectors).min()) < 1e-6
    assert float(torch.cdist(made.vectors[[0, 2]], vectors).min()) > 1e-3


@pytest.mark.parametrize("steps", [1, 50, 400])
def test_however_late_a_code_dies_it_is_drawn_anew(steps: int) -> None:
    made = codebook(size=4, decay=0.5, below=0.5)
    for step in range(steps):
        followed(made, noise(32, 3, seed=step))
    made.vectors[2] = 1e6  # nobody's nearest

    for step in range(8):
        followed(made, noise(32, 3, seed=1000 + step))

    assert float(made.vectors.abs().max()) < 10
    assert int(made.steps) == steps + 8


def test_far_apart_clusters_all_find_a_code_where_the_beginning_missed_them() -> None:
    made = codebook(size=8, decay=0.8, below=0.5)
    centres = 20 * noise(8, 3)
    for step in range(120):
        which = torch.arange(64) % 8
        # The first steps show two clusters alone.
        shown = which % 2 if step < 10 else which
        followed(made, centres[shown] + 0.1 * noise(64, 3, seed=step))

    distance = torch.cdist(centres, made.vectors).min(dim=1).values

    assert float(distance.max()) < 1


def test_every_place_of_every_sample_is_drawn_before_any_is_drawn_again() -> None:
    made, vectors = codebook(size=12, below=0.9, decay=0.999), noise(3, 4, 3)

    made.learn(vectors, made.codes(vectors))

    whose = torch.cdist(made.vectors, vectors.flatten(0, 1)).argmin(dim=1)
    assert sorted(whose.tolist()) == list(range(12))


def test_another_step_draws_others_of_the_same_vectors() -> None:
    made, vectors, drawn = codebook(size=4, below=0.9, decay=0.999), noise(40, 3), []

    for _ in range(2):
        made.uses.zero_()
        followed(made, vectors)
        drawn.append(set(torch.cdist(made.vectors, vectors).argmin(dim=1).tolist()))

    assert drawn[0] != drawn[1]


def test_with_fewer_vectors_than_codes_some_are_drawn_more_than_once() -> None:
    made, vectors = codebook(size=7), noise(3, 3)

    followed(made, vectors)

    assert bool(torch.isfinite(made.vectors).all())
    assert len({tuple(row) for row in made.vectors.tolist()}) <= 7


def test_what_is_drawn_is_settled_by_the_step_and_not_by_torchs_generator() -> None:
    one, two = codebook(size=8), codebook(size=8)

    for step in range(5):
        followed(one, noise(16, 3, seed=step))
        torch.rand(step + 1)
        followed(two, noise(16, 3, seed=step))

    assert torch.equal(one.vectors, two.vectors)


def test_a_codebook_that_was_stored_goes_on_as_one_that_was_not() -> None:
    straight, begun = codebook(size=8), codebook(size=8)
    for step in range(4):
        followed(straight, noise(16, 3, seed=step))
        if step < 2:
            followed(begun, noise(16, 3, seed=step))
    resumed = codebook(size=8)

    resumed.load_state_dict(begun.state_dict())
    for step in (2, 3):
        followed(resumed, noise(16, 3, seed=step))

    assert all(
        torch.equal(one, two)
        for one, two in zip(straight.buffers(), resumed.buffers(), strict=True)
    )


# ---------------------------------------------------------------- ranks


def over_steps(vectors: NDArray[np.float64]) -> Arrays:
    """What a codebook has become after [samples, steps, N, E], codes dying all the time."""
    made = codebook(size=6, decay=0.7, below=0.6)
    for step in range(vectors.shape[1]):
        own = torch.from_numpy(np.ascontiguousarray(vectors[:, step]))
        made.learn(own, made.codes(own))
    return {"vectors": made.vectors.numpy(), "uses": made.uses.numpy(), "sums": made.sums.numpy()}


def test_two_ranks_keep_the_codebook_of_one(ranks: Ranks) -> None:
    vectors = np.random.default_rng(0).normal(size=(8, 10, 3, 3))
    # As the engine divides them: every other sample.
    divided = np.concatenate([vectors[0::2], vectors[1::2]])

    alone, both = over_steps(vectors), ranks.run(over_steps, vectors=divided)

    for name, expected in alone.items():
        for one in both:
            assert np.allclose(one[name], expected, rtol=1e-6, atol=1e-12), name
