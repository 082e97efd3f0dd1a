"""What CPC foretells and R3M orders of held-out episodes, beside what needs no learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.tiny import batch, job, model, tokenizer
from torch import Tensor, nn

from tectum_core.model import PerceptionModel
from tectum_core.preprocess import normalise
from tectum_train.data.samples import Order, Samples
from tectum_train.engine.optimiser import optimiser_for
from tectum_train.evaluation.measuring.context import NothingToMeasure
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.objectives.temporal import (
    CHANCE,
    LIKENESS,
    PIXELS,
    RANDOM,
    WORDS,
    held_out,
    measure_foresight,
    measure_order,
)
from tectum_train.objectives import Batch, Objective
from tectum_train.objectives.cpc import Cpc, CpcConfig
from tectum_train.objectives.r3m import R3m, R3mConfig
from tectum_train.recipe import OptimiserConfig, Recipe


def foresight(network: PerceptionModel, seed: int = 0, **settings: Any) -> Cpc:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Cpc(CpcConfig.model_validate({"temperature": 0.1, **settings}), network).eval()


def order(network: PerceptionModel, **settings: Any) -> R3m:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return R3m(R3mConfig.model_validate(settings), network).eval()


def learnt(objective: Objective, made: Batch, steps: int) -> None:
    """It knows this batch by heart."""
    adam = optimiser_for(objective, OptimiserConfig(lr=3e-3, weight_decay=0.0))
    for _ in range(steps):
        loss = objective(replace(made, _text=None)).loss
        adam.zero_grad()
        loss.backward()
        adam.step()


def named(measures: list[Measure]) -> dict[str, Measure]:
    return {one.name: one for one in measures}


# ---------------------------------------------------------------- batches


@pytest.fixture(scope="module")
def recipe(tiny_data: Path) -> Recipe:
    return job(
        tiny_data, tiny_data, objectives=[{"kind": "cpc"}, {"kind": "r3m"}],
        data__clip={"frames": 5, "steps": 1},
        augmentation={"shift": 2, "zoom": 0.2, "colour": 0.4, "hue": 0.2, "grey": 0.5},
    )  # fmt: skip


@pytest.fixture(scope="module")
def unseen(recipe: Recipe, tiny_data: Path) -> Samples:
    data = recipe.data
    return Samples.open(tiny_data / "test", data.camera, recipe.images, Path(data.cache))


def test_held_out_batches_are_unaugmented_and_repeat(recipe: Recipe, unseen: Samples) -> None:
    one, two = (
        list(held_out(recipe, unseen, tokenizer(), None, 3, torch.device("cpu"))) for _ in range(2)
    )

    assert len(one) == 3
    for step, (left, right) in enumerate(zip(one, two, strict=True)):
        assert torch.equal(left.earlier, right.earlier)
        index, _ = Order(recipe.seed, len(left), len(unseen)).of(step)
        recorded = torch.from_numpy(unseen.frames[index]).permute(0, 3, 1, 2)
        assert torch.equal(left.earlier, normalise(recorded, recipe.images))
        assert left.clip is not None
        # The picture itself is among those of the clip about it.
        assert (left.clip.frames == left.earlier[:, None]).flatten(2).all(2).any(1).all()


# ---------------------------------------------------------------- what comes next


def test_what_is_known_by_heart_is_foretold_and_an_untrained_twin_is_at_chance() -> None:
    made, objective = batch(8), foresight(model())
    learnt(objective, made, 60)

    found = named(measure_foresight(objective, foresight(model(1), seed=1), [made, made]))

    assert len(found) == 3 * 3
    for ahead in (1, 2, 3):
        own = found[f"frame {ahead} ahead among its clip's, accuracy"]
        assert own.controls[CHANCE] == pytest.approx(1 / 4)
        assert own.value > 0.9 > own.controls[RANDOM] + 0.2
        assert own.on == f"{2 * 8 * (4 - ahead)} frames of 4 episodes"
        every = found[f"frame {ahead} ahead among all clips', accuracy"]
        assert every.controls == {CHANCE: pytest.approx(1 / 28)}
        nats = found[f"frame {ahead} ahead, nats"]
        assert nats.value < 0.2 * nats.controls["equal scores"]
        assert nats.controls["equal scores"] == pytest.approx(np.log(28))


def test_what_each_horizon_costs_is_told_of_the_same_frames_and_negatives() -> None:
    untrained, made = foresight(model(), negatives="same_episode"), batch(8)

    found = named(measure_foresight(untrained, foresight(model(1)), [made]))

    with torch.no_grad():
        _, asked = untrained.foresee(made)
    for ahead in (1, 2, 3):  # of four frames, all three horizons are asked of the last one alone
        nats = found[f"frame {ahead} ahead, nats"]
        assert nats.value == pytest.approx(asked.losses[:, 3 - ahead, ahead - 1].mean().item())
        assert nats.controls["equal scores"] == pytest.approx(np.log(4))


class Sight(nn.Module):
    """A trunk that says where the bright column is, as a point on a circle."""

    def forward(self, frames: Tensor) -> Any:
        place = frames[:, 0, 0].argmax(dim=1) / 32 * torch.pi
        return type("Seen", (), {"pooled": torch.stack([place.cos(), place.sin()], dim=1)})


def moving(*places: int) -> Tensor:
    """float[1, T, 3, 32, 32], dark but for one column."""
    frames = torch.zeros(1, len(places), 3, 32, 32)
    for at, place in enumerate(places):
        frames[0, at, :, :, place] = 1.0
    return frames


@pytest.mark.parametrize(
    ("places", "length", "shares"),
    [
        ((2, 4, 12, 13), 4, (2 / 3, 1.0, 1.0)),  # one of two, where something lies behind
        ((2, 4, 7, 13), 4, (1 / 2, 1.0, 1.0)),  # ever faster: both behind 7 are nearer than 13
        ((2, 2, 9, 20), 4, (2 / 3, 1.0, 1.0)),  # what looks like the last is left out
        ((2, 13, 12, 4), 4, (1 / 3, 1 / 2, 0.0)),  # back again: of 2, 4 is the nearest
        ((2, 4, 12, 3), 3, (3 / 4, 1.0)),  # what comes after the end is left out
    ],
)
def test_what_likeness_to_the_last_frame_says_needs_no_past(
    places: Any, length: int, shares: Any
) -> None:
    objective = foresight(model(), horizons=len(shares))
    made = batch(2, episode=torch.arange(2))
    assert made.clip is not None
    inside, frames = (torch.arange(4) < length).expand(2, 4), moving(*places).repeat(2, 1, 1, 1, 1)
    made = replace(made, clip=replace(made.clip, frames=frames, inside=inside))
    objective.model.vision = Sight()  # type: ignore[assignment]
    objective.past = nn.GRU(2, 256, batch_first=True)
    objective.heads = nn.Linear(256, len(shares) * 2)

    found = named(measure_foresight(objective, objective, [made]))

    controls = [
        found[f"frame {ahead} ahead among its clip's, accuracy"].controls[LIKENESS]
        for ahead in range(1, len(shares) + 1)
    ]
    assert controls == pytest.approx(shares)


def test_clips_that_end_too_soon_are_nothing_to_measure() -> None:
    made = batch(8)
    assert made.clip is not None
    inside = made.clip.inside.clone()
    inside[:, 3:] = False
    short = replace(made, clip=replace(made.clip, inside=inside))

    with pytest.raises(NothingToMeasure, match="no clip goes on for 3 frames more"):
        measure_foresight(foresight(model()), foresight(model(1)), [short])


# ---------------------------------------------------------------- order


def test_an_order_known_by_heart_is_aligned_and_rewarded_with_the_right_words() -> None:
    made = batch(8, task=torch.arange(8), episode=torch.arange(8))
    objective = order(model())
    learnt(objective, made, 60)

    found = named(measure_order(objective, model(1), [made, made], np.random.default_rng(0)))

    aligned = found["three moments aligned"]
    assert aligned.value > 0.8
    assert aligned.controls.keys() == {CHANCE, RANDOM, PIXELS}
    assert aligned.controls[CHANCE] == pytest.approx(1 / 3)
    assert aligned.on == "16 times three moments of 8 episodes"
    assert found["reward rises to a later moment"].value > 0.8
    told = found["reward above all other tasks' episodes"]
    assert told.controls[CHANCE] == pytest.approx(1 / 8)
    assert told.value > 0.8 > told.controls[WORDS] + 0.3


def test_pixels_that_move_on_are_in_order_for_pixels_too() -> None:
    moments = torch.cat([moving(0, 2, 2 + step, 2 + 2 * step, 20) for step in (1, 2)])
    moments = moments.cumsum(dim=-1)  # all is bright to the right of the column

    found = measure_order(
        order(model(), language_weight=0), model(1),
        [batch(2, moments=moments, episode=torch.arange(2))], np.random.default_rng(0),
    )  # fmt: skip

    assert [one.name for one in found] == ["three moments aligned"]
    assert found[0].controls[PIXELS] == 1


def test_episodes_in_which_nothing_moves_are_nothing_to_measure() -> None:
    still = batch(4).earlier[:, None].repeat(1, 5, 1, 1, 1)

    with pytest.raises(NothingToMeasure, match="no episode shows three different moments"):
        measure_order(order(model()), model(1), [batch(4, moments=still)], np.random.default_rng(0))


def test_of_one_task_there_are_no_other_words() -> None:
    alone = batch(4, task=torch.zeros(4, dtype=torch.long))

    with pytest.raises(NothingToMeasure, match="one episode or task"):
        measure_order(order(model()), model(1), [alone], np.random.default_rng(0))
