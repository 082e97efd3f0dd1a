"""Latent actions: the unit is copying, labels shape nothing, and unpaired frames do not count."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.bundles import stack
from tests.training.tiny import batch, latent_action, model
from torch import Tensor

from tectum_core.architecture import (
    ConvolutionDynamicsConfig,
    FsqBottleneck,
    TransformerDynamicsConfig,
    VqBottleneck,
)
from tectum_core.model import PerceptionModel
from tectum_train.objectives.batch import given
from tectum_train.objectives.latent_action import LatentAction, LatentActionObjectiveConfig

DYNAMICS = {
    "pixels": TransformerDynamicsConfig(transformer=stack()),
    "trunk": TransformerDynamicsConfig(transformer=stack(), source="trunk"),
    "convolution": ConvolutionDynamicsConfig(widths=(8, 16)),
}
VQ = VqBottleneck(codes=2, codebook_size=8, code_width=5)
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"dynamics": dynamics} for name, dynamics in DYNAMICS.items()},
    "latents from pixels": {"target": "latents", "dynamics": DYNAMICS["pixels"]},
    "latents from the trunk": {"target": "latents", "dynamics": DYNAMICS["trunk"]},
    "change": {"says": "change"},
    "vq": {"bottleneck": VQ},
    "fsq": {"bottleneck": FsqBottleneck(codes=2)},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
every_dynamics = pytest.mark.parametrize("dynamics", DYNAMICS.values(), ids=DYNAMICS.keys())


def network(seed: int = 0, **changes: Any) -> PerceptionModel:
    """A model whose forward dynamics has left its beginning behind."""
    made = model(seed, latent_action=latent_action(**changes))
    assert made.latent_action is not None
    paint = made.latent_action.dynamics.paint
    with torch.no_grad():
        paint.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(seed))
    return made


def objective(network: PerceptionModel, **changes: Any) -> LatentAction:
    return LatentAction(LatentActionObjectiveConfig.model_validate(changes), network)


def gradients(network: PerceptionModel) -> dict[str, Tensor]:
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


# ---------------------------------------------------------------- the unit


@every_variant
def test_at_the_beginning_the_error_is_that_of_copying(variant: Any) -> None:
    learnt = objective(model(latent_action=latent_action(**variant)))

    outcome = learnt(batch())

    assert float(outcome.metrics["relative"]) == pytest.approx(1.0)
    if variant.get("bottleneck") != VQ:  # whose codes have a loss of their own
        assert outcome.loss.item() == pytest.approx(1.0)


def test_the_loss_is_the_error_over_copyings_in_float64() -> None:
    made, learner = batch(), network()
    module = learner.latent_action
    assert module is not None

    outcome = objective(learner)(made)

    earlier, later = module.frames(made.earlier), module.frames(given(made.later, "later frames"))
    said = module.predict(earlier, module.infer(earlier, later).vectors).detach()
    error = (said.double() - later.double()).square().mean()
    copying = (earlier.double() - later.double()).square().mean()
    assert outcome.loss.item() == pytest.approx(float(error / copying), rel=1e-5)
    assert float(outcome.metrics["relative"]) == pytest.approx(float(error / copying), rel=1e-5)


def test_the_unit_follows_the_data_slowly() -> None:
    learnt = objective(network())
    still = batch().earlier
    learnt(batch())
    first = float(learnt.copy_error)

    learnt(batch(later=still + 2 * (given(batch().later, "later frames") - still)))

    assert float(learnt.copy_error) == pytest.approx(first * (0.99 + 0.01 * 4), rel=1e-4)


def test_the_unit_is_saved() -> None:
    learnt, fresh = objective(network()), objective(network(seed=1))
    learnt(batch())

    fresh.load_state_dict(learnt.state_dict())

    assert float(fresh.copy_error) == float(learnt.copy_error) > 0
    assert not learnt.copy_error.requires_grad


def test_frames_that_do_not_change_cost_little_and_stay_finite() -> None:
    learnt = objective(model())

    outcome = learnt(batch(later=batch().earlier))
    outcome.loss.backward()

    assert torch.isfinite(outcome.loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(learnt.model).values())


# ---------------------------------------------------------------- what counts


@every_variant
def test_unpaired_samples_do_not_count(variant: Any) -> None:
    paired = torch.arange(8) % 2 == 0
    noise = torch.randn(
        given(batch().later, "later frames").shape, generator=torch.Generator().manual_seed(1)
    )
    spoilt = torch.where(paired[:, None, None, None], given(batch().later, "later frames"), noise)
    learnt = [objective(network(**variant), decode_weight=1.0) for _ in range(2)]

    for step in range(3):  # codes are drawn anew in each, and learnt from in the next
        found = []
        for one, later in zip(learnt, (batch().later, spoilt), strict=True):
            torch.manual_seed(step)
            found.append(one(batch(paired=paired, later=later)))
            one.zero_grad()
            found[-1].loss.backward()
        plain, other = found
        assert other.loss.item() == pytest.approx(plain.loss.item(), rel=1e-6)
        assert all(
            float(other.metrics[name]) == pytest.approx(float(value), rel=1e-6)
            for name, value in plain.metrics.items()
        )

    ours, theirs = (gradients(one.model) for one in learnt)
    for name, gradient in ours.items():
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-4, atol=1e-6)
    for known, same in zip(*(one.buffers() for one in learnt), strict=True):
        torch.testing.assert_close(known, same, rtol=1e-5, atol=1e-6)


@every_variant
def test_a_batch_without_pairs_costs_and_teaches_nothing(variant: Any) -> None:
    learnt = objective(network(**variant), decode_weight=1.0)
    learnt(batch())
    before = [one.clone() for one in learnt.buffers()]

    outcome = learnt(batch(paired=torch.zeros(8, dtype=torch.bool)))
    outcome.loss.backward()

    assert outcome.loss.item() == 0
    assert outcome.metrics == {}
    assert not any(gradient.any() for gradient in gradients(learnt.model).values())
    assert all(torch.equal(a, b) for a, b in zip(before, learnt.buffers(), strict=True))


def test_only_its_share_of_the_batch_is_used() -> None:
    learner, half = network(), {"fraction": 0.5, "decode_weight": 1.0}
    other = batch()
    for name in ("earlier", "later", "actions"):
        tensor = getattr(other, name).clone()
        tensor[4:] = 0
        setattr(other, name, tensor)

    assert objective(learner, **half)(other).loss.item() == pytest.approx(
        objective(learner, **half)(batch()).loss.item()
    )


# ---------------------------------------------------------------- labels


@every_variant
def test_action_labels_shape_nothing_but_the_decoder(variant: Any) -> None:
    without, with_ = network(**variant), network(**variant)

    objective(without)(batch()).loss.backward()
    objective(with_, decode_weight=5.0)(batch()).loss.backward()

    plain, labelled = gradients(without), gradients(with_)
    decoder = {name for name in labelled if ".action_decoder." in name}
    assert decoder
    assert labelled.keys() - decoder == plain.keys()
    assert all(torch.equal(plain[name], labelled[name]) for name in plain)
    assert all(labelled[name].abs().sum() > 0 for name in decoder)


@every_dynamics
def test_the_trunk_is_shaped_only_if_it_is_read(dynamics: Any) -> None:
    learner = network(dynamics=dynamics)

    objective(learner, decode_weight=1.0)(batch()).loss.backward()

    reads = learner.config.latent_action is not None and learner.config.latent_action.reads_trunk
    assert any(name.startswith("vision.") for name in gradients(learner)) == reads


def test_no_action_is_looked_at_unless_decoding_is_learnt() -> None:
    learner = network()
    other = torch.full((8, 8, 4), float("nan"))

    outcome = objective(learner)(batch(actions=other))

    assert torch.isfinite(outcome.loss)
    assert "decoding" not in outcome.metrics


def test_the_first_steps_actions_are_decoded_in_standard_deviations() -> None:
    made, learner = batch(), network()
    module = learner.latent_action
    assert module is not None

    outcome = objective(learner, decode_weight=0.5)(made)

    earlier, later = module.frames(made.earlier), module.frames(given(made.later, "later frames"))
    vectors = module.infer(earlier, later).vectors
    said = module.decode_actions(vectors, learner.vision(made.earlier).pooled).detach()
    expected = float((said.double() - made.actions[:, :2].double()).square().mean())
    alone = objective(learner)(made).loss.item()
    assert float(outcome.metrics["decoding"]) == pytest.approx(expected, rel=1e-5)
    assert outcome.loss.item() == pytest.approx(alone + 0.5 * expected, rel=1e-5)


# ---------------------------------------------------------------- the bottleneck


@pytest.mark.parametrize(
    "bottleneck",
    [VqBottleneck(codes=2, codebook_size=4, code_width=5), FsqBottleneck(codes=2)],
    ids=["vq", "fsq"],
)
def test_used_codes_are_counted(bottleneck: Any) -> None:
    learner = network(bottleneck=bottleneck)
    learnt = objective(learner.eval()).eval()
    made = batch()

    metrics = learnt(made).metrics

    module = learner.latent_action
    assert module is not None
    frames = module.frames(made.earlier), module.frames(given(made.later, "later frames"))
    codes = module.infer(*frames).codes
    assert codes is not None
    shares = codes.unique(return_counts=True)[1] / codes.numel()
    assert float(metrics["codes_used"]) == len(shares)
    entropy = float(-(shares * shares.log()).sum())
    assert float(metrics["perplexity"]) == pytest.approx(math.exp(entropy), rel=1e-5)


def test_the_bottlenecks_own_loss_is_added() -> None:
    vq = VqBottleneck(codes=2, codebook_size=4, code_width=5)
    torch.manual_seed(0)
    learnt = objective(model(latent_action=latent_action(bottleneck=vq)))

    outcome = learnt(batch())

    assert outcome.loss.item() > float(outcome.metrics["relative"])
    assert float(outcome.metrics["relative"]) == pytest.approx(1.0)


def test_the_later_frame_reaches_the_prediction_only_through_the_latent() -> None:
    learner = network()
    module = learner.latent_action
    assert module is not None
    earlier = module.frames(batch().earlier)
    later = module.frames(given(batch().later, "later frames")).requires_grad_()

    vectors = module.infer(earlier, later).vectors
    module.predict(earlier, vectors.detach().requires_grad_()).sum().backward()

    assert later.grad is None
    assert vectors.shape == (8, 1, 6)


# ---------------------------------------------------------------- what it needs


def test_without_the_module_there_is_no_such_objective() -> None:
    with pytest.raises(ValueError, match=r"model\.latent_action: found null; allowed: what la"):
        objective(model(latent_action=None))


def test_decoding_needs_a_decoder() -> None:
    learner = model(latent_action=latent_action(decoded_steps=0))

    with pytest.raises(
        ValueError, match=r"decode_weight: found 0\.1; allowed: 0, or where .*\.decoded_steps"
    ):
        objective(learner, decode_weight=0.1)


def test_a_step_without_pairs_leaves_the_unit_as_it_was() -> None:
    learnt = objective(network())
    none = batch(paired=torch.zeros(8, dtype=torch.bool))

    learnt(none)
    first = float(learnt.copy_error)
    learnt(batch())
    known = float(learnt.copy_error)
    learnt(none)

    assert first == 0
    assert float(learnt.copy_error) == known > 0


def test_no_gradient_draws_a_learning_trunk_onto_the_frame_that_follows() -> None:
    """What a change of nothing is added to is as it is."""
    learner = network(target="latents", dynamics=DYNAMICS["trunk"])
    module = learner.latent_action
    assert module is not None
    tokens = learner.vision(batch().earlier).tokens.detach().requires_grad_()
    vectors = torch.zeros(8, 1, 6)

    predicted = module.predict(module.frames(batch().earlier), vectors, tokens)
    change = module.dynamics.change(module.frames(batch().earlier), vectors, (tokens,))
    (whole,) = torch.autograd.grad(predicted.square().sum(), tokens, retain_graph=True)
    (alone,) = torch.autograd.grad(
        (change + module.target(tokens, tokens).detach()).square().sum(), tokens
    )

    torch.testing.assert_close(whole, alone)
