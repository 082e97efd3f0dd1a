"""CPC: which moments count, what it tells from what, and its metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from tests.training.ranks import Ranks
from tests.training.tiny import batch, job, model
from torch import nn

from tectum_core.model import PerceptionModel
from tectum_train.distributed import average_gradients, gather
from tectum_train.engine.tally import Tally
from tectum_train.objectives import Batch
from tectum_train.objectives.cpc import Cpc, CpcConfig


def objective(network: PerceptionModel | None = None, **settings: Any) -> Cpc:
    """With heads drawn alike each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Cpc(CpcConfig.model_validate(settings), network or model())


def ending(made: Batch, *lengths: int) -> Batch:
    """The same clips, the first ones of so many frames."""
    assert made.clip is not None
    inside = made.clip.inside.clone()
    for row, length in enumerate(lengths):
        inside[row, length:] = False
    return replace(made, clip=replace(made.clip, inside=inside))


def shown(made: Batch, frames: torch.Tensor) -> Batch:
    assert made.clip is not None
    return replace(made, clip=replace(made.clip, frames=frames))


def frames_of(made: Batch) -> torch.Tensor:
    assert made.clip is not None
    return made.clip.frames.clone()


# ---------------------------------------------------------------- what is asked


def test_of_four_frames_each_horizon_is_asked_where_it_lies_in_the_clip() -> None:
    _, asked = objective().foresee(batch(8))

    assert asked.counted.sum(dim=(0, 1)).tolist() == [8 * 3, 8 * 2, 8 * 1]
    # three others of the clip, and four of each of six clips of other episodes
    assert asked.choices[asked.counted].unique().tolist() == [1 + 3 + 24]


@pytest.mark.parametrize(("negatives", "choices"), [("same_episode", 4), ("in_batch", 25)])
def test_negatives_are_those_that_were_chosen(negatives: Any, choices: int) -> None:
    chosen = objective(negatives=negatives)

    _, asked = chosen.foresee(batch(8))
    _, other = chosen.foresee(batch(8), "both")

    assert asked.choices[asked.counted].unique().tolist() == [choices]
    assert other.choices[other.counted].unique().tolist() == [28]


def test_an_untrained_model_is_at_chance_the_nearer_the_higher_the_temperature() -> None:
    outcome, hot = (objective(temperature=value)(batch(8)) for value in (1.0, 1000.0))

    assert outcome.loss.item() == pytest.approx(np.log(28), abs=0.3)
    assert hot.loss.item() == pytest.approx(np.log(28), abs=1e-3)
    for horizon in (1, 2, 3):
        assert float(outcome.metrics[f"chance_{horizon}"]) == pytest.approx(1 / 28)
        assert float(outcome.metrics[f"accuracy_{horizon}"]) < 0.5


def test_the_loss_is_the_mean_of_its_horizons() -> None:
    outcome = objective()(batch(8))

    losses = [outcome.metrics[f"loss_{horizon}"] for horizon in (1, 2, 3)]
    assert outcome.loss.item() == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


@pytest.mark.parametrize("temperature", [None, 0.3])
def test_the_loss_and_its_gradient_are_their_formulas(temperature: float | None) -> None:
    made = batch(4, episode=torch.arange(4))
    frames = frames_of(made).double()
    learnt = objective(temperature=temperature).double()
    seen = learnt.model.vision(frames.flatten(0, 1)).pooled.view(4, 4, -1)
    told = learnt.heads(learnt.past(seen)[0]).view(4, 4, 3, -1)
    if temperature is not None:
        seen = seen / seen.norm(dim=2, keepdim=True)
        told = told / told.norm(dim=3, keepdim=True) / temperature

    loss = learnt(shown(made, frames)).loss

    horizons = []
    for ahead in (1, 2, 3):  # each frame to come among all sixteen
        asked = [(clip, now) for clip in range(4) for now in range(4 - ahead)]
        logits = torch.stack(
            [seen.flatten(0, 1) @ told[clip, now, ahead - 1] for clip, now in asked]
        )
        right = torch.tensor([4 * clip + now + ahead for clip, now in asked])
        horizons.append(nn.functional.cross_entropy(logits, right))
    wanted = torch.stack(horizons).mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-9)
    parts = [*learnt.model.vision.parameters(), *learnt.past.parameters(), learnt.heads.weight]
    found, expected = (torch.autograd.grad(one, parts, allow_unused=True) for one in (loss, wanted))
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert torch.allclose(one, other, rtol=1e-6, atol=1e-12)


def test_each_horizons_metrics_are_means_over_what_was_asked_of_it() -> None:
    learnt, made = objective(), ending(batch(8), 2, 4, 3, 1)
    with torch.no_grad():
        _, asked = learnt.foresee(made)

    metrics = learnt(made).metrics

    found = {name: float(value) for name, value in metrics.items()}
    for place in range(3):
        counted = asked.counted[:, :, place]
        for name, each in (("loss", asked.losses), ("chance", 1 / asked.choices)):
            mean = float(each[:, :, place][counted].mean())
            assert found[f"{name}_{place + 1}"] == pytest.approx(mean)
        hits = float(asked.hit[:, :, place][counted].float().mean())
        assert found[f"accuracy_{place + 1}"] == pytest.approx(hits)
    assert found["accuracy_1"] != found["accuracy_3"]


def test_after_the_end_nothing_counts_and_nothing_learns() -> None:
    made = ending(batch(8), 2, 3, 1)
    other = frames_of(made)
    other[0, 2:], other[1, 3:], other[2, 1:] = 5.0, -5.0, 3.0
    learnt = objective(negatives="in_batch")

    _, asked = learnt.foresee(made)
    changed = learnt(shown(made, other)).loss

    assert asked.counted[:3].sum(dim=(1, 2)).tolist() == [1, 3, 0]
    assert torch.isclose(learnt(made).loss, changed)


def test_a_frame_that_is_shown_again_is_not_told_from_itself() -> None:
    made = batch(8)
    frames = frames_of(made)
    frames[0, 2] = frames[0, 1]

    _, asked = objective(negatives="same_episode").foresee(shown(made, frames))

    # as the target, frames 1 and 2 have two others each, frame 3 three
    assert asked.choices[0, :, 0].tolist()[:3] == [3, 3, 4]


def test_a_robot_that_stands_still_in_every_clip_has_no_loss_and_tells_nothing() -> None:
    made = batch(8)
    still = frames_of(made)[:, :1].expand(-1, 4, -1, -1, -1)

    outcome = objective(negatives="same_episode")(shown(made, still))
    outcome.loss.backward()

    assert outcome.loss.item() == 0
    assert outcome.metrics == {}


def test_a_step_in_which_a_horizon_is_not_asked_leaves_its_means_alone() -> None:
    learnt, tally = objective(), Tally()
    asked = learnt(batch(8)).metrics

    for made in (batch(8), ending(batch(8), *[2] * 8)):
        tally.add(learnt(made).metrics)

    told = tally.taken("cpu")
    for name in ("loss_2", "loss_3", "chance_2", "accuracy_3"):
        assert told[name] == pytest.approx(float(asked[name]))


def test_what_comes_later_is_not_in_what_is_told() -> None:
    made, learnt, told = batch(2), objective(), list[torch.Tensor]()
    frames = frames_of(made)
    frames[:, 3] = 0.0
    learnt.heads.register_forward_hook(lambda *seen: told.append(seen[2]))

    learnt(made)
    learnt(shown(made, frames))

    assert torch.equal(told[0][:, :3], told[1][:, :3])
    assert not torch.equal(told[0][:, 3], told[1][:, 3])


def test_the_past_is_kept_in_full_precision_under_autocast() -> None:
    learnt, kept = objective(), list[torch.Tensor]()
    for part in (learnt.past, learnt.heads):
        part.register_forward_hook(lambda *seen: kept.append(torch.as_tensor(seen[2][0])))

    with torch.autocast("cpu", torch.bfloat16):
        outcome = learnt(batch(8))
    outcome.loss.backward()

    assert [one.dtype for one in kept] == [torch.float32] * 2
    assert outcome.loss.dtype == torch.float32


def test_only_its_share_of_the_batch_is_used() -> None:
    made = batch(8)
    frames = frames_of(made)
    frames[4:] = 1.0
    learnt = objective(fraction=0.5)

    assert learnt(shown(made, frames)).loss.item() == learnt(made).loss.item()


def test_vectors_may_be_projected() -> None:
    learnt = objective(width=6, hidden=10)

    assert isinstance(learnt.projector, nn.Linear)
    assert learnt.heads.weight.shape == (3 * 6, 10)
    assert torch.isfinite(learnt(batch(8)).loss)


# ---------------------------------------------------------------- what is refused


def test_clips_that_end_before_the_furthest_horizon_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tells 4 frames ahead .* at least 5 frames, not 4"):
        objective(horizons=4)(batch(8))


def test_a_recipe_whose_clips_are_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"found 4; allowed: at least 5, which cpc reads"):
        job(tmp_path, tmp_path, objectives=[{"kind": "cpc", "horizons": 4}],
            data__clip={"frames": 4, "steps": 2})  # fmt: skip


# ---------------------------------------------------------------- ranks


def stepped(first: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The loss and all gradients of this rank's clips, in float64."""
    made = ending(batch(8), 2, 4, 3, 4, 2)  # more of one rank's clips end early than of the other's
    made = shown(made, frames_of(made).double()).part(int(first[0]), int(first[-1]) + 1)
    learnt = objective(temperature=0.2, width=6).double()
    loss = learnt(made).loss
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
        assert np.abs(both[0][name] - value).max() <= 1e-6 * np.abs(value).max(), name
