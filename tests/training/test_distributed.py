"""Two ranks are one: gathered values, gradients that return, means over unequal weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.training.ranks import Ranks
from torch import nn

from tectum_train.distributed import (
    all_sum,
    average_gradients,
    gather,
    mean_over_ranks,
    rank,
    ring,
    same_everywhere,
    world_size,
)

Arrays = dict[str, NDArray[Any]]


def coupled(x: NDArray[np.float64], way: str) -> Arrays:
    """A loss of each row against all rows, computed for the own rows alone."""
    own = torch.from_numpy(x).requires_grad_()
    every = gather(own) if way == "gather" else torch.cat(list(ring(own)))
    loss = (own @ every.T).exp().mean(dim=1).log().mean()
    loss.backward()
    assert own.grad is not None
    return {
        "loss": loss.detach().numpy(),
        # As average_gradients would make it.
        "gradient": own.grad.numpy() / world_size(),
        "every": every.detach().numpy(),
    }


@pytest.mark.parametrize("way", ["gather", "ring"])
def test_a_coupled_loss_and_its_gradient_are_those_of_one_rank(ranks: Ranks, way: str) -> None:
    x = np.random.default_rng(0).normal(size=(6, 3))

    alone, both = coupled(x, way), ranks.run(coupled, x=x, way=way)

    assert np.isclose(np.mean([one["loss"] for one in both]), alone["loss"], rtol=1e-12)
    gradient = np.concatenate([one["gradient"] for one in both])
    assert np.allclose(gradient, alone["gradient"], rtol=1e-12)
    for one in both:
        assert sorted(map(tuple, one["every"])) == sorted(map(tuple, x))


def gathered(flags: NDArray[np.bool_], numbers: NDArray[np.int64]) -> Arrays:
    every = gather(torch.from_numpy(flags)), gather(torch.from_numpy(numbers))
    return {"flags": every[0].numpy(), "numbers": every[1].numpy(), "rank": np.array(rank())}


def test_flags_and_numbers_are_gathered_in_the_order_of_ranks(ranks: Ranks) -> None:
    flags, numbers = np.array([True, False, False, True]), np.arange(4)

    both = ranks.run(gathered, flags=flags, numbers=numbers)

    for place, one in enumerate(both):
        assert one["rank"] == place
        assert np.array_equal(one["flags"], flags)
        assert np.array_equal(one["numbers"], numbers)


def weighted(values: NDArray[np.float64], weight: NDArray[np.float64]) -> Arrays:
    given = torch.from_numpy(values), torch.from_numpy(weight)
    return {"mean": mean_over_ranks(*given).numpy(), "sum": all_sum(given[0]).numpy()}


def test_means_are_those_of_all_samples_however_unequal_the_ranks(ranks: Ranks) -> None:
    values, weight = np.array([1.0, 2.0, 3.0, 40.0]), np.array([0.0, 0.0, 1.0, 3.0])

    both = ranks.run(weighted, values=values, weight=weight)

    assert np.isclose(np.mean([one["mean"] for one in both]), np.average(values, weights=weight))
    assert np.array_equal(both[0]["sum"], [4.0, 42.0])


def test_where_nothing_counts_the_mean_is_zero() -> None:
    assert mean_over_ranks(torch.ones(3), torch.zeros(3)) == 0


def averaged(x: NDArray[np.float64], seed: int) -> Arrays:
    """One linear map, one that only the first rank's loss reads, and one that nobody reads."""
    torch.manual_seed(seed + rank())
    layers = {name: nn.Linear(3, 1).double() for name in ("all", "first", "none")}
    module = nn.ModuleDict(layers)
    same_everywhere(module)
    inputs = torch.from_numpy(x)
    loss = layers["all"](inputs).square().mean()
    if rank() == 0:
        loss = loss + layers["first"](inputs).mean()
    loss.backward()
    average_gradients(module.parameters())
    found = {
        name: one.grad.numpy() for name, one in module.named_parameters() if one.grad is not None
    }
    return {**found, "weights": layers["all"].weight.detach().numpy()}


def test_gradients_are_averaged_and_what_one_rank_reads_counts_half(ranks: Ranks) -> None:
    x = np.random.default_rng(1).normal(size=(4, 3))

    both = ranks.run(averaged, x=x, seed=5)

    assert np.array_equal(both[0]["weights"], both[1]["weights"])
    assert np.allclose(both[0]["first.bias"], 0.5)
    assert np.allclose(both[0]["first.weight"], x[:2].mean(axis=0) / 2)
    for one in both:
        assert "none.weight" not in one
        assert np.array_equal(one["all.weight"], both[0]["all.weight"])


def test_alone_nothing_is_sent() -> None:
    x = torch.ones(2, requires_grad=True)

    assert world_size() == 1
    assert gather(x) is x
    assert list(ring(x)) == [x]
