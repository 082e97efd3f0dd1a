"""Steps in which nothing counted, of which no weight learns."""

from __future__ import annotations

import pytest
import torch
from tests.training.tasks.test_tasks_many import Tells, tasks, trunk
from tests.training.tiny import batch
from torch import Tensor, nn

from tectum_train.tasks import ManyTasks


def weights_after(kind: str, losses: list[float]) -> Tensor:
    """Weights before each step and after the last one, of a task with these losses and another."""
    shared = trunk(1.0)
    settings = {"kind": kind, **({"window": 2} if kind == "dwa" else {})}
    parts = [Tells("a", shared, losses, 1.0), Tells("b", shared, [4.0, 4.0, 2.0, 2.0], 1.0)]
    many = ManyTasks([(1.0, part) for part in parts], [shared], tasks(weighting=settings))
    learnt = [*many.weighting.parameters(), nn.Parameter(torch.zeros(1))]
    adam, found = torch.optim.Adam(learnt, lr=0.1), list[Tensor]()
    for _ in losses:
        found.append(many.weighting.weights().clone())
        adam.zero_grad()
        many(batch(1)).loss.backward()
        adam.step()
        many.after_step()
    return torch.stack([*found, many.weighting.weights()])


def test_dwa_takes_no_step_in_which_nothing_counts_for_one_in_which_all_is_learnt() -> None:
    some, every = (weights_after("dwa", [3.0, 3.0, third, 3.0]) for third in (0.0, 3.0))

    torch.testing.assert_close(some, every)
    assert every[-1, 0] != 1


def test_uncertainty_takes_no_step_in_which_nothing_counts_for_one_in_which_all_is_learnt() -> None:
    found = weights_after("uncertainty", [3.0, 0.0, 0.0, 3.0])[:, 0]

    assert found[0] > found[1] == found[2] == found[3] > found[4]


def test_a_loss_is_heard_by_all_ranks_if_something_counted_on_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, found = trunk(1.0), list[bool]()
    parts = [(1.0, Tells(name, shared, [loss] * 2, 1.0)) for name, loss in (("a", 0.0), ("b", 1.0))]
    many = ManyTasks(parts, [shared], tasks(weighting={"kind": "dwa", "window": 5}))

    def hear(_: Tensor, heard: Tensor) -> None:
        found.extend(heard.tolist())

    monkeypatch.setattr(many.weighting, "observe", hear)
    many(batch(1))
    monkeypatch.setattr("tectum_train.tasks.many.all_sum", lambda own: own + 1)
    many(batch(1))

    assert found == [False, True, True, True]
