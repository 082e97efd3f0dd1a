"""Classification: its chance value, its control, and labels that are none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.training.tiny import batch, model
from torch.nn import functional as F
from torch.testing import assert_close

from tectum_train.objectives.supervised import Supervised, SupervisedConfig


def supervised(**changes: Any) -> Supervised:
    given = {"classes": {"task_family": 4}, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Supervised(SupervisedConfig.model_validate(given), model())


def labelled(*values: int, **others: list[int]) -> Any:
    labels = {"task_family": torch.tensor(values)}
    return batch(len(values), labels=labels | {k: torch.tensor(v) for k, v in others.items()})


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_it_begins_at_the_logarithm_of_the_classes(layers: int, smoothing: float) -> None:
    outcome = supervised(layers=layers, smoothing=smoothing)(labelled(0, 1, 2, 3, 0))

    assert_close(outcome.loss.detach(), torch.tensor(math.log(4)))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_cross_entropy_with_a_smoothed_target(smoothing: float) -> None:
    learnt, made = supervised(smoothing=smoothing), labelled(3, 1, 1, 0)
    torch.nn.init.normal_(learnt.heads[0][-1].weight)  # type: ignore[index]

    outcome = learnt(made)

    logits = learnt.heads[0](made.image(learnt.model).pooled).double()
    target = F.one_hot(made.labels["task_family"], 4) * (1 - smoothing) + smoothing / 4
    wanted = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert_close(outcome.loss, wanted.float())
    hits = logits.argmax(dim=1) == made.labels["task_family"]
    assert_close(outcome.metrics["task_family/accuracy"], hits.float().mean())
    trunk = list(learnt.model.vision.parameters())
    found, expected = (
        torch.autograd.grad(one, trunk, retain_graph=True) for one in (outcome.loss, wanted)
    )
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_several_features_are_learnt_alike() -> None:
    learnt = supervised(classes={"task_family": 4, "phase": 2})
    torch.nn.init.normal_(learnt.heads[1][-1].weight)  # type: ignore[index]

    outcome = learnt(labelled(0, 1, 2, 3, phase=[0, 1, 1, 0]))

    terms = [outcome.metrics[f"{name}/loss"] for name in ("task_family", "phase")]
    assert_close(outcome.loss.detach(), (terms[0] + terms[1]) / 2)
    assert terms[0] != terms[1]
    assert outcome.chance == pytest.approx((math.log(4) + math.log(2)) / 2)
    assert {"phase/accuracy", "phase/majority"} <= outcome.metrics.keys()


def test_the_majority_is_the_class_most_often_seen_so_far() -> None:
    learnt = supervised()

    def majority(*values: int) -> float:
        found = learnt(labelled(*values)).metrics["task_family/majority"]
        learnt.after_step()
        return float(found)

    assert majority(2, 2, 2, 1) == 0.75
    assert majority(1, 1, 2, 0) == 0.25  # 2 was seen four times, 1 three times
    assert majority(1, 1, 1, 0) == 0.75
    assert learnt.state_dict()["seen0"].tolist() == [2, 6, 4, 0]


@pytest.mark.parametrize("layers", [1, 3])
def test_each_features_head_is_as_deep_as_the_recipe_says(layers: int) -> None:
    heads = supervised(layers=layers, classes={"task_family": 4, "phase": 2}).heads

    counts = [sum(isinstance(one, torch.nn.Linear) for one in head.modules()) for head in heads]
    assert counts == [layers] * 2


def test_the_labels_of_all_pieces_of_a_step_are_counted() -> None:
    learnt = supervised()

    for piece in (labelled(2, 2, 1), labelled(0, 2)):
        learnt(piece)
    learnt.after_step()

    assert learnt.state_dict()["seen0"].tolist() == [1, 1, 3, 0]


def test_a_fraction_of_the_batch_is_the_first_so_many_samples() -> None:
    half, made = supervised(fraction=0.5), labelled(1, 1, 0, 0)

    assert half(made).metrics["task_family/majority"] == 1
    assert int(half.counted(made)) == 2


@pytest.mark.parametrize(("values", "found"), [((0, 4), "from 0 to 4"), ((-1, 2), "from -1 to 2")])
def test_a_label_that_is_no_class_is_refused_by_name(values: tuple[int, ...], found: str) -> None:
    with pytest.raises(ValueError, match=f"task_family goes {found}; .* allows 0 to 3"):
        supervised()(labelled(*values))


def test_its_configuration_asks_for_its_labels() -> None:
    config = SupervisedConfig(classes={"task_family": 4, "phase": 2})

    assert config.labels == ("task_family", "phase")


@pytest.mark.parametrize("classes", [{}, {"task_family": 1}])
def test_there_is_something_to_tell_apart(classes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1|greater than or equal to 2"):
        SupervisedConfig(classes=classes)
