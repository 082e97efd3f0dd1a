"""Several objectives as one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from tests.training.tiny import batch, model, tokenizer
from torch import Tensor, nn

from tectum_core.model import PerceptionModel
from tectum_train.objectives import Batch, Objective, ObjectiveConfig, Outcome, objective_for
from tectum_train.tasks import ManyTasks, TasksConfig
from tectum_train.tasks.weights import GradNorm, weighting_for

READ: TypeAdapter[Any] = TypeAdapter(ObjectiveConfig)


class Says(Objective):
    """Says a multiple of what it shares with others, and counts its steps."""

    def __init__(
        self, name: str, shared: nn.Module, factor: float, chance: float | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.shared = shared
        self.factor = factor
        self.chance = chance
        self.steps = 0

    def forward(self, batch: Batch) -> Outcome:
        (weight,) = self.shared.parameters()
        loss = self.factor * weight.sum()
        return Outcome(loss, {"twice": 2 * loss.detach()}, self.chance)

    def after_step(self) -> None:
        self.steps += 1


def trunk(*values: float) -> nn.Module:
    """One parameter, alone."""
    made = nn.Linear(len(values), 1, bias=False)
    made.weight.data = torch.tensor([values])
    return made


def tasks(**settings: Any) -> TasksConfig:
    return TasksConfig.model_validate(settings)


def told(outcome: Outcome) -> dict[str, float]:
    return {name: float(value) for name, value in outcome.metrics.items()}


# ---------------------------------------------------------------- the sum


def test_the_sum_is_weighted_and_names_its_parts() -> None:
    shared = trunk(1.0)
    parts = Says("first", shared, 3.0), Says("second", shared, 5.0)

    outcome = ManyTasks([(1.0, parts[0]), (0.5, parts[1])])(batch(1))
    outcome.loss.backward()

    assert outcome.loss.item() == 5.5
    assert told(outcome) == {
        "first/loss": 3.0,
        "first/twice": 6.0,
        "second/loss": 5.0,
        "second/twice": 10.0,
    }
    (weight,) = shared.parameters()
    assert weight.grad is not None
    assert weight.grad.item() == 5.5


def test_every_part_hears_of_a_step() -> None:
    parts = Says("first", trunk(1.0), 1.0), Says("second", trunk(1.0), 1.0)

    ManyTasks([(1.0, parts[0]), (1.0, parts[1])]).after_step()

    assert [part.steps for part in parts] == [1, 1]


def test_losses_in_units_of_chance_begin_near_one() -> None:
    shared = trunk(1.0)
    parts = [(1.0, Says("big", shared, 40.0, 80.0)), (1.0, Says("small", shared, 0.1, 0.1))]

    outcome = ManyTasks(parts, config=tasks(normalise="chance"))(batch(1))

    assert outcome.loss.item() == pytest.approx(0.5 + 1.0)
    assert told(outcome)["big/loss"] == 40.0
    assert told(outcome)["small/weight"] == pytest.approx(10.0)


def test_in_units_of_the_first_steps_losses_every_sum_begins_at_their_number() -> None:
    shared = trunk(2.0)
    parts = [(1.0, Says(str(factor), shared, factor)) for factor in (0.01, 1.0, 300.0)]

    outcome = ManyTasks(parts, config=tasks(normalise="initial"))(batch(1))

    assert outcome.loss.item() == pytest.approx(3.0)


# ---------------------------------------------------------------- turns


def test_objectives_take_turns_in_the_pattern_given() -> None:
    shared = trunk(1.0)
    parts = Says("a", shared, 2.0), Says("b", shared, 5.0)
    both = ManyTasks(
        [(1.0, part) for part in parts], config=tasks(alternate={"pattern": ["a", "a", "b"]})
    )
    losses = []

    for _ in range(7):
        losses.append(both(batch(1)).loss.item())
        both.after_step()

    assert losses == [2.0, 2.0, 5.0, 2.0, 2.0, 5.0, 2.0]
    assert [part.steps for part in parts] == [5, 2]


def test_who_is_idle_has_no_weight_to_tell() -> None:
    shared = trunk(1.0)
    parts = [(1.0, Says("a", shared, 2.0, 4.0)), (1.0, Says("b", shared, 5.0, 10.0))]
    both = ManyTasks(parts, config=tasks(normalise="chance", alternate={"pattern": ["a", "b"]}))
    said = []

    for _ in range(4):
        weights = {key: value for key, value in told(both(batch(1))).items() if "weight" in key}
        said.append(weights)
        both.after_step()

    assert said == 2 * [{"a/weight": 0.25}, {"b/weight": pytest.approx(0.1)}]


def test_a_turn_goes_on_from_its_state() -> None:
    def made() -> ManyTasks:
        shared = trunk(1.0)
        parts = [(1.0, Says("a", shared, 2.0)), (1.0, Says("b", shared, 5.0))]
        return ManyTasks(parts, config=tasks(alternate={"pattern": ["a", "a", "b"]}))

    first, second = made(), made()
    for _ in range(2):
        first(batch(1))
        first.after_step()
    second.load_state_dict(first.state_dict())

    assert second(batch(1)).loss.item() == 5.0


# ---------------------------------------------------------------- gradients


class Pulls(Objective):
    """Half the squared distance of what is shared from a place of its own."""

    def __init__(self, name: str, shared: nn.Module, place: Tensor, factor: float = 1.0) -> None:
        super().__init__()
        self.name = name
        self.shared = shared
        self.place = place
        self.factor = factor

    def forward(self, batch: Batch) -> Outcome:
        (weight,) = self.shared.parameters()
        return Outcome(self.factor * (weight[0] - self.place).square().sum() / 2, {})


def test_objectives_that_pull_apart_are_reported() -> None:
    shared = trunk(0.0, 0.0)
    parts = [
        (1.0, Pulls("left", shared, torch.tensor([-1.0, 0.0]))),
        (1.0, Pulls("right", shared, torch.tensor([2.0, 0.0]))),
        (1.0, Pulls("up", shared, torch.tensor([0.0, 1.0]))),
    ]
    many = ManyTasks(parts, [shared], tasks(conflict_every=2))

    first = told(many(batch(1)))
    many.after_step()
    second = told(many(batch(1)))

    assert first["conflict/left~right"] == -1.0
    assert first["conflict/left~up"] == 0.0
    assert not any(name.startswith("conflict/") for name in second)


def test_a_report_changes_nothing_of_what_is_descended() -> None:
    found = []
    for every in (0, 1):
        shared = trunk(0.3, -0.2)
        parts = [
            (1.0, Pulls("a", shared, torch.ones(2))),
            (2.0, Pulls("b", shared, -torch.ones(2))),
        ]
        ManyTasks(parts, [shared], tasks(conflict_every=every))(batch(1)).loss.backward()
        (weight,) = shared.parameters()
        found.append(weight.grad)

    assert found[0] is not None
    torch.testing.assert_close(found[0], found[1])


class Tells(Objective):
    """Says these losses in turn, each as long a gradient as it is large."""

    def __init__(self, name: str, shared: nn.Module, losses: list[float], chance: float) -> None:
        super().__init__()
        self.name = name
        self.shared = shared
        self.losses = iter(losses)
        self.chance = chance

    def forward(self, batch: Batch) -> Outcome:
        (weight,) = self.shared.parameters()
        return Outcome(next(self.losses) * weight.sum(), {}, self.chance)


@pytest.mark.parametrize(
    ("normalise", "scaled"),
    [
        ("chance", [[0.5, 1.0], [0.25, 1.0], [0.125, 1.0]]),
        ("initial", [[1.0, 1.0], [20 / 30, 1.0], [10 / (70 / 3), 1.0]]),  # by the mean so far
    ],
)
@pytest.mark.parametrize("kind", ["grad_norm", "dwa"])
def test_weights_are_those_of_losses_and_gradients_in_their_units(
    kind: str, normalise: str, scaled: list[list[float]]
) -> None:
    settings: dict[str, Any] = {"kind": kind, **({"window": 1} if kind == "dwa" else {})}
    config, shared = tasks(weighting=settings, normalise=normalise), trunk(1.0)
    parts = [
        (1.0, Tells("big", shared, [40.0, 20.0, 10.0], 80.0)),
        (1.0, Tells("small", shared, [0.1, 0.1, 0.1], 0.1)),
    ]
    many, alone = ManyTasks(parts, [shared], config), weighting_for(config.weighting, [1.0, 1.0], 1)
    for row in map(torch.tensor, scaled):
        many(batch(1))
        many.after_step()
        if alone.wants_gradients():
            alone.balance(row, row)
        alone.observe(row, torch.tensor([True, True]))

    torch.testing.assert_close(many.weighting.weights(), alone.weights())
    assert not torch.allclose(alone.weights(), torch.ones(2))


@pytest.mark.parametrize("kind", ["uncertainty", "grad_norm"])
def test_a_task_scaled_a_hundredfold_is_balanced_again(kind: str) -> None:
    settings = {"kind": kind}
    shared = trunk(0.0, 0.0)
    loud = Pulls("loud", shared, torch.tensor([1.0, 0.0]), 100.0)
    quiet = Pulls("quiet", shared, torch.tensor([0.0, 1.0]))
    many = ManyTasks([(1.0, loud), (1.0, quiet)], [shared], tasks(weighting=settings))
    descent = torch.optim.SGD(many.parameters(), lr=0.0)
    own = torch.optim.SGD(many.weighting.parameters(), lr=0.05) if kind == "uncertainty" else None

    for _ in range(600):
        descent.zero_grad()
        outcome = many(batch(1))
        outcome.loss.backward()
        if own is not None:
            own.step()
        many.after_step()

    ratio = float(outcome.metrics["loud/weight"] / outcome.metrics["quiet/weight"])
    assert ratio == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_dwa_asks_how_fast_a_task_falls_however_it_is_scaled(scale: float) -> None:
    shared, config = trunk(1.0), tasks(weighting={"kind": "dwa", "window": 1})
    slow = Tells("slow", shared, [scale, 0.5 * scale, 0.0], 1.0)
    quick = Tells("quick", shared, [1.0, 0.25, 0.0], 1.0)
    many = ManyTasks([(1.0, slow), (1.0, quick)], [shared], config)

    for _ in range(2):
        many(batch(1))
        many.after_step()

    counts = many.weighting.weights()
    assert float(counts[0] / counts[1]) == pytest.approx(math.exp((0.5 - 0.25) / 2))


@pytest.mark.parametrize("settings", [{"weighting": {"kind": "grad_norm", "every": 1}}, {}])
def test_a_loss_is_not_weighed_by_its_size_before_it_has_the_unit_that_it_keeps(
    settings: dict[str, Any],
) -> None:
    network = model()
    parts = [
        (1.0, objective_for(READ.validate_python({"kind": kind}), network, tokenizer()))
        for kind in ("masked_image", "world_model")
    ]
    learnt = ManyTasks(
        parts,
        [network.vision],
        tasks(normalise="none" if settings else "initial", **settings),
    )

    sizes = list[float]()
    for step in range(2):
        outcome = learnt(batch(8, seed=step))
        kept = learnt.weighting if isinstance(learnt.weighting, GradNorm) else learnt.units
        first = kept.first.sums
        sizes.append(float(outcome.metrics["world_model/loss"]))
        assert float(first[0]) > 0
        if step == 0:
            assert not float(first[1]) > 0
        learnt.after_step()

    assert float(first[1]) == pytest.approx(sizes[1])
    assert sizes[1] > 1.5 * sizes[0] or sizes[0] > 1.5 * sizes[1]


def test_gradients_are_compared_on_one_trunk() -> None:
    shared = [trunk(1.0), trunk(1.0)]
    parts = [(1.0, Says(str(i), one, 1.0)) for i, one in enumerate(shared)]

    with pytest.raises(ValueError, match="one shared trunk"):
        ManyTasks(parts, shared, tasks(weighting={"kind": "grad_norm"}))(batch(1))


# ---------------------------------------------------------------- real objectives


def real(network: PerceptionModel, *kinds: str) -> list[tuple[float, Objective]]:
    configs = [READ.validate_python({"kind": kind}) for kind in kinds]
    return [(1.0, objective_for(config, network, tokenizer())) for config in configs]


def test_parts_share_the_trunks_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    network, passes = model(), {"vision": 0, "text": 0}
    for name in passes:

        def count(*_: Any, name: str = name) -> None:
            passes[name] += 1

        getattr(network, name).register_forward_hook(count)

    ManyTasks(real(network, "image_text", "action_prediction"))(batch())

    assert passes == {"vision": 1, "text": 1}


@pytest.mark.parametrize(
    "settings",
    [
        {"weighting": {"kind": "importance"}, "normalise": "chance"},
        {"weighting": {"kind": "uncertainty"}, "normalise": "initial"},
        {"weighting": {"kind": "grad_norm"}},
        {"weighting": {"kind": "dwa", "window": 2}},
        {"alternate": {"pattern": ["image_text", "masked_image"]}},
        {"conflict_every": 3},
    ],
    ids=str,
)
def test_real_objectives_learn_together_under_every_setting(settings: Any) -> None:
    network = model()
    parts = real(network, "image_text", "masked_image")
    many = ManyTasks(parts, [network.vision], tasks(**settings))
    adam = torch.optim.AdamW(many.parameters(), lr=3e-3)
    losses: dict[str, list[float]] = {"image_text": [], "masked_image": []}

    for step in range(40):
        made = batch(8)
        made.generator.manual_seed(step)
        outcome = many(made)
        adam.zero_grad()
        outcome.loss.backward()
        adam.step()
        many.after_step()
        for name, found in losses.items():
            if f"{name}/loss" in outcome.metrics:
                found.append(float(outcome.metrics[f"{name}/loss"]))

    for found in losses.values():
        assert sum(found[-4:]) < 0.9 * sum(found[:4]), found
