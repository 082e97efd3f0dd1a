"""What objectives put on the trunk's vectors: BatchNorm over all ranks, and prototypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.ranks import Ranks
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.testing import assert_close

from tectum_train.distributed import mean_over_ranks, rank, world_size
from tectum_train.heads import PrototypeHead, batch_norm

Arrays = dict[str, NDArray[Any]]


def judged(x_shared: NDArray[np.float64], weight_shared: NDArray[np.float64]) -> Arrays:
    """Its values, and the gradient of a loss in which every value counts otherwise.

    Of two ranks the first has two rows alone.
    """
    first = slice(None) if world_size() == 1 else slice(2) if rank() == 0 else slice(2, None)
    own = torch.from_numpy(x_shared[first]).requires_grad_()
    normed = batch_norm(own)
    mean_over_ranks(normed**3 @ torch.from_numpy(weight_shared)).backward()
    assert own.grad is not None
    return {"normed": normed.detach().numpy(), "gradient": own.grad.numpy() / world_size()}


def test_batch_norm_is_torchs_without_gains() -> None:
    x = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()

    normed = batch_norm(ours)
    expected = F.batch_norm(theirs, None, None, training=True)

    assert_close(normed, expected, rtol=1e-12, atol=1e-12)
    (normed**3).sum().backward()
    (expected**3).sum().backward()
    assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), shift=st.floats(-100, 100), gain=st.floats(1, 100))
def test_what_all_vectors_share_is_gone(seed: int, shift: float, gain: float) -> None:
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    assert_close(batch_norm(gain * x + shift), batch_norm(x), rtol=1e-2, atol=1e-2)


def test_two_ranks_have_the_mean_and_variance_of_both(ranks: Ranks) -> None:
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(6, 3)), random.normal(size=3)

    alone = judged(x, weight)
    both = ranks.run(judged, x_shared=x, weight_shared=weight)

    for name in ("normed", "gradient"):
        assert np.allclose(np.concatenate([one[name] for one in both]), alone[name], rtol=1e-9)


def test_one_sample_has_no_variance() -> None:
    with pytest.raises(ValueError, match=r"batch_norm: found 1 of all ranks' rows; allowed: 2"):
        batch_norm(torch.ones(1, 3))


def test_prototypes_begin_as_short_as_a_linear_layers_rows() -> None:
    """Ten steps of Adam turn them as far as those: they are learnt as fast as the rest."""
    torch.manual_seed(0)
    head = PrototypeHead(8, 16, 64, 500)
    rows = torch.nn.Linear(64, 500, bias=False).weight

    lengths = head.directions.norm(dim=1)

    assert lengths.mean().item() == pytest.approx(rows.norm(dim=1).mean().item(), rel=0.02)
    assert lengths.std() < 0.1 * lengths.mean()


def test_an_optimisers_steps_turn_prototypes_as_fast_as_the_papers() -> None:
    """The reference: torch's own weight-normalised linear map, gains at 1."""
    torch.manual_seed(0)
    head = PrototypeHead(8, 16, 64, 100)
    paper = weight_norm(torch.nn.Linear(64, 100, bias=False))
    paper.parametrizations.weight.original0.requires_grad_(False).fill_(1)
    turned = []

    for directions in (head.directions, paper.parametrizations.weight.original1):
        begun = directions.detach().clone()
        adam = torch.optim.AdamW([directions], lr=1e-3)
        for step in range(50):
            draw = torch.Generator().manual_seed(step)
            x = F.normalize(torch.randn(32, 64, generator=draw), dim=1)
            adam.zero_grad()
            (x @ F.normalize(directions, dim=1).t() / 0.1).logsumexp(dim=1).mean().backward()
            adam.step()
        turned.append(F.cosine_similarity(directions.detach(), begun, dim=1).arccos().mean())

    assert turned[0].item() == pytest.approx(turned[1].item(), rel=0.1)
