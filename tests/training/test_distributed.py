"""Two ranks are one: gathered values, gradients that return, means over unequal weights."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from tests.training.ranks import Ranks
from torch import nn

from tectum_train import distributed
from tectum_train.distributed import (
    all_sum,
    anywhere,
    average_gradients,
    gather,
    interleaved,
    joined,
    launched_as,
    mean_over_ranks,
    means,
    own_samples,
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


def test_over_three_ranks_a_coupled_loss_and_its_gradient_are_those_of_one(
    three_ranks: Ranks,
) -> None:
    x = np.random.default_rng(0).normal(size=(6, 3))

    for way in ("gather", "ring"):
        alone, found = coupled(x, way), three_ranks.run(coupled, x=x, way=way)

        gradient = np.concatenate([one["gradient"] for one in found])
        assert np.allclose(gradient, alone["gradient"], rtol=1e-12), way


def handed_on(x: NDArray[np.float64]) -> Arrays:
    """What comes round, and what returns of it when rank r weighs the k-th with k · 10^r."""
    own = torch.from_numpy(x).requires_grad_()
    came = list(ring(own))
    torch.stack([one.sum() * k * 10 ** rank() for k, one in enumerate(came, 1)]).sum().backward()
    assert own.grad is not None
    return {"came": torch.cat(came).detach().numpy(), "returned": own.grad.numpy()}


def test_in_a_ring_each_hands_on_to_the_next_and_gradients_go_back(three_ranks: Ranks) -> None:
    found = three_ranks.run(handed_on, x=np.array([[0.0], [1.0], [2.0]]))

    assert [one["came"].ravel().tolist() for one in found] == [[0, 2, 1], [1, 0, 2], [2, 1, 0]]
    # Rank 0's sample came first to itself, then to rank 1, then to rank 2.
    assert [one["returned"].item() for one in found] == [321, 213, 132]


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


def test_where_nothing_counts_the_mean_is_zero_and_so_is_its_gradient_however_scaled() -> None:
    values = torch.ones(3, requires_grad=True)

    mean = mean_over_ranks(values, torch.zeros(3))
    (1e6 * mean).backward()

    assert mean == 0
    assert values.grad is not None
    assert values.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("many", [4, 1024])
def test_it_is_zero_on_many_ranks_too(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: many)
    monkeypatch.setattr(distributed, "all_sum", torch.clone)  # where no other has anything either
    values = torch.ones(3, requires_grad=True)

    for one in (mean_over_ranks(values, torch.zeros(3)), mean_over_ranks(values[:0])):
        one.backward()
        assert one == 0

    assert values.grad is not None
    assert values.grad.tolist() == [0, 0, 0]


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


WIDTHS = (torch.float64, torch.bfloat16, torch.float32, torch.float16)


def averaged_widths() -> Arrays:
    """A parameter of each type, with rank times its place for a gradient; and what was sent."""
    parameters = [
        nn.Parameter(torch.zeros(place + 1, dtype=dtype)) for place, dtype in enumerate(WIDTHS)
    ]
    for place, one in enumerate(parameters):
        one.grad = torch.full_like(one, (place + 1) * rank())
    sent, whole = list[str](), dist.all_reduce

    def heard(tensor: torch.Tensor) -> None:
        sent.append(str(tensor.dtype))
        whole(tensor)

    with mock.patch.object(dist, "all_reduce", heard):
        average_gradients(parameters)
    means = {str(p.dtype): p.grad.double().numpy() for p in parameters if p.grad is not None}
    return {**means, "sent": np.array(sent[1:])}  # the first says who has gradients


def test_gradients_of_several_types_are_averaged_in_the_order_all_ranks_share(
    three_ranks: Ranks,
) -> None:
    found = three_ranks.run(averaged_widths)

    for one in found:
        assert one["sent"].tolist() == list(map(str, WIDTHS))  # a set's order is each process's own
        for place, dtype in enumerate(WIDTHS):
            assert one[str(dtype)].tolist() == [place + 1] * (place + 1)


def differing(flags: NDArray[np.bool_]) -> Arrays:
    """Numbers of which each rank has some, whether a flag is set anywhere, and own samples."""
    numbers = {"all": float(rank()), f"only {rank()}": 5.0} | ({"long": 1e-9} if rank() else {})
    whole = torch.arange(6)
    own = whole[own_samples()]
    found = means(numbers, "cpu")
    return {
        "names": np.array(list(found)),
        "means": np.array(list(found.values())),
        "anywhere": np.array(anywhere(bool(flags[0]), "cpu")),
        "nowhere": np.array(anywhere(False, "cpu")),
        "own": own.numpy(),
        "every": interleaved(gather(own), world_size()).numpy(),
    }


def test_each_rank_hears_all_means_and_flags_whoever_has_them(three_ranks: Ranks) -> None:
    for one in three_ranks.run(differing, flags=np.array([False, False, True])):
        found = dict(zip(one["names"].tolist(), one["means"].tolist(), strict=True))
        assert found == {"all": 1.0, "only 0": 5.0, "only 1": 5.0, "only 2": 5.0, "long": 1e-9}
        assert one["anywhere"]
        assert not one["nowhere"]


def test_each_rank_has_every_third_sample_and_together_they_are_in_order(
    three_ranks: Ranks,
) -> None:
    found = three_ranks.run(differing, flags=np.zeros(3, np.bool_))

    assert [one["own"].tolist() for one in found] == [[0, 3], [1, 4], [2, 5]]
    for one in found:
        assert one["every"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_gpu_is_one_ranks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched_as() == 0
    launched = {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1"}
    for name, value in (launched | {"MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert launched_as() == 3
    for device in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=r"of which there are 2; say 'cuda'"), joined(device):
            pass


def test_alone_nothing_is_sent() -> None:
    x = torch.ones(2, requires_grad=True)

    assert world_size() == 1
    assert gather(x) is x
    assert list(ring(x)) == [x]
    assert means({"one": 1.0}, "cpu") == {"one": 1.0}
    assert torch.arange(4)[own_samples()].tolist() == [0, 1, 2, 3]
    with joined("cpu") as device:
        assert device == "cpu"
        assert world_size() == 1
