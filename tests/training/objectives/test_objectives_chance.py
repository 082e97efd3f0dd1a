"""What knowing nothing costs: of vectors all alike, and of untrained models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from tests.training.tiny import batch, model, tokenizer

from tectum_train.objectives import Coupled, ObjectiveConfig, objective_for
from tectum_train.objectives.image_text import ImageText
from tectum_train.objectives.mo_co import MoCo

READ: TypeAdapter[Any] = TypeAdapter(ObjectiveConfig)


@pytest.mark.parametrize("tasks", [8, 3], ids="{} tasks".format)
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("image_text", {}),
        ("image_text", {"after": 0.4}),
        ("image_text", {"negatives": {"queue": 50}}),
        ("image_text", {"negatives": {"hardest": 3}}),
        ("sim_clr", {}),
        ("mo_co", {"queue": 20}),
        ("mo_co", {"queue": 0, "temperature": 0.2}),
        ("mo_co", {"queue": 0, "temperature": 0.5}),
    ],
    ids=str,
)
def test_vectors_that_are_all_alike_cost_what_chance_does(
    kind: str, settings: Any, tasks: int
) -> None:
    made = batch(8)
    made.task = torch.arange(8) % tasks
    objective = objective_for(
        READ.validate_python({"kind": kind, **settings}), model(), tokenizer()
    )
    assert isinstance(objective, Coupled)
    alike = {
        name: torch.nn.functional.normalize(torch.ones_like(vectors), dim=-1)
        for name, vectors in objective.features(made).items()
    }

    if isinstance(objective, MoCo) and objective.queue is not None:
        objective.queue.add(alike["key"][:1].repeat(20, 1))
    if isinstance(objective, ImageText) and objective.images and objective.texts:
        for queue, vectors in ((objective.images, "image"), (objective.texts, "text")):
            queue.add(alike[vectors][:6], torch.arange(6))

    outcome = objective.judged(alike, made)

    assert outcome.chance is not None
    assert outcome.loss.item() == pytest.approx(outcome.chance, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("image_text", {}),
        ("image_text", {"negatives": {"queue": 16}}),
        ("sim_clr", {"temperature": 1.0}),
        ("mo_co", {"queue": 16, "temperature": 1.0}),
        ("mo_co", {"queue": 0, "temperature": 1.0}),
    ],
    ids=str,
)
def test_an_untrained_models_loss_is_near_chance_where_nothing_is_alike(
    kind: str, settings: Any
) -> None:
    """At temperature 1: at a sharp one the chance likeness of untrained vectors counts for more."""
    losses, chances = zip(
        *(_untrained(kind, settings, seed) for seed in range(6)), strict=True
    )  # of one draw of a head's weights vectors may happen to lie otherwise

    assert len(set(chances)) == 1
    assert sum(losses) / len(losses) == pytest.approx(chances[0], rel=0.1)


def _untrained(kind: str, settings: Any, seed: int) -> tuple[float, float]:
    """An untrained objective's loss, and chance."""
    torch.manual_seed(seed)  # heads are drawn
    learner = model()
    assert learner.joint is not None
    with torch.no_grad():
        learner.joint.log_scale.zero_()
    objective = objective_for(
        READ.validate_python({"kind": kind, **settings}), learner, tokenizer()
    )
    for step in range(4):  # in which queues fill with such vectors
        made = batch(8, seed=step)
        made.task = torch.arange(8) + 8 * step
        # Both views of a sample are of different pictures.
        made.views = torch.stack([made.earlier, batch(8, seed=100 + step).earlier], dim=1)
        outcome = objective(made)
        objective.after_step()
    assert outcome.chance is not None
    return outcome.loss.item(), outcome.chance


@pytest.mark.parametrize("weight", [0.0, 1.0, 4.0])
def test_what_decodes_actions_from_latents_has_a_chance_of_its_own(weight: float) -> None:
    made, learner = batch(64), model()
    settings = {"kind": "latent_action", "decode_weight": weight}

    outcome = objective_for(READ.validate_python(settings), learner, tokenizer())(made)

    assert outcome.chance == 1 + weight
    assert outcome.loss.item() == pytest.approx(outcome.chance, rel=0.25)


def test_the_first_loss_of_words_and_labels_is_near_chance() -> None:
    for settings, within in (
        ({"kind": "masked_language"}, 0.05),
        ({"kind": "supervised", "classes": {"family": 4}}, 0.25),
    ):
        objective = objective_for(READ.validate_python(settings), model(), tokenizer())
        made = batch(8)
        made.labels = {"family": torch.arange(8) % 4}

        outcome = objective(made)

        assert outcome.chance is not None
        assert outcome.loss.item() == pytest.approx(outcome.chance, rel=within)
