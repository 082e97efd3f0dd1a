"""World models: the unit is repeating, ends of episodes do not count, and who shapes the trunk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.training.tiny import batch, latent_action, model, world_model
from torch import Tensor

from tectum_core.architecture import TransformerDynamicsConfig, VqBottleneck
from tectum_core.model import PerceptionModel
from tectum_train.objectives.batch import Batch, Clip, given
from tectum_train.objectives.world_model import WorldModelObjective, WorldModelObjectiveConfig

LATENT: dict[str, Any] = {"actions": "latent", "action_steps": None}
NONE: dict[str, Any] = {"actions": "none", "action_steps": None}


def network(seed: int = 0, latent: Any = None, **changes: Any) -> PerceptionModel:
    """A model whose world model has left its beginning behind."""
    made = model(seed, world_model=world_model(**changes), latent_action=latent or latent_action())
    assert made.world_model is not None
    with torch.no_grad():
        made.world_model.change.weight.normal_(std=0.1)
    return made


def objective(network: PerceptionModel, **changes: Any) -> WorldModelObjective:
    return WorldModelObjective(WorldModelObjectiveConfig.model_validate(changes), network)


def clip_of(made: Batch, **changes: Any) -> Batch:
    """The batch with its clip changed."""
    return replace(made, clip=replace(given(made.clip, "clips"), **changes))


def frames(made: Batch) -> Clip:
    return given(made.clip, "clips")


def gradients(network: PerceptionModel) -> set[str]:
    """Parts of the model that a gradient reached."""
    return {
        name.partition(".")[0]
        for name, one in network.named_parameters()
        if one.grad is not None and bool(one.grad.any())
    }


def latents(network: PerceptionModel, made: Batch) -> Tensor:
    """float64[b, T, N, D] of the clip."""
    world = network.world_model
    assert world is not None
    seen = frames(made).frames
    found = world.seen(network.vision(seen.flatten(0, 1))).detach().double()
    return found.view(*seen.shape[:2], *found.shape[1:])


# ---------------------------------------------------------------- the unit


def test_at_the_beginning_all_is_as_repeating_the_last_frame() -> None:
    learnt = objective(model(world_model=world_model()), rollout=1)
    learnt(batch())
    learnt.after_step()

    outcome = learnt(batch())

    # Three frames repeat their neighbour, of which the world model is asked about two.
    assert outcome.loss.item() == pytest.approx(1.0, rel=0.2)
    assert float(outcome.metrics["relative_1"]) == pytest.approx(1.0, abs=1e-3)
    assert float(outcome.metrics["shuffled"]) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("kind", [{}, {"latents": "pooled"}, NONE], ids=str)
def test_the_loss_is_forced_and_rolled_errors_over_repeatings_in_float64(kind: Any) -> None:
    made, learner = batch(), network(**kind)
    world = learner.world_model
    assert world is not None
    wanted = latents(learner, made)
    done = frames(made).actions.flatten(2) if world.action_width else None

    learnt = objective(learner)
    outcome = learnt(made)
    learnt.after_step()
    later = learnt(made)

    def ahead(seen: Tensor, start: int) -> Tensor:
        acted = None if done is None else done[:, start : start + 2]
        predicted: Tensor = world(seen.float(), acted)
        return predicted.detach().double()

    forced = ahead(wanted[:, :2], 0)
    second = ahead(torch.stack([wanted[:, 1], forced[:, 1]], dim=1), 1)[:, 1]
    error = (forced - wanted[:, 1:3]).square().mean() + (second - wanted[:, 3]).square().mean()
    repeating = (wanted[:, :-1] - wanted[:, 1:]).square().mean()
    relative = (second - wanted[:, 3]).square().mean() / (
        (wanted[:, 1] - wanted[:, 3]).square().mean()
    )
    assert outcome.loss.item() == pytest.approx(float(error), rel=1e-4)
    assert later.loss.item() == pytest.approx(float(error / repeating), rel=1e-4)
    assert float(outcome.metrics["relative_2"]) == pytest.approx(float(relative), rel=1e-4)


def test_the_unit_follows_the_data_slowly() -> None:
    learnt = objective(network())
    learnt(batch())
    learnt.after_step()
    before = learnt.copy_error.clone()
    still = frames(batch()).frames[:, :1].expand(-1, 4, -1, -1, -1)

    learnt(clip_of(batch(), frames=still))
    learnt.after_step()

    assert learnt.copy_error.item() == pytest.approx(0.99 * before.item(), rel=1e-4)


# ---------------------------------------------------------------- what counts


@pytest.mark.parametrize("rollout", [1, 2])
def test_frames_after_the_end_of_an_episode_do_not_count(rollout: int) -> None:
    made, learner = batch(), network()
    inside = torch.ones(8, 4, dtype=torch.bool)
    inside[:4, 2:] = False
    junk = frames(made).frames.clone()
    junk[:4, 2:] = torch.randn(junk[:4, 2:].shape)

    one, other = (
        objective(learner, rollout=rollout)(clip_of(made, frames=seen, inside=inside))
        for seen in (frames(made).frames, junk)
    )

    assert one.loss.item() == pytest.approx(other.loss.item(), rel=1e-6)
    for name in ("relative_1", "spread"):
        assert float(one.metrics[name]) == pytest.approx(float(other.metrics[name]), rel=1e-6)


def test_where_no_frame_counts_there_is_no_loss() -> None:
    learner = network()
    nothing = torch.zeros(8, 4, dtype=torch.bool)

    outcome = objective(learner)(clip_of(batch(), inside=nothing))
    outcome.loss.backward()

    assert outcome.loss.item() == 0
    assert outcome.metrics == {}
    assert gradients(learner) == set()


def test_a_fraction_of_the_batch_may_be_used() -> None:
    learner = network()

    half = objective(learner, fraction=0.5)(batch())

    assert half.loss.item() == pytest.approx(objective(learner)(batch().part(0, 4)).loss.item())


def test_pieces_of_a_batch_are_together_the_whole() -> None:
    inside = torch.ones(8, 4, dtype=torch.bool)
    inside[:3, 2:] = False
    made, learner = clip_of(batch(), inside=inside), network()
    parts = [made.part(start, 8, 2) for start in range(2)]

    whole, pieces = (objective(learner, decode_weight=0.3) for _ in range(2))
    one = whole(made)
    two = [pieces(part) for part in parts]
    counts = [float(pieces.counted(part)) for part in parts]

    total = sum(p.loss.item() * count for p, count in zip(two, counts, strict=True))
    assert counts[0] != counts[1]
    assert one.loss.item() == pytest.approx(total / sum(counts), rel=1e-5)
    for learnt in (whole, pieces):
        learnt.after_step()
    assert whole.copy_error.item() == pytest.approx(pieces.copy_error.item(), rel=1e-5)
    assert whole.steps == pieces.steps == 1


def test_a_clip_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="clips of 4 frames; 5 are needed"):
        objective(network(), rollout=3)(batch())


# ---------------------------------------------------------------- actions


def test_the_actions_that_are_read_are_those_between_the_frames() -> None:
    made, learner = batch(), network()
    last = frames(made).actions.clone()
    last[:, -1] += 1
    first = frames(made).actions.clone()
    first[:, 0] += 1

    found, same, other = (
        objective(learner)(clip_of(made, actions=done)).loss.item()
        for done in (frames(made).actions, last, first)
    )

    assert found == same
    assert found != other


def test_other_samples_actions_tell_less_once_actions_matter() -> None:
    learner, made = network(), batch()
    learnt = objective(learner)
    adam = torch.optim.Adam(learner.parameters(), lr=3e-3)
    # What is done says where each picture goes.
    steps = torch.randint(-3, 4, (8, 3), generator=torch.Generator().manual_seed(0))
    seen = [made.earlier]
    for moved in steps.unbind(1):
        now = [p.roll(int(far), 2) for p, far in zip(seen[-1], moved, strict=True)]
        seen.append(torch.stack(now))
    done = torch.zeros(8, 4, 2, 4)
    done[:, :3, :, 0] = steps[:, :, None].float()
    moving = clip_of(made, frames=torch.stack(seen, dim=1), actions=done)
    for _ in range(200):
        outcome = learnt(moving)
        adam.zero_grad()
        outcome.loss.backward()
        adam.step()

    assert float(outcome.metrics["relative_1"]) < 0.8
    assert float(outcome.metrics["shuffled"]) > 1.2


def test_without_actions_nothing_is_shuffled() -> None:
    assert "shuffled" not in objective(network(**NONE))(batch()).metrics


@pytest.mark.parametrize("source", ["pixels", "trunk"])
def test_latent_actions_are_read_off_the_clip_and_not_shaped(source: Any) -> None:
    dynamics = TransformerDynamicsConfig(
        transformer=world_model()["transformer"],
        source=source,
        patch_size=4,
    )
    learner = network(latent=latent_action(dynamics=dynamics), **LATENT)

    outcome = objective(learner)(batch())
    outcome.loss.backward()

    assert "shuffled" in outcome.metrics
    assert gradients(learner) == {"world_model"}


def test_a_codebook_is_read_and_does_not_learn() -> None:
    learner = network(latent=latent_action(bottleneck=VqBottleneck()), **LATENT)
    assert learner.latent_action is not None
    before = {key: value.clone() for key, value in learner.latent_action.state_dict().items()}

    objective(learner.train())(batch())

    assert learner.latent_action.training
    assert all(
        torch.equal(value, before[key]) for key, value in learner.latent_action.state_dict().items()
    )


# ---------------------------------------------------------------- the trunk


def test_a_detached_trunk_is_not_shaped() -> None:
    learner = network()

    objective(learner)(batch()).loss.backward()

    assert gradients(learner) == {"world_model"}


def test_a_trained_trunk_is_shaped_towards_a_slow_copy() -> None:
    learner = network()
    learnt = objective(learner, encoder="trained", momentum=0.9)
    assert learnt.slow is not None

    learnt(batch()).loss.backward()

    assert gradients(learner) == {"vision", "world_model"}
    assert all(one.grad is None for one in learnt.slow.parameters())
    before = [one.clone() for one in learnt.slow.parameters()]
    with torch.no_grad():
        for one in learner.vision.parameters():
            one.add_(1)
    learnt.after_step()
    for old, new in zip(before, learnt.slow.parameters(), strict=True):
        assert torch.allclose(new, old + 0.1, atol=1e-5)


def test_a_trunk_does_not_learn_that_nothing_moves() -> None:
    learner = model(world_model=world_model(), latent_action=latent_action())
    assert learner.world_model is not None
    learner.world_model.begin_as_copy()  # it says nothing of what the trunk could tell it

    objective(learner, encoder="trained")(batch()).loss.backward()

    assert gradients(learner) == {"world_model"}


def test_what_nothing_changes_is_repeated_however_far_the_trunk_ran_ahead_of_its_copy() -> None:
    learner = model(world_model=world_model())
    learnt = objective(learner, encoder="trained")
    with torch.no_grad():
        for one in learner.vision.parameters():
            one.add_(torch.randn_like(one))

    outcome = learnt(batch())

    assert float(outcome.metrics["relative_1"]) == pytest.approx(1.0, abs=1e-3)
    assert float(outcome.metrics["shuffled"]) == pytest.approx(1.0, abs=1e-3)


def test_targets_are_the_slow_copys() -> None:
    learner = network()
    learnt = objective(learner, encoder="trained")
    assert learnt.slow is not None
    before = learnt(batch()).metrics["spread"]

    with torch.no_grad():  # a collapsed copy gives the same for every frame
        for name, one in learnt.slow.named_parameters():
            if "final_norm.weight" in name:
                one.zero_()

    assert float(before) > 0.1
    assert float(learnt(batch()).metrics["spread"]) == 0


def test_a_checkpoint_holds_the_slow_copy_and_the_unit() -> None:
    learnt = objective(network(), encoder="trained")

    names = {name.partition(".")[0] for name in learnt.state_dict()}

    assert names == {"model", "slow", "copy_error", "steps"}


# ---------------------------------------------------------------- the decoder


def test_the_decoder_paints_what_it_cannot_change() -> None:
    learner = network()

    outcome = objective(learner, decode_weight=1.0)(batch())
    plain = objective(learner)(batch())
    (outcome.loss - plain.loss).backward()

    assert outcome.loss.item() == pytest.approx(
        plain.loss.item() + float(outcome.metrics["decoding"]), rel=1e-5
    )
    world = learner.world_model
    assert world is not None
    for name, one in world.named_parameters():
        assert one.grad is not None, name
        # The rest of the loss is taken off again, but for what rounding leaves of it.
        assert name.startswith("decoder.") == bool(one.grad.abs().max() > 1e-5), name


def test_painting_needs_a_decoder() -> None:
    with pytest.raises(
        ValueError, match=r"decode_weight: found 1; allowed: .*world_model\.decoder"
    ):
        objective(network(decoder=None), decode_weight=1.0)


def test_a_step_in_which_nothing_came_leaves_the_unit_as_it_was() -> None:
    learnt, made = objective(network()), batch()
    none = clip_of(made, inside=torch.zeros_like(frames(made).inside))

    units = []
    for given_ in (none, made, none):
        learnt(given_)
        learnt.after_step()
        units.append(float(learnt.copy_error))

    assert units[0] == 1.0
    assert units[1] == units[2] != 1.0
