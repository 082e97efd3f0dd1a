"""Codes in use: counted over ranks, and how many they are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from tests.training.ranks import Ranks

from tectum_train.losses.codes import code_uses, perplexity


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_uses_are_counts_and_perplexity_is_that_of_their_shares(codes: list[int]) -> None:
    counts = np.bincount(codes, minlength=7)

    uses = code_uses(torch.tensor(codes), 7)

    assert uses.tolist() == counts.tolist()
    assert float(perplexity(uses)) == pytest.approx(np.exp(entropy(counts)), rel=1e-5)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans())))
def test_what_does_not_count_uses_no_code(said: list[tuple[int, int, bool]]) -> None:
    codes = torch.tensor([(one, two) for one, two, _ in said], dtype=torch.long).view(-1, 2)
    counted = torch.tensor([counts for *_, counts in said], dtype=torch.bool)

    assert torch.equal(code_uses(codes, 7, counted), code_uses(codes[counted], 7))


@pytest.mark.parametrize("size", [1, 2, 625])
def test_codes_that_are_all_alike_are_worth_their_number(size: int) -> None:
    assert float(perplexity(torch.full((size,), 3.0))) == pytest.approx(size, rel=1e-4)


def counted(codes: Any) -> dict[str, Any]:
    return {"uses": code_uses(torch.from_numpy(codes), 5).numpy()}


def test_every_rank_counts_all_ranks_codes(ranks: Ranks) -> None:
    codes = np.random.default_rng(0).integers(0, 5, (8, 3))

    both = ranks.run(counted, codes=codes)

    for one in both:
        assert one["uses"].tolist() == np.bincount(codes.ravel(), minlength=5).tolist()
