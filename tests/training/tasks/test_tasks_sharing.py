"""A trunk for each objective, and what ties them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from tests.training.tiny import batch, model, tokenizer
from torch import nn

from tectum_core.model import PerceptionModel, Replaced, VisionTransformer
from tectum_train.objectives import ObjectiveConfig, objective_for
from tectum_train.tasks import ManyTasks, TasksConfig
from tectum_train.tasks.sharing import (
    Stitched,
    distance,
    own_trunks,
    pull,
    stitched_trunks,
    views_of,
)

READ: TypeAdapter[Any] = TypeAdapter(ObjectiveConfig)
KINDS = ("image_text", "masked_image")


def together(strength: float) -> tuple[ManyTasks, list[nn.Module]]:
    """Two objectives, each with a trunk of its own."""
    views = own_trunks(model(), 2)
    parts = [
        (1.0, objective_for(READ.validate_python({"kind": kind}), view, tokenizer()))
        for kind, view in zip(KINDS, views, strict=True)
    ]
    trunks: list[nn.Module] = [view.vision for view in views]
    config = TasksConfig.model_validate(
        {"sharing": {"kind": "distance", "strength": strength, "served": "image_text"}}
    )
    return ManyTasks(parts, trunks, config), trunks


def apart_after(strength: float, steps: int = 60) -> float:
    many, trunks = together(strength)
    descent = torch.optim.SGD(many.parameters(), lr=0.02)
    for step in range(steps):
        made = batch(8)
        made.generator.manual_seed(step)
        descent.zero_grad()
        many(made).loss.backward()
        descent.step()
        many.draw_together(0.02)
        many.after_step()
    return float(distance(trunks).detach())


def stitched_of(view: PerceptionModel) -> tuple[Stitched, list[VisionTransformer]]:
    """What is behind a stitched view's trunk, and its trunks."""
    found = view.vision.get_submodule("stitched")
    assert isinstance(found, Stitched)
    return found, [one for one in found.trunks if isinstance(one, VisionTransformer)]


# ---------------------------------------------------------------- views


def test_views_share_all_but_their_trunks() -> None:
    network = model()

    first, second = own_trunks(network, 2)

    assert first.vision is network.vision
    assert second.vision is not network.vision
    assert first.text is second.text is network.text
    assert torch.equal(first.vision(batch().earlier).pooled, second.vision(batch().earlier).pooled)


def test_who_trains_no_trunk_reads_the_served_ones() -> None:
    config = TasksConfig.model_validate({"sharing": {"kind": "distance", "served": "b"}})
    network = model()

    views = views_of(network, ["a", "b", "c", "d"], config.sharing, ["a", "b"])

    assert views["b"].vision is views["c"].vision is views["d"].vision is network.vision
    assert views["a"].vision is not network.vision


def test_each_objective_reaches_its_own_trunk_alone() -> None:
    many, (first, second) = together(0.0)

    many.parts[1](batch()).loss.backward()

    assert all(one.grad is None for one in first.parameters())
    assert any(one.grad is not None for one in second.parameters())


def test_a_batch_remembers_each_trunks_own_pass() -> None:
    first, second = own_trunks(model(), 2)
    with torch.no_grad():
        next(second.vision.parameters()).add_(1.0)
    made = batch()

    assert made.image(first) is made.image(first)
    assert not torch.equal(made.image(first).pooled, made.image(second).pooled)


# ---------------------------------------------------------------- distance


def test_the_distance_is_that_from_the_mean() -> None:
    trunks = [nn.Linear(2, 1, bias=False) for _ in range(3)]
    for trunk, value in zip(trunks, (0.0, 1.0, 5.0), strict=True):
        nn.init.constant_(trunk.weight, value)

    found = distance(trunks)
    found.backward()

    assert float(found.detach()) == pytest.approx(2 * (4 + 1 + 9))
    assert [
        trunk.weight.grad[0, 0].item() for trunk in trunks if trunk.weight.grad is not None
    ] == (pytest.approx([-4.0, -2.0, 6.0]))


def test_the_stronger_the_tie_the_closer_the_trunks() -> None:
    free, tied, bound = (apart_after(strength) for strength in (0.0, 1.0, 20.0))

    assert free > 1.5 * tied > 15 * bound


def test_with_nothing_to_tie_them_what_both_pull_at_is_what_one_trunk_would_be_pulled_at() -> None:
    many, (first, second) = together(0.0)
    hard, shared = as_one()
    many(batch()).loss.backward()
    hard(batch()).loss.backward()

    for one, two, both in zip(
        first.parameters(), second.parameters(), shared.parameters(), strict=True
    ):
        found = [each.grad for each in (one, two) if each.grad is not None]
        if both.grad is not None:
            torch.testing.assert_close(sum(found), both.grad, rtol=1e-3, atol=1e-5)


def test_trunks_go_a_share_of_the_way_to_their_mean() -> None:
    trunks = [nn.Linear(1, 1, bias=False) for _ in range(3)]
    for trunk, value in zip(trunks, (0.0, 1.0, 5.0), strict=True):
        nn.init.constant_(trunk.weight, value)

    pull(trunks, 0.25)

    assert [trunk.weight.item() for trunk in trunks] == pytest.approx([0.5, 1.25, 4.25])


@pytest.mark.parametrize(("share", "held"), [(0.0, False), (1.0, True), (1e9, True)])
def test_trunks_are_left_as_they_are_or_become_their_mean_number_for_number(
    share: float, held: bool
) -> None:
    trunks = [nn.Linear(7, 5) for _ in range(3)]
    before = [numbers(trunk) for trunk in trunks]

    pull(trunks, share)

    wanted = [torch.stack(before).mean(dim=0)] * 3 if held else before
    assert all(torch.equal(numbers(one), own) for one, own in zip(trunks, wanted, strict=True))


def test_what_is_descended_and_told_counts_the_distance_and_has_no_gradient_of_it() -> None:
    many, trunks = together(3.0)
    pull_apart = torch.nn.utils.parameters_to_vector(trunks[1].parameters()) * 1.1
    torch.nn.utils.vector_to_parameters(pull_apart, trunks[1].parameters())
    free = ManyTasks([(1.0, part) for _, part in many.named_parts()], trunks)

    tied, alone = many(batch()), free(batch())

    apart = float(distance(trunks).detach())
    assert float(tied.metrics["sharing/distance"]) == pytest.approx(apart)
    assert float(tied.loss.detach()) == pytest.approx(float(alone.loss.detach()) + 3 * apart)
    found = torch.autograd.grad(tied.loss, list(trunks[1].parameters()), allow_unused=True)
    wanted = torch.autograd.grad(alone.loss, list(trunks[1].parameters()), allow_unused=True)
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        assert one is None or other is None or torch.equal(one, other)


def test_bound_together_they_go_where_one_trunk_goes_that_descends_the_mean() -> None:
    """λ → ∞ is hard sharing, step by step, under plain descent."""
    rate, (many, trunks), (hard, shared) = 0.02, together(1e9), as_one()
    begun, own = numbers(shared), {id(one) for one in shared.parameters()}
    soft = torch.optim.SGD(many.parameters(), lr=rate)
    groups: list[dict[str, Any]] = [
        {"params": list(shared.parameters()), "lr": rate / 2},  # the mean, not the sum
        {"params": [one for one in hard.parameters() if id(one) not in own]},
    ]
    one_trunk = torch.optim.SGD(groups, lr=rate)
    for _ in range(20):
        for learnt, descent in ((many, soft), (hard, one_trunk)):
            descent.zero_grad()
            learnt(batch(8)).loss.backward()
            descent.step()
            learnt.draw_together(rate)
            learnt.after_step()

    moved = float((numbers(shared) - begun).norm())
    assert torch.equal(numbers(trunks[0]), numbers(trunks[1]))
    assert float((numbers(trunks[0]) - numbers(shared)).norm()) <= 1e-3 * moved


def as_one() -> tuple[ManyTasks, nn.Module]:
    """The same objectives on one trunk, and that."""
    network = model()
    parts = [
        (1.0, objective_for(READ.validate_python({"kind": kind}), network, tokenizer()))
        for kind in KINDS
    ]
    return ManyTasks(parts, [network.vision]), network.vision


def numbers(trunk: nn.Module) -> torch.Tensor:
    """All parameters in a row."""
    return torch.cat([one.detach().flatten() for one in trunk.parameters()]).clone()


# ---------------------------------------------------------------- cross-stitch


def test_with_nothing_of_the_others_a_stitched_trunk_is_the_trunk_alone() -> None:
    network, made = model(), batch()
    keep = torch.arange(5).repeat(8, 1)
    hidden = Replaced(
        torch.arange(network.vision.config.patches).repeat(8, 1) % 3 == 0,
        torch.zeros(network.vision.config.transformer.width),
    )
    views = stitched_trunks(network, 3, own=1.0)

    for view in views:
        for given in ((), (keep,), (None, hidden)):
            alone, stitched = (
                network.vision(made.earlier, *given),
                view.vision(made.earlier, *given),
            )
            torch.testing.assert_close(stitched.tokens, alone.tokens)
            torch.testing.assert_close(stitched.pooled, alone.pooled)


def test_between_stitched_blocks_the_residual_stays_float32_where_products_do_not() -> None:
    network, made = model(), batch()
    view, _ = stitched_trunks(network, 2, own=1.0)

    with torch.autocast("cpu", torch.bfloat16):
        stitched, alone = view.vision(made.earlier), network.vision(made.earlier)

    assert stitched.tokens.dtype == alone.tokens.dtype == torch.float32
    assert torch.equal(stitched.tokens, alone.tokens)


def test_units_mix_what_the_others_made() -> None:
    views = stitched_trunks(model(), 2, own=0.9)
    stitched, trunks = stitched_of(views[0])
    with torch.no_grad():
        for parameter in trunks[1].parameters():
            parameter.mul_(1.5)
    before = views[0].vision(batch().earlier).pooled
    with torch.no_grad():
        stitched.units.copy_(torch.eye(2))

    assert not torch.allclose(views[0].vision(batch().earlier).pooled, before)
    assert stitched.units.shape == (len(trunks[0].transformer.blocks), 2, 2)


def test_row_k_of_a_unit_says_what_trunk_k_goes_on_with() -> None:
    views = stitched_trunks(model(), 2, own=0.9)
    stitched, trunks = stitched_of(views[0])
    with torch.no_grad():
        for parameter in trunks[1].parameters():
            parameter.mul_(1.5)
        stitched.units.copy_(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))  # the second one listens

    own, listening = (view.vision(batch().earlier).pooled for view in views)

    alone, other = (trunk(batch().earlier).pooled for trunk in trunks)
    torch.testing.assert_close(own, alone)
    assert not torch.allclose(listening, other)


def test_every_objective_teaches_every_stitched_trunk() -> None:
    network = model()
    views = stitched_trunks(network, 2, own=0.9)
    objective = objective_for(READ.validate_python({"kind": "image_text"}), views[0], tokenizer())

    objective(batch()).loss.backward()

    stitched, trunks = stitched_of(views[0])
    for trunk in trunks:
        assert all(one.grad is not None for one in trunk.transformer.blocks[0].parameters())
    assert stitched.units.grad is not None
    assert bool(stitched.units.grad[:-1].any())
