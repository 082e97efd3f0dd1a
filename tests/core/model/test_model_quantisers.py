"""Codebooks and grids: what they learn from, in which numbers, and what of them is saved."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tectum_core.architecture import FsqBottleneck, VqBottleneck
from tectum_core.model.bottleneck import bottleneck_for, code_count

WIDTH = 16
QUANTISED: list[VqBottleneck | FsqBottleneck] = [
    VqBottleneck(codes=3, codebook_size=5, code_width=6),
    FsqBottleneck(codes=2, levels=(5, 3, 4)),
    FsqBottleneck(codes=1, levels=(3,)),
]


def read(config: VqBottleneck | FsqBottleneck, batch: int = 40) -> Tensor:
    return torch.randn(batch, code_count(config), WIDTH) * 3


def test_the_vq_codebook_is_part_of_the_saved_state() -> None:
    config = VqBottleneck(codes=3, codebook_size=5, code_width=6)
    trained = bottleneck_for(config, WIDTH).train()
    for _ in range(5):
        trained(read(config))
    x, fresh = read(config), bottleneck_for(config, WIDTH).eval()
    before = fresh(x).vectors

    fresh.load_state_dict(trained.state_dict())

    assert_close(fresh(x).vectors, trained.eval()(x).vectors)
    assert not torch.allclose(fresh(x).vectors, before)


def test_training_moves_the_vq_codebook_and_serving_does_not() -> None:
    config = VqBottleneck(codes=3, codebook_size=5, code_width=6)
    module = bottleneck_for(config, WIDTH)

    def codebook() -> Tensor:
        return torch.cat(
            [v.float().flatten().clone() for k, v in module.state_dict().items() if "_code" in k]
        )

    module.eval()(read(config))
    served = codebook()
    module.eval()(read(config))
    assert torch.equal(codebook(), served)
    module.train()(read(config))
    assert not torch.equal(codebook(), served)


@pytest.mark.parametrize("config", QUANTISED)
def test_the_quantiser_counts_in_float32_whatever_the_recipes_precision(
    config: VqBottleneck | FsqBottleneck,
) -> None:
    exact = bottleneck_for(config, WIDTH).train()
    width = exact.project.out_features
    assert isinstance(width, int)
    exact.add_module("project", nn.Identity())  # which may well run in bfloat16
    mixed = copy.deepcopy(exact)

    for step in range(20):
        x = torch.randn(40, code_count(config), width) * 3
        torch.manual_seed(step)  # codes that are drawn anew
        wanted = exact(x)
        torch.manual_seed(step)
        with torch.autocast("cpu", torch.bfloat16):
            found = mixed(x)
        assert torch.equal(found.vectors, wanted.vectors)
        assert torch.equal(found.losses, wanted.losses)

    for key, value in exact.state_dict().items():
        assert torch.equal(mixed.state_dict()[key], value), key


@pytest.mark.parametrize("length", [0.0, 1e-5, 1.0, 1e3])
def test_a_code_hands_its_gradient_on_as_it_is_however_much_was_said(length: float) -> None:
    module = bottleneck_for(VqBottleneck(codes=3, codebook_size=5, code_width=WIDTH), WIDTH).train()
    module.add_module("project", nn.Identity())
    said = (length * nn.functional.normalize(torch.randn(40, 3, WIDTH), dim=2)).requires_grad_()
    entries = module.get_buffer("quantise._codebook.embed")[0].clone()

    found = module(said)
    owed = torch.randn_like(found.vectors)
    (gradient,) = torch.autograd.grad(found.vectors, said, owed)

    assert torch.equal(found.vectors, entries[found.codes])
    assert torch.equal(gradient, owed)


def test_vq_asks_each_sample_to_stay_near_its_codes() -> None:
    config = VqBottleneck(codes=3, codebook_size=5, code_width=6, commitment=0.3)
    module, x = bottleneck_for(config, WIDTH).train(), read(config).requires_grad_()
    entries = module.get_buffer("quantise._codebook.embed")[0].double().clone()

    found = module(x)
    (gradient,) = torch.autograd.grad(found.losses.sum(), x)

    said = module.project(x).double().requires_grad_()
    wanted = 0.3 * (said - entries[found.codes]).square().mean(dim=(1, 2))
    (moved,) = torch.autograd.grad(wanted.sum(), said)
    assert_close(found.losses.double(), wanted, rtol=1e-5, atol=1e-8)
    assert_close(gradient.double(), moved @ module.project.weight.double(), rtol=1e-4, atol=1e-7)


def test_a_codebook_learns_only_from_samples_that_count() -> None:
    counted = torch.arange(40) % 3 > 0
    config = VqBottleneck(codes=2, codebook_size=8, code_width=6)
    one = bottleneck_for(config, WIDTH).train()
    other, fewer = copy.deepcopy(one), copy.deepcopy(one)

    for step in range(20):  # in which codes die, and are drawn anew
        x = read(config)
        spoilt = torch.where(counted[:, None, None], x, torch.full_like(x, 1e3))
        found = []
        for module, given in ((one, x), (other, spoilt)):
            torch.manual_seed(step)
            found.append(module(given, counted))
        torch.manual_seed(step)
        fewer(x[counted])
        assert torch.equal(found[0].codes[counted], found[1].codes[counted])

    for key, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
        assert torch.equal(fewer.state_dict()[key], value), key


def test_a_batch_in_which_nothing_counts_leaves_the_codebook_as_it_was() -> None:
    config = VqBottleneck(codes=2, codebook_size=8, code_width=6)
    module = bottleneck_for(config, WIDTH).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}

    module(read(config), torch.zeros(40, dtype=torch.bool))

    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


# ---------------------------------------------------------------- dead codes


VQ = VqBottleneck(codes=2, codebook_size=8, code_width=6)


def trained_on_one_place(steps: int) -> Any:
    """A codebook whose encoder has for so long said nearly the same of everything."""
    torch.manual_seed(0)
    module = bottleneck_for(VQ, WIDTH).train()
    for _ in range(steps):
        module(torch.full((64, 2, WIDTH), 3.0) + 1e-4 * torch.randn(64, 2, WIDTH))
    return module


@pytest.mark.parametrize("steps", [1, 50, 800])
def test_however_late_the_data_come_to_differ_dead_codes_are_drawn_from_them(steps: int) -> None:
    module = trained_on_one_place(steps)

    # What they stood for before is forgotten at the pace of the averages.
    for _ in range(600):
        module(read(VQ, batch=64))

    uses = module.eval()(read(VQ, batch=500)).codes.flatten().bincount(minlength=8)
    assert float(uses.min()) > 0.2 * 1000 / 8


def test_dead_codes_are_drawn_again_in_every_step_as_a_saved_state_would() -> None:
    module = trained_on_one_place(30)
    again = bottleneck_for(VQ, WIDTH).train()
    again.load_state_dict(module.state_dict())
    before = {key: value.clone() for key, value in module.state_dict().items()}

    for number in range(3):
        x = read(VQ, batch=64)
        for one in (module, again):
            torch.manual_seed(number)
            one(x)

    for key, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    assert any(not torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_each_dead_code_becomes_another_vector_while_there_are_any() -> None:
    module = trained_on_one_place(1)
    codebook = module.get_submodule("quantise._codebook")
    with torch.no_grad():
        codebook.cluster_size.zero_()
    module(read(VQ, batch=64))

    entries = codebook.embed[0]

    assert len(entries.unique(dim=0)) == 8


def on_what_is_said(**changes: Any) -> tuple[nn.Module, Any]:
    """A codebook of what it is shown as it is; and that codebook."""
    config = VqBottleneck(codes=2, code_width=WIDTH, **changes)
    module = bottleneck_for(config, WIDTH).train()
    module.add_module("project", nn.Identity())
    return module, module.get_submodule("quantise._codebook")


def rows(vectors: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in vectors.flatten(0, -2).tolist()}


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_an_entry_is_the_moving_average_of_what_it_stands_for(decay: float) -> None:
    module, codebook = on_what_is_said(codebook_size=4, decay=decay, restart_below=1e-9)
    uses, sums = (one[0].double() for one in (codebook.cluster_size, codebook.embed_avg))

    for _ in range(5):  # VQ-VAE (arXiv:1711.00937), appendix A.1
        x = read(VQ)
        codes = nn.functional.one_hot(module(x).codes.flatten(), 4).double()
        uses = decay * uses + (1 - decay) * codes.sum(dim=0)
        sums = decay * sums + (1 - decay) * codes.t() @ x.flatten(0, 1).double()

    assert_close(codebook.embed[0].double(), sums / uses[:, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("below", "dead"), [(0.75, [1]), (2.2, [1, 2, 3, 4])])
def test_an_entry_is_drawn_anew_where_it_is_used_less_than_the_recipe_says(
    below: float, dead: list[int]
) -> None:
    module, codebook = on_what_is_said(codebook_size=8, decay=0.5, restart_below=below)
    codebook.cluster_size.copy_(torch.arange(8.0))  # which halves, but for the first's
    x = codebook.embed[0, 0] + 1e-3 * torch.randn(20, 2, WIDTH)

    module(x)

    vectors = rows(x)
    assert [at for at in range(1, 8) if rows(codebook.embed[0, at : at + 1]) <= vectors] == dead
    assert codebook.cluster_size[0, dead].tolist() == pytest.approx([below] * len(dead))


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_every_dead_code_is_drawn_however_few_vectors_there_are(batch: int) -> None:
    module, codebook = on_what_is_said(codebook_size=8)
    codebook.cluster_size.zero_()
    x = read(VQ, batch)

    module(x)

    assert rows(codebook.embed[0]) <= rows(x)
    assert len(rows(codebook.embed[0])) == min(8, 2 * batch)


def test_what_is_drawn_is_any_of_the_batch_as_torchs_generator_says() -> None:
    x, drawn = read(VQ, batch=64), list[Tensor]()
    for seed in (1, 2, 1):
        torch.manual_seed(0)
        module, codebook = on_what_is_said(codebook_size=8)
        codebook.cluster_size.zero_()
        torch.manual_seed(seed)
        module(x)
        drawn.append(codebook.embed[0])

    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
