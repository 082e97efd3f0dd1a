"""R3M: order in time, reward by instruction, sparsity, and what each is told from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.training.ranks import Ranks
from tests.training.tiny import batch, model, vision_alone

from tectum_core.architecture import ModelConfig
from tectum_core.model import PerceptionModel
from tectum_train.distributed import average_gradients, gather
from tectum_train.objectives import Batch
from tectum_train.objectives.r3m import R3m, R3mConfig


def objective(network: PerceptionModel | None = None, **settings: Any) -> R3m:
    """With a reward drawn alike each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return R3m(R3mConfig.model_validate(settings), network or model())


def moments_of(made: Batch) -> torch.Tensor:
    assert made.moments is not None
    return made.moments


def test_rewards_are_told_in_full_precision_under_autocast() -> None:
    learnt, told = objective(), list[torch.Tensor]()
    assert learnt.reward is not None
    learnt.reward.register_forward_hook(lambda *seen: told.append(torch.as_tensor(seen[2])))

    with torch.autocast("cpu", torch.bfloat16):
        outcome = learnt(batch(8))
    outcome.loss.backward()

    assert {one.dtype for one in told} == {torch.float32}
    assert any(not torch.equal(one, one.bfloat16().float()) for one in told)


# ---------------------------------------------------------------- the loss


def formula(learnt: R3m, made: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Time contrast, language reward and norms, one question at a time."""
    vectors = learnt.model.vision(moments_of(made).flatten(0, 1)).pooled.view(len(made), 5, -1)
    text = made.text(learnt.model).pooled
    rows = range(len(made))

    def reward(at: int, moment: int, said: int) -> torch.Tensor:
        assert learnt.reward is not None
        found: torch.Tensor = learnt.reward(
            torch.cat([vectors[at, 0], vectors[at, moment], text[said]])
        )
        return found[0]

    time, language = [], []
    for own in rows:
        strangers = [at for at in rows if made.episode[at] != made.episode[own]]
        for end, far in ((1, 3), (3, 1)):
            others = [vectors[own, 2], vectors[own, far], *(vectors[at, end] for at in strangers)]
            nearness = torch.stack([-(vectors[own, end] - one).norm() for one in others])
            time.append(nearness.logsumexp(0) - nearness[0])
        tasks = [at for at in rows if made.task[at] != made.task[own]]
        for later, earlier in ((4, 0), (2, 1), (3, 2)):
            scores = [reward(own, later, own), reward(own, earlier, own)]
            scores += [reward(at, later, own) for at in tasks]
            language.append(torch.stack(scores).logsumexp(0) - scores[0])
    norms = vectors.abs().sum(dim=2) + vectors.norm(dim=2)
    return torch.stack(time).mean(), torch.stack(language).mean(), norms.mean()


def test_the_loss_and_its_gradient_are_their_formulas() -> None:
    made, learnt = batch(8), objective(penalty=0.01, language_weight=0.5).double()
    made.moments = moments_of(made).double()
    time, language, norms = formula(learnt, made)
    parameters = [one for one in learnt.parameters() if one.requires_grad]
    expected = torch.autograd.grad(
        time + 0.5 * language + 0.01 * norms, parameters, allow_unused=True, retain_graph=True
    )

    outcome = learnt(made)

    found = torch.autograd.grad(outcome.loss, parameters, allow_unused=True)
    assert outcome.loss.item() == pytest.approx((time + 0.5 * language + 0.01 * norms).item())
    assert outcome.metrics["time"].item() == pytest.approx(time.item())
    assert outcome.metrics["language"].item() == pytest.approx(language.item())
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert torch.allclose(one, other, rtol=1e-6, atol=1e-12)


def test_time_reversed_it_is_another_loss() -> None:
    learnt, made = objective(), batch(8)
    backwards = batch(8, moments=moments_of(made).flip(1))

    forth, back = learnt(made), learnt(backwards)

    assert forth.loss.item() != pytest.approx(back.loss.item(), rel=1e-4)
    # it is the reward that knows which way time goes
    assert float(forth.metrics["time"]) == pytest.approx(float(back.metrics["time"]), rel=1e-5)


def test_the_order_of_a_batch_does_not_matter() -> None:
    order, learnt = torch.randperm(8, generator=torch.Generator().manual_seed(1)), objective()
    made = batch(8)
    fields = ("moments", "episode", "task", "ids", "ids_seen", "content")
    mixed = batch(8, **{name: getattr(made, name)[order] for name in fields})

    assert torch.isclose(learnt(made).loss, learnt(mixed).loss)


def test_the_reward_is_at_chance_before_it_learns() -> None:
    made = batch(8, task=torch.arange(8), episode=torch.arange(8))

    metrics = objective()(made).metrics

    assert float(metrics["language"]) == pytest.approx(np.log(9), abs=0.2)


# ---------------------------------------------------------------- what does not count


def test_a_moment_that_is_shown_twice_is_not_told_from_itself() -> None:
    made = batch(8)
    moments = moments_of(made).clone()
    moments[:] = moments[:, :1]

    outcome = objective()(batch(8, moments=moments, episode=torch.zeros(8), task=torch.zeros(8)))

    assert float(outcome.metrics["time"]) == float(outcome.metrics["language"]) == 0
    assert outcome.metrics.keys() == {"time", "language"}  # there is no order to be right about


def test_what_is_shown_twice_is_neither_in_order_nor_out_of_it() -> None:
    made, learnt = batch(8), objective()
    moments = moments_of(made).clone()
    moments[4:, 2] = moments[4:, 1]  # of the three, the first again
    moments[:, 4] = moments[:, 0]  # the goal is the start again
    again = batch(8, moments=moments)

    metrics = learnt(again).metrics

    vectors = learnt.model.vision(moments.flatten(0, 1)).pooled.view(8, 5, -1).detach()
    ends = (vectors[:, 1] - vectors[:, 3]).norm(dim=1)
    near = [(vectors[:, 2] - vectors[:, at]).norm(dim=1) < ends for at in (1, 3)]
    assert metrics["aligned"].item() == pytest.approx((near[0] & near[1])[:4].sum().item() / 4)
    assert learnt.reward is not None
    text = again.text(learnt.model).pooled
    scores = [
        learnt.reward(torch.cat([vectors[:, 0], vectors[:, at], text], dim=1))[:, 0].detach()
        for at in (1, 2, 3)
    ]
    rises = (scores[1] > scores[0])[:4].sum() + (scores[2] > scores[1]).sum()
    assert metrics["progress"].item() == pytest.approx(rises.item() / 12)


def test_without_an_instruction_there_is_no_reward() -> None:
    learnt = objective()

    silent = learnt(batch(8, content=torch.zeros(8, 12, dtype=torch.bool)))

    assert float(silent.metrics["language"]) == 0
    assert silent.loss.item() == pytest.approx(float(silent.metrics["time"]), abs=0.01)


def test_whoever_was_told_nothing_is_not_asked_how_far_it_has_got() -> None:
    learnt, made = objective(), batch(8, task=torch.arange(8))
    made.content[:5] = False
    assert learnt.reward is not None
    vectors = learnt.model.vision(moments_of(made).flatten(0, 1)).pooled.view(8, 5, -1)
    text = made.text(learnt.model).pooled

    metrics = learnt(made).metrics

    rises, tells = [], []
    for own in (5, 6, 7):
        for later, earlier in ((4, 0), (2, 1), (3, 2)):
            of_all, before = (
                learnt.reward(
                    torch.cat([vectors[:, 0], vectors[:, at], text[own].expand(8, -1)], dim=1)
                )[:, 0]
                for at in (later, earlier)
            )
            rises.append(bool(of_all[own] > before[own]))
            tells.append(int(of_all.argmax()) == own)
    assert float(metrics["progress"]) == pytest.approx(np.mean(rises))
    assert float(metrics["told"]) == pytest.approx(np.mean(tells))


def test_an_instruction_is_not_told_from_its_own_tasks_episodes() -> None:
    learnt = objective()
    made = batch(8, task=torch.zeros(8, dtype=torch.long))

    outcome = learnt(made)

    assert "told" not in outcome.metrics  # nothing was asked
    assert float(outcome.metrics["language"]) == pytest.approx(np.log(2), abs=0.1)


def test_only_its_share_of_the_batch_is_used() -> None:
    made = batch(8)
    moments = moments_of(made).clone()
    moments[4:] = 1.0
    learnt = objective(fraction=0.5)

    assert learnt(batch(8, moments=moments)).loss.item() == learnt(made).loss.item()


@pytest.mark.parametrize("layers", [2, 4])
def test_the_reward_is_as_deep_as_the_recipe_says(layers: int) -> None:
    reward = objective(layers=layers, hidden=24).reward
    assert reward is not None

    shapes = [tuple(one.weight.shape) for one in reward if isinstance(one, torch.nn.Linear)]
    assert [out for out, _ in shapes] == [24] * (layers - 1) + [1]


def test_without_language_no_text_trunk_is_needed() -> None:
    alone = PerceptionModel(ModelConfig.model_validate(vision_alone()))

    outcome = objective(alone, language_weight=0)(batch(8))

    assert set(outcome.metrics) == {"time", "aligned"}
    with pytest.raises(ValueError, match=r"r3m needs a text trunk \(model\.text\)"):
        objective(alone)


# ---------------------------------------------------------------- ranks


def stepped(first: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The loss and all gradients of this rank's samples, in float64."""
    made = batch(8)
    # One rank has more instructions than the other.
    made.content[:3] = False
    made.moments = moments_of(made).double()
    learnt = objective().double()
    loss = learnt(made.part(int(first[0]), int(first[-1]) + 1)).loss
    loss.backward()
    average_gradients(learnt.parameters())
    gradients = {
        name: one.grad.numpy() for name, one in learnt.named_parameters() if one.grad is not None
    }
    return {"loss": gather(loss.detach()[None]).mean().numpy(), **gradients}


def test_two_ranks_learn_what_one_does(ranks: Ranks) -> None:
    alone, both = stepped(np.arange(8)), ranks.run(stepped, first=np.arange(8))

    assert alone.keys() == both[0].keys()
    for name, value in alone.items():
        # Biases before a softmax have no gradient but rounding.
        assert np.allclose(both[0][name], value, rtol=1e-6, atol=1e-12), name
