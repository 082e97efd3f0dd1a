"""A batch in pieces: loss and gradients of the whole, whatever couples its samples."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from tests.training.ranks import Ranks
from tests.training.tiny import (
    batch,
    code_shape,
    image_tokenizer,
    job,
    model,
    tokenizer,
    video,
)
from torch import Tensor, nn

from tectum_core.architecture import ActionBinsConfig, ActionConfig
from tectum_core.model import PerceptionModel
from tectum_train import recipes
from tectum_train.distributed import average_gradients, mean_over_ranks, rank
from tectum_train.distributed import world_size as ranks_there
from tectum_train.engine.accumulation import backward, division, indivisible
from tectum_train.engine.building import check_parts
from tectum_train.objectives import (
    Averaged,
    Batch,
    Clip,
    Coupled,
    Objective,
    ObjectiveConfig,
    Outcome,
    WeightedSum,
    objective_for,
)
from tectum_train.recipe import Recipe, RecipeError, read_recipe

READ: TypeAdapter[Any] = TypeAdapter(ObjectiveConfig)
SIGLIP = {"width": 16, "initial_scale": 10, "bias": -10}
OF_PIECES = {"world_model/shuffled"}
"""What says the same, but not to the last digit: whose actions are exchanged is a piece's."""
BINS = ActionConfig(
    dimensions=4, state_dimensions=4, max_steps=8, bins=ActionBinsConfig(count=8)
).model_dump()


class PaddedMean(Averaged):
    """A mean over steps that are no padding, of which some samples have more than others."""

    name = "padded_mean"

    def __init__(self, network: PerceptionModel) -> None:
        super().__init__()
        self.model = network
        self.head = nn.Linear(network.config.vision.transformer.width, 4)

    def counted(self, batch: Batch) -> Tensor:
        return (~batch.padded).sum()

    def forward(self, batch: Batch) -> Outcome:
        guess = self.head(batch.image(self.model).pooled)[:, None]
        error = (guess - batch.actions).square().mean(dim=2)[~batch.padded]
        loss = mean_over_ranks(error)
        return Outcome(loss, {"error": loss.detach()})


_Made = TypeVar("_Made", Batch, Clip)


def wide(made: _Made) -> _Made:
    """The same in float64."""
    for one in fields(made):
        value = getattr(made, one.name)
        if isinstance(value, Tensor) and value.is_floating_point():
            setattr(made, one.name, value.double())
        if isinstance(value, Clip):
            wide(value)
    return made


def joint(kinds: list[dict[str, Any]]) -> WeightedSum:
    """These objectives in float64, each with a weight of its own, and a mean beside them."""
    torch.manual_seed(0)
    network = model(joint=SIGLIP, actions=BINS, **video())
    parts: list[Objective] = [
        objective_for(READ.validate_python(one), network, tokenizer()) for one in kinds
    ]
    parts.insert(1, PaddedMean(network))
    return WeightedSum([(1.0 + place / 4, one) for place, one in enumerate(parts)]).double()


def samples(seed: int = 0) -> Batch:
    padded = torch.arange(8)[None] >= torch.arange(8, 0, -1)[:, None]
    made = wide(batch(8, seed=seed, padded=padded))
    made.task[3] = made.task[0]
    assert made.clip is not None
    made.clip.inside = torch.arange(4)[None] < 1 + torch.arange(8)[:, None] % 4
    return made


def learnt(kinds: list[dict[str, Any]], pieces: int, steps: int = 2) -> dict[str, NDArray[Any]]:
    """What the last of some steps says, its gradients, and what is remembered after it."""
    objective = joint(kinds)
    descent = torch.optim.SGD(objective.parameters(), lr=0.01)
    for step in range(steps):
        made = samples(step).part(rank(), 8, ranks_there())
        objective.zero_grad()
        outcome = backward(objective, made, pieces, nullcontext)
        average_gradients(objective.parameters())
        descent.step()
        objective.after_step()
    told = outcome.metrics.items()
    found = {f"loss/{key}": value.numpy() for key, value in told if key.endswith("loss")}
    found["loss"] = outcome.loss.numpy()
    found |= {f"metric/{key}": value.numpy() for key, value in told if key not in OF_PIECES}
    found |= {
        f"gradient/{name}": one.grad.numpy()
        for name, one in objective.named_parameters()
        if one.grad is not None
    }
    return found | {f"state/{name}": one.numpy() for name, one in objective.named_buffers()}


def furthest(found: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]]) -> float:
    """The largest difference, relative to the largest of all gradients, or of a value."""
    assert found.keys() == expected.keys()
    scale = max(float(np.abs(v).max()) for k, v in expected.items() if k.startswith("gradient"))
    return max(
        float(np.abs(found[key] - value).max())
        / (scale if key.startswith("gradient") else max(1.0, float(np.abs(value).max())))
        for key, value in expected.items()
        if value.size
    )


def metrics(found: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Take out what is told beside the loss, which ranks tell of their own samples."""
    return {key: float(found.pop(key)) for key in list(found) if key.startswith("metric")}


COUPLED: list[Any] = [
    pytest.param([{"kind": "image_text", "after": 0.3}], id="image_text"),
    pytest.param(
        [{"kind": "image_text", "negatives": {"queue": 12, "hardest": 3}}], id="image_text-queue"
    ),
    pytest.param([{"kind": "image_text", "loss": "sigmoid"}], id="image_text-sigmoid"),
    pytest.param([{"kind": "sim_clr", "fraction": 0.5}], id="sim_clr"),
    pytest.param([{"kind": "mo_co", "queue": 12, "momentum": 0.6}], id="mo_co"),
    pytest.param([{"kind": "mo_co", "queue": 0, "momentum": 0.6}], id="mo_co-v3"),
    pytest.param([{"kind": "mo_co", "queue": 12, "koleo_weight": 0.3}], id="mo_co-koleo"),
    pytest.param([{"kind": "image_text"}, {"kind": "sim_clr"}], id="two"),
    pytest.param([{"kind": "world_model", "decode_weight": 0.5}], id="world_model"),
    pytest.param([{"kind": "world_model", "encoder": "trained"}], id="world_model-trained"),
]


BY_ATTENTION = {"kind": "importance", "source": "attention", "ratios": (0.5,), "momentum": 0.6}
BY_CHANGE = {"kind": "importance", "ratios": (0.3, 0.5, 0.8)}
AVERAGED: list[Any] = [
    pytest.param([{"kind": "masked_image"}], id="masked_image"),
    pytest.param([{"kind": "masked_image", "mask": BY_CHANGE, "fraction": 0.5}], id="by_change"),
    pytest.param([{"kind": "masked_language", "ratio": 0.4}], id="masked_language"),
    pytest.param([{"kind": "masked_action"}], id="masked_action"),
    pytest.param([{"kind": "masked_action", "loss": "cross_entropy"}], id="masked_action-bins"),
    pytest.param([{"kind": "action_prediction"}], id="action_prediction"),
    pytest.param([{"kind": "video_mae"}], id="video_mae"),
    pytest.param([{"kind": "video_mae", "mask": BY_ATTENTION}], id="video_mae-attention"),
    pytest.param([{"kind": "masked_image", "mask": BY_ATTENTION}], id="masked_image-attention"),
    pytest.param([{"kind": "image_codes", **code_shape(), "restart_below": 0.9}], id="image_codes"),
    pytest.param([{"kind": "beit", "tokenizer": str(image_tokenizer())}], id="beit"),
    pytest.param(
        [{"kind": "supervised", "classes": {"task_family": 4}, "fraction": 0.5}], id="supervised"
    ),
    pytest.param(
        [
            {"kind": "masked_image"},
            {"kind": "image_text"},
            {"kind": "masked_language"},
            {"kind": "masked_action"},
        ],
        id="several",
    ),
]


LAWS = [
    pytest.param(*one.values, within, id=f"{one.id}")
    for within, several in ((1e-6, COUPLED), (1e-9, AVERAGED))
    for one in several
]


@pytest.mark.parametrize(("kinds", "within"), LAWS)
def test_pieces_say_and_teach_what_the_whole_batch_does(
    kinds: list[dict[str, Any]], within: float
) -> None:
    whole = learnt(kinds, 1)
    told = metrics(whole)

    for pieces in (2, 4):
        found = learnt(kinds, pieces)
        assert metrics(found) == pytest.approx(told, rel=1e-9, abs=1e-9)
        assert furthest(found, whole) <= within


@pytest.mark.parametrize(("kinds", "within"), LAWS)
def test_two_ranks_with_two_pieces_each_teach_what_the_whole_batch_does(
    ranks: Ranks, kinds: list[dict[str, Any]], within: float
) -> None:
    whole = learnt(kinds, 1)

    both = ranks.run(learnt, kinds=kinds, pieces=2)

    told, own = metrics(whole), [metrics(one) for one in both]
    means = {key: np.mean([one[key] for one in own]) for key in told}
    assert means == pytest.approx(told, rel=1e-9, abs=1e-9)
    for key in [key for key in whole if key.startswith("loss")]:
        mean = np.mean([one.pop(key) for one in both])
        assert np.isclose(mean, whole.pop(key), rtol=within)
    for one in both:
        assert furthest(one, whole) <= within


class Dropping(Coupled):
    """Vectors that lose some of their numbers, drawn from torch's own generator."""

    name = "dropping"

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6).double()

    def features(self, batch: Batch) -> dict[str, Tensor]:
        return {"vector": nn.functional.dropout(self.linear(batch.state), 0.5)}

    def judged(self, features: dict[str, Tensor], batch: Batch) -> Outcome:
        vector = features["vector"]
        return Outcome((vector @ vector.t()).logsumexp(dim=1).mean(), {})


def test_what_was_dropped_when_vectors_were_judged_is_dropped_when_they_learn() -> None:
    objective, made = Dropping(), samples()
    torch.manual_seed(5)
    expected = objective(made)  # of one piece, and of two one after another
    torch.manual_seed(5)
    vectors = [objective.features(made.part(number, 8, 2))["vector"] for number in range(2)]
    whole = torch.stack(vectors, dim=1).flatten(0, 1)
    loss = objective.judged({"vector": whole}, made).loss
    (gradient,) = torch.autograd.grad(loss, objective.linear.weight)

    torch.manual_seed(5)
    outcome = backward(WeightedSum([(1.0, objective)]), made, 2, nullcontext)

    assert torch.equal(outcome.loss, loss)
    assert not torch.equal(outcome.loss, expected.loss)
    assert objective.linear.weight.grad is not None
    assert torch.allclose(objective.linear.weight.grad, gradient, rtol=1e-9, atol=1e-12)


def test_a_piece_without_anything_that_counts_counts_nothing() -> None:
    made = samples()
    made.padded[1::2] = True
    gradients = list[Tensor]()
    for pieces in (1, 2):
        objective = joint([{"kind": "image_text"}])
        backward(objective, made, pieces, nullcontext)
        found = objective.get_parameter("parts.1.head.weight").grad
        assert found is not None
        gradients.append(found)

    assert torch.allclose(gradients[0], gradients[1], rtol=1e-9)


def test_autocast_holds_for_every_pass_and_its_weights_get_their_gradients() -> None:
    found = []
    for pieces in (1, 4):
        torch.manual_seed(0)
        network = model()
        objective = WeightedSum(
            [(1.0, objective_for(READ.validate_python({"kind": "sim_clr"}), network, None))]
        )
        outcome = backward(
            objective, batch(), pieces, lambda: torch.autocast("cpu", torch.bfloat16)
        )
        found.append((outcome.loss, [p.grad for p in objective.parameters()]))

    (loss, gradients), (other, others) = found
    assert torch.allclose(loss, other, rtol=1e-6)
    for one, two in zip(gradients, others, strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert (one - two).norm() <= 0.01 * one.norm() + 1e-6


# ---------------------------------------------------------------- how a step is divided


def recipe(tmp_path: Any, **changes: Any) -> Recipe:
    return job(tmp_path, tmp_path, **changes)


@pytest.mark.parametrize(("size", "micro", "pieces"), [(8, None, 1), (8, 8, 1), (8, 2, 4)])
def test_a_steps_samples_come_in_as_many_pieces_as_micro_batches_fit(
    tmp_path: Any, size: int, micro: int | None, pieces: int
) -> None:
    divided = recipe(tmp_path, schedule__batch_size=size, schedule__micro_batch=micro)

    assert division(divided) == pieces


def test_micro_batches_that_do_not_fit_are_refused(tmp_path: Any) -> None:
    for micro in (3, 16):
        with pytest.raises(RecipeError, match=rf"micro_batch \({micro}\) must divide .* 8 samples"):
            division(recipe(tmp_path, schedule__micro_batch=micro))


def test_a_fraction_of_a_micro_batch_is_a_whole_number(tmp_path: Any) -> None:
    objectives = [{"kind": "masked_image", "fraction": 0.5}]
    divided = recipe(tmp_path, schedule__micro_batch=2, objectives=objectives)
    single = recipe(tmp_path, schedule__micro_batch=1, objectives=objectives)

    assert division(divided) == 4
    with pytest.raises(
        RecipeError, match=r"masked_image\.fraction: of the 1 samples .* takes 0\.5"
    ):
        division(single)


def divided(size: int, micro: int, path: str) -> dict[str, NDArray[Any]]:
    made = recipe(path, schedule__batch_size=size, schedule__micro_batch=micro or None)
    try:
        return {"pieces": np.array(division(made))}
    except RecipeError as error:
        return {"refused": np.array(str(error))}


def test_ranks_share_a_step_evenly_or_are_refused(ranks: Ranks, tmp_path: Any) -> None:
    def said(size: int, micro: int = 0) -> str:
        (answer,) = {str(one) for one in ranks.run(divided, size=size, micro=micro, path=tmp_path)}
        return answer

    assert "'pieces': array(2)" in said(8, 2)
    assert "batch_size (9) is the whole of all ranks, so it must be a multiple of" in said(9)
    assert "must divide the step's 4 samples that each of 2 ranks has of them" in said(8, 3)


def test_what_is_neither_averaged_nor_coupled_is_named() -> None:
    class Whole(Dropping):
        """Known by its name."""

    class Opaque(Objective):
        name = "opaque"

        def forward(self, batch: Batch) -> Outcome:
            return Outcome(batch.earlier.square().mean(), {})

    nested = WeightedSum([(1.0, Opaque()), (1.0, Whole())])

    assert indivisible(WeightedSum([(1.0, nested), (2.0, PaddedMean(model()))])) == ["opaque"]


@pytest.mark.parametrize("tasks", [None, {"weighting": {"kind": "fixed"}}], ids=["sum", "tasks"])
def test_what_must_see_a_batch_as_a_whole_is_refused_before_data_are_read(
    tasks: dict[str, Any] | None, tmp_path: Any
) -> None:
    objectives = [{"kind": "dino"}, {"kind": "sim_clr"}]
    whole, pieces = (
        recipe(tmp_path / "absent", objectives=objectives, tasks=tasks, schedule__micro_batch=micro)
        for micro in (8, 4)
    )

    check_parts(whole)
    with pytest.raises(RecipeError, match=r"schedule\.micro_batch: dino must see a batch as a wh"):
        check_parts(pieces)


def in_pieces() -> list[Recipe]:
    """The package's recipes whose batches come in pieces."""
    return [one for one in map(read_recipe, recipes.named()) if one.schedule.micro_batch]


@pytest.mark.parametrize("made", in_pieces(), ids=lambda made: made.name)
def test_every_recipe_whose_batch_comes_in_pieces_can_be_so_divided(made: Recipe) -> None:
    with torch.device("meta"):
        network = PerceptionModel(made.model)
        # Without what reads a file that another run leaves.
        own = [one for one in made.objectives if not one.files]
        parts = [(1.0, objective_for(one, network, tokenizer())) for one in own]

    assert division(made) > 1
    assert indivisible(WeightedSum(parts)) == []
