"""What passes between the dynamics: shapes, codes in range, a codebook that is saved."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tectum_core.architecture import (
    Bottleneck,
    ContinuousBottleneck,
    FsqBottleneck,
    VqBottleneck,
)
from tectum_core.model.bottleneck import (
    bottleneck_for,
    code_count,
    codebook_size,
    latent_width,
)

WIDTH = 16
QUANTISED: list[VqBottleneck | FsqBottleneck] = [
    VqBottleneck(codes=3, codebook_size=5, code_width=6),
    FsqBottleneck(codes=2, levels=(5, 3, 4)),
    FsqBottleneck(codes=1, levels=(3,)),
]
EVERY: list[Bottleneck] = [ContinuousBottleneck(width=7), *QUANTISED]


def read(config: Bottleneck, batch: int = 40) -> Tensor:
    return torch.randn(batch, max(code_count(config), 1), WIDTH) * 3


@pytest.mark.parametrize("config", EVERY)
def test_vectors_have_the_width_that_the_contract_announces(config: Bottleneck) -> None:
    bottled = bottleneck_for(config, WIDTH).eval()(read(config))

    assert bottled.vectors.flatten(1).shape == (40, latent_width(config))
    assert bottled.losses.shape == (40,)
    assert bottled.losses.dtype == torch.float32


def test_a_continuous_latent_has_no_codes_and_adds_no_loss() -> None:
    bottled = bottleneck_for(ContinuousBottleneck(), WIDTH)(read(ContinuousBottleneck()))

    assert bottled.codes is None
    assert not bottled.losses.any()
    assert codebook_size(ContinuousBottleneck()) == 0


@pytest.mark.parametrize("config", QUANTISED)
def test_codes_lie_within_the_codebook(config: VqBottleneck | FsqBottleneck) -> None:
    bottled = bottleneck_for(config, WIDTH).eval()(read(config, batch=500))

    assert bottled.codes is not None
    assert bottled.codes.dtype == torch.int64
    assert bottled.codes.shape == (500, code_count(config))
    assert int(bottled.codes.min()) >= 0
    assert int(bottled.codes.max()) < codebook_size(config)
    assert len(bottled.codes.unique()) > 1


@pytest.mark.parametrize("config", QUANTISED)
def test_equal_codes_are_equal_vectors_and_different_ones_differ(
    config: VqBottleneck | FsqBottleneck,
) -> None:
    bottled = bottleneck_for(config, WIDTH).eval()(read(config, batch=500))
    assert bottled.codes is not None
    codes, vectors = bottled.codes.flatten(), bottled.vectors.detach().flatten(0, 1)

    distinct = vectors.round(decimals=4).unique(dim=0)

    assert len(distinct) == len(codes.unique())
    for code in codes.unique():
        same = vectors[codes == code]
        assert_close(same, same[:1].expand_as(same), rtol=0, atol=1e-5)


def test_an_fsq_grid_has_no_more_points_than_its_levels_multiply_to() -> None:
    assert codebook_size(FsqBottleneck(levels=(5, 3, 4))) == 60


@pytest.mark.parametrize("config", QUANTISED)
def test_gradients_pass_the_quantiser(config: VqBottleneck | FsqBottleneck) -> None:
    x = read(config).requires_grad_()

    bottleneck_for(config, WIDTH).train()(x).vectors.sum().backward()

    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
