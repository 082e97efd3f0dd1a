"""Latent actions of latents, in other colours, and in codes: what shapes what, over ranks too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.training.objectives.test_objective_latent_action import (
    DYNAMICS,
    every_variant,
    gradients,
    network,
    objective,
)
from tests.training.ranks import Ranks
from tests.training.tiny import batch
from torch.nn import functional as F

from tectum_core.architecture import VqBottleneck
from tectum_core.model import PerceptionModel
from tectum_core.model.bottleneck import bottleneck_for
from tectum_train.distributed import own_samples
from tectum_train.objectives.batch import Reads, given
from tectum_train.objectives.latent_action import LatentActionObjectiveConfig

# ---------------------------------------------------------------- latents


def latents(source: str = "trunk", **changes: Any) -> PerceptionModel:
    return network(target="latents", dynamics=DYNAMICS[source], **changes)


@pytest.mark.parametrize("source", ["pixels", "trunk"])
def test_the_loss_of_latents_is_the_error_of_tokens_over_copyings_in_float64(source: str) -> None:
    made, learner = batch(), latents(source)
    module = learner.latent_action
    assert module is not None

    outcome = objective(learner)(made)

    later = given(made.later, "later frames")
    one, other = (learner.vision(frames).tokens.detach() for frames in (made.earlier, later))
    frames = module.frames(made.earlier), module.frames(later)
    z = module.infer(*frames, (one, other)).vectors
    said = module.predict(frames[0], z, one).detach().double()
    before, after = (F.layer_norm(tokens.double(), (32,)) for tokens in (one, other))
    share = float((said - after).square().mean() / (before - after).square().mean())
    assert outcome.loss.item() == pytest.approx(share, rel=1e-4)
    assert float(outcome.metrics["relative"]) == pytest.approx(share, rel=1e-4)
    spread = after.flatten(1).std(dim=0, correction=0).square().mean().sqrt()
    assert float(outcome.metrics["spread"]) == pytest.approx(float(spread), rel=1e-4)


@pytest.mark.parametrize(
    ("encoder", "source"), [("detached", "pixels"), ("detached", "trunk"), ("trained", "trunk")]
)
def test_predicting_latents_shapes_the_trunk_only_if_asked(encoder: str, source: str) -> None:
    learner = latents(source)

    objective(learner, encoder=encoder)(batch()).loss.backward()

    shaped = any(name.startswith("vision.") for name in gradients(learner))
    assert shaped == (encoder == "trained")


def test_dynamics_that_read_pixels_teach_no_trunk() -> None:
    with pytest.raises(ValueError, match=r"found 'trained'; .*dynamics\.source 'trunk'"):
        objective(latents("pixels"), encoder="trained")


def test_no_gradient_reaches_what_is_predicted_and_the_slow_trunk_follows_by_steps() -> None:
    learnt = objective(latents(), encoder="trained", momentum=0.75)
    assert learnt.slow is not None
    slow = learnt.slow.copy
    learnt(batch()).loss.backward()

    assert all(one.grad is None and not one.requires_grad for one in slow.parameters())
    before = [one.clone() for one in slow.parameters()]
    with torch.no_grad():
        for one in learnt.model.vision.parameters():
            one.add_(1.0)
    learnt.after_step()
    for one, old in zip(slow.parameters(), before, strict=True):
        assert torch.allclose(one, old + 0.25, atol=1e-6)


def test_what_nothing_changes_is_copied_however_far_the_trunk_ran_ahead_of_its_copy() -> None:
    learner = latents()
    learner.latent_action.begin_as_copy()  # type: ignore[union-attr]
    learnt = objective(learner, encoder="trained")
    with torch.no_grad():
        for one in learner.vision.parameters():
            one.add_(torch.randn_like(one))

    assert float(learnt(batch()).metrics["relative"]) == pytest.approx(1.0, abs=1e-4)


def test_a_trunk_that_says_the_same_of_all_frames_is_seen_in_the_spread() -> None:
    learner = latents()
    alive = float(objective(learner)(batch()).metrics["spread"])

    with torch.no_grad():
        for name, one in learner.vision.named_parameters():
            if "embed" in name and "position" not in name:
                one.zero_()
    outcome = objective(learner)(batch())

    assert alive > 0.1
    assert float(outcome.metrics["spread"]) < 0.01 * alive
    assert torch.isfinite(outcome.loss)


def test_latents_leave_other_objectives_their_pass_of_the_trunk() -> None:
    made, learner = batch(), latents()
    objective(learner)(made)

    assert made.image(learner).tokens.requires_grad


def test_only_latents_shape_a_trunk_slowly() -> None:
    with pytest.raises(ValueError, match=r"found 'trained'; .*\.latent_action\.target 'latents'"):
        objective(network(), encoder="trained")


# ---------------------------------------------------------------- appearance


@every_variant
def test_in_other_colours_only_what_is_said_changes(variant: Any) -> None:
    made = batch()
    plain = torch.stack([made.earlier, given(made.later, "later frames")], dim=1)

    # A network for each: a codebook learns from what it is asked.
    same = objective(network(**variant))(made)
    apart = objective(network(**variant), appearance="apart")(made)
    alike = objective(network(**variant), appearance="apart")(batch(recoloured=plain))

    assert alike.loss.item() == pytest.approx(same.loss.item(), rel=1e-5)
    assert apart.loss.item() != pytest.approx(same.loss.item(), rel=1e-5)


@pytest.mark.parametrize("source", ["pixels", "trunk"])
def test_both_frames_of_a_pair_in_other_colours_are_read(source: str) -> None:
    losses = []
    for changed in ((), (0,), (1,)):
        apart = given(batch().recoloured, "pairs in other colours").clone()
        for place in changed:
            apart[:, place] = apart[:, place].flip(-1)
        learnt = objective(network(dynamics=DYNAMICS[source]), appearance="apart")
        losses.append(learnt(batch(recoloured=apart)).loss.item())

    plain, first, second = losses
    assert first != pytest.approx(plain, rel=1e-5)
    assert second != pytest.approx(plain, rel=1e-5)


def test_pairs_in_other_colours_are_asked_for_only_if_read() -> None:
    reads = [
        LatentActionObjectiveConfig.model_validate({"appearance": how}).reads
        for how in ("same", "apart")
    ]

    assert reads == [Reads.LATER, Reads.LATER | Reads.RECOLOURED]
    with pytest.raises(ValueError, match="without pairs in other colours"):
        objective(network(), appearance="apart")(batch(recoloured=None))


# ---------------------------------------------------------------- codes over ranks


def codebook(said_shared: Any, counted_shared: Any) -> dict[str, Any]:
    """A codebook's state after these steps, of which a rank has its samples."""
    torch.manual_seed(0)
    config = VqBottleneck(codes=2, codebook_size=6, code_width=5)
    module = bottleneck_for(config, 4).train()
    found, own = [], own_samples()
    for number, step in enumerate(zip(said_shared, counted_shared, strict=True)):
        torch.manual_seed(number)  # as a run does before each step
        said, counted = (torch.from_numpy(part[own].copy()) for part in step)
        found.append(module(said, counted).codes.numpy())
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    return {**state, "codes": np.stack(found)}


def test_codes_are_drawn_anew_alike_on_all_ranks_and_as_on_one(ranks: Ranks) -> None:
    draw = np.random.default_rng(0)
    # Few places at first, so that codes die, and others later; of ranks' samples count more or
    # fewer, and sometimes none.
    said = draw.normal(size=(40, 8, 2, 4)).astype(np.float32)
    said[:20] = said[:20].round() * 3
    counted = draw.random((40, 8)) < draw.random((40, 1))

    both = ranks.run(codebook, said_shared=said, counted_shared=counted)

    per_rank = counted.reshape(40, 4, 2).sum(axis=1)
    assert (per_rank == 0).any()
    assert (per_rank[:, 0] != per_rank[:, 1]).any()
    alone = codebook(said, counted)
    for one in both:
        for name in alone.keys() - {"codes"}:
            assert np.array_equal(one[name], alone[name]), name
    codes = np.stack([one["codes"] for one in both], axis=2).reshape(alone["codes"].shape)
    assert np.array_equal(codes, alone["codes"])
