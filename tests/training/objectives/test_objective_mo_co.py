"""MoCo: the slow encoder, the queue of its keys, and what is asked of them."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest
import torch
from tests.bundles import vision
from tests.training.tiny import batch, model
from torch import Tensor
from torch.nn import Linear
from torch.nn import functional as F
from torch.testing import assert_close

from tectum_core.architecture import StemConfig
from tectum_train.losses.contrastive import batch_info_nce, queue_info_nce
from tectum_train.losses.distillation import koleo
from tectum_train.momentum import momentum_at
from tectum_train.objectives import Batch
from tectum_train.objectives.mo_co import MoCo, MoCoConfig


def built(**settings: Any) -> MoCo:
    torch.manual_seed(0)
    return MoCo(MoCoConfig(hidden=16, width=8, **settings), model())


def step(objective: MoCo, made: Batch) -> None:
    """One step of plain gradient descent."""
    objective.zero_grad()
    objective(made).loss.backward()
    with torch.no_grad():
        for one in objective.parameters():
            if one.grad is not None:
                one.sub_(0.1 * one.grad)
    objective.after_step()


def views(made: Batch) -> tuple[Tensor, Tensor]:
    assert made.views is not None
    first, second = made.views.unbind(1)
    return first, second


def unit(projected: Tensor) -> Tensor:
    """As version 3's heads end: a BatchNorm that learns nothing, and a unit vector."""
    return F.normalize(F.batch_norm(projected, None, None, training=True), dim=1)


@torch.no_grad()
def keys_of(objective: MoCo, pixels: Tensor) -> Tensor:
    return unit(objective.slow.copy(pixels))


@pytest.mark.parametrize("settings", [{"queue": 16}, {"queue": 0}, {"momentum_steps": 5}])
def test_the_slow_encoder_is_the_average_of_the_quick_one(settings: Any) -> None:
    objective = built(momentum=0.7, **settings)
    average = [one.detach().clone() for one in objective.encoder.parameters()]

    for number in range(4):
        step(objective, batch(seed=number))
        momentum = momentum_at(number, 5, 0.7) if "momentum_steps" in settings else 0.7
        for kept, quick in zip(average, objective.encoder.parameters(), strict=True):
            kept.copy_(momentum * kept + (1 - momentum) * quick.detach())

    for kept, slow, quick in zip(
        average, objective.slow.parameters(), objective.encoder.parameters(), strict=True
    ):
        assert_close(slow, kept)
        assert slow.grad is None
        if quick.grad is not None:
            assert not torch.equal(slow, quick)


def test_after_each_step_the_queue_has_the_batchs_keys_as_they_were_asked_for() -> None:
    objective, came = built(queue=20, momentum=0.5), deque[Any](maxlen=20)
    assert objective.queue is not None
    came.extend(objective.queue.vectors.unbind())

    for number in range(3):
        made = batch(8, seed=number)
        came.extend(keys_of(objective, views(made)[1]).unbind())  # before the slow one follows
        step(objective, made)

    kept = objective.queue.vectors.roll(-int(objective.queue.head), dims=0)
    assert_close(kept, torch.stack(list(came)))


def test_a_query_is_asked_against_its_own_key_and_the_queue_of_steps_before() -> None:
    objective, made = built(queue=16, temperature=0.3), batch(8, seed=2)
    assert objective.queue is not None
    step(objective, batch(8, seed=1))
    before = objective.queue.vectors.clone()

    outcome = objective(made)

    queries = unit(objective.encoder(views(made)[0]))
    loss, hit = queue_info_nce(queries, keys_of(objective, views(made)[1]), before, 0.3)
    assert_close(outcome.loss, loss)
    assert_close(outcome.metrics["accuracy"], hit.float().mean())
    assert outcome.metrics["age"] == 1.5  # eight of the step before, eight random ones
    assert torch.equal(objective.queue.vectors, before)


@pytest.mark.parametrize("settings", [{"queue": 16}, {"queue": 0}])
def test_the_trunks_vectors_are_kept_apart_beside_the_contrast(settings: Any) -> None:
    kept, plain = built(koleo_weight=0.3, **settings), built(**settings)
    made = batch(8, seed=2)

    outcome, without = kept(made), plain(made)

    asking = views(made)[: 1 if settings["queue"] else 2]
    apart = sum(koleo(kept.encoder.vision(one).pooled) for one in asking) / len(asking)
    assert_close(outcome.loss, without.loss + 0.3 * apart)
    assert_close(outcome.metrics["koleo"], apart)
    assert "koleo" not in without.metrics
    assert outcome.metrics["accuracy"] == without.metrics["accuracy"]


def test_kept_apart_they_point_less_and_less_one_way() -> None:
    kept, plain = built(queue=16, koleo_weight=1.0), built(queue=16)

    spreads = []
    for objective in (kept, plain):
        for number in range(30):
            step(objective, batch(8, seed=number))
        with torch.no_grad():
            seen = F.normalize(objective.encoder.vision(views(batch(8))[0]).pooled, dim=1)
        spreads.append((seen - seen.mean(dim=0)).square().sum(dim=1).mean())

    assert spreads[0] > 1.5 * spreads[1]


def test_eight_samples_come_as_far_apart_as_eight_can() -> None:
    objective = built(queue=8, momentum=0.5, temperature=1.0)
    adam = torch.optim.Adam((one for one in objective.parameters() if one.requires_grad), lr=3e-3)

    for _ in range(200):
        adam.zero_grad()
        loss = objective(batch(8)).loss
        loss.backward()
        adam.step()
        objective.after_step()

    # Its own key, the same of the step before, and seven at the angles of a simplex.
    least = math.log(2 * math.e + 7 * math.exp(-1 / 7)) - 1
    assert least - 1e-6 < loss.item() < 1.01 * least


def test_version_three_asks_both_ways_among_the_batchs_keys_behind_a_predictor() -> None:
    objective, made = built(queue=0, temperature=0.3), batch(8, seed=6)
    first, second = views(made)
    second += 2 * batch(8, seed=26).earlier  # which makes the two ways differ
    assert objective.predictor is not None
    assert objective.queue is None
    step(objective, batch(8, seed=1))

    outcome = objective(made)

    parts, hits = [], []
    for asked, told in ((first, second), (second, first)):
        queries = unit(objective.predictor(objective.encoder(asked)))
        loss, hit = batch_info_nce(queries, keys_of(objective, told), 0.3)
        parts.append(loss)
        hits.append(hit)
    assert_close(outcome.loss, parts[0] + parts[1])
    assert_close(outcome.metrics["accuracy"], torch.cat(hits).float().mean())
    assert hits[0].float().mean() != hits[1].float().mean()


@pytest.mark.parametrize(("queue", "layers", "asked"), [(16, 2, 0), (0, 3, 2)])
def test_version_three_has_a_deeper_projector_and_a_predictor(
    queue: int, layers: int, asked: int
) -> None:
    objective = built(queue=queue)

    parts: list[Any] = [objective.encoder.projector, objective.slow.copy.projector]
    parts.append(objective.predictor or [])
    assert [sum(isinstance(one, Linear) for one in part) for part in parts] == [
        layers, layers, asked,
    ]  # fmt: skip


@pytest.mark.parametrize("queue", [0, 16])
def test_only_its_share_of_the_batch_is_used(queue: int) -> None:
    made, other = batch(8), batch(8)
    for one in views(other):
        one[4:] += 1.0

    losses = [built(queue=queue, fraction=0.5)(one).loss for one in (made, other)]

    assert torch.equal(losses[0], losses[1])


def test_keys_are_unit_vectors_under_autocast_too() -> None:
    objective = built(queue=8, batch_norm=False)
    assert objective.queue is not None

    with torch.autocast("cpu", torch.bfloat16):
        objective(batch(8))
    objective.after_step()

    assert_close(objective.queue.vectors.norm(dim=1), torch.ones(8), rtol=0, atol=1e-6)


def test_without_batch_norm_a_key_is_what_its_own_picture_gives() -> None:
    objective, made = built(queue=8, batch_norm=False), batch(8)
    assert objective.queue is not None

    step(objective, made)

    slow = built(queue=8).slow.copy  # as it was before the step
    with torch.no_grad():
        assert_close(objective.queue.vectors, F.normalize(slow(views(made)[1]), dim=1))


@pytest.mark.parametrize("queue", [0, 16])
@pytest.mark.parametrize("frozen", [True, False])
def test_patches_are_projected_as_at_random_if_the_recipe_says_so(queue: int, frozen: bool) -> None:
    objective = built(queue=queue, frozen_patches=frozen)
    patches = objective.model.vision.embed
    before = [one.detach().clone() for one in patches.parameters()]

    for seed in range(2):
        step(objective, batch(8, seed=seed))

    for one, was in zip(patches.parameters(), before, strict=True):
        assert torch.equal(one, was) == frozen
    assert objective.model.get_parameter("vision.positions").grad is not None


def test_a_stem_is_no_projection_of_patches() -> None:
    stem = StemConfig(widths=(8, 8, 8))
    trunk = model(vision=vision(stem=stem, patch_size=8))

    with pytest.raises(
        ValueError, match=r"mo_co\.frozen_patches: found true; allowed: without a s"
    ):
        MoCo(MoCoConfig(frozen_patches=True), trunk)


@pytest.mark.parametrize("queue", [0, 16])
def test_gradients_reach_the_trunk_and_never_the_slow_copy(queue: int) -> None:
    objective = built(queue=queue)

    objective(batch()).loss.backward()

    assert all(one.grad is None for one in objective.slow.parameters())
    for one in (*objective.model.vision.parameters(), *objective.encoder.projector.parameters()):
        assert one.grad is not None
