"""The whole of DINOv2's loss, pair by pair and patch by patch, as one would write it down."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.bundles import vision
from tests.training.tiny import batch, model
from torch import Tensor

from tectum_core.model.vision import Replaced
from tectum_train.objectives import Batch
from tectum_train.objectives.dino import Dino, DinoConfig

K, SAMPLES = 16, 5
STUDENT, TEACHER = 0.15, 0.06

Numbers = NDArray[np.float64]


def dino(**changes: Any) -> Dino:
    """One whose teacher has gone another way, and whose centres are not 0."""
    config = {
        "prototypes": K, "hidden": 32, "bottleneck": 8, "student_temperature": STUDENT,
        "teacher_temperature": [TEACHER, TEACHER], **changes,
    }  # fmt: skip
    learnt = Dino(DinoConfig.model_validate(config), model(vision=vision(class_token=True)))
    with torch.no_grad():
        for weight in (*learnt.teacher.copy.parameters(), learnt.mask):
            weight.add_(0.3 * weight.abs().mean().clamp(min=0.1) * torch.randn(weight.shape))
        learnt.view_centre.normal_(std=0.02)
        learnt.patch_centre.normal_(std=0.02)
    return learnt


def made() -> Batch:
    """Views and crops of which no two are alike."""
    draw = torch.Generator().manual_seed(5)
    return batch(
        SAMPLES, views=torch.randn(SAMPLES, 2, 3, 32, 32, generator=draw),
        crops=torch.randn(SAMPLES, 2, 3, 16, 16, generator=draw),
    )  # fmt: skip


def wide(values: Tensor) -> Numbers:
    return values.detach().double().numpy()


def shares(logits: Numbers, temperature: float) -> Numbers:
    raised: Numbers = np.exp((logits - logits.max()) / temperature)
    found: Numbers = raised / raised.sum()
    return found


def surprise(told: Numbers, logits: Numbers) -> float:
    """What the student, whose logits these are, is surprised by."""
    return float(-(told * np.log(shares(logits, STUDENT))).sum())


def of_views(learnt: Dino, of: Batch, hidden: NDArray[np.bool_]) -> float:
    """Mean over samples and pairs of a whole view that is told and any other that says."""
    assert of.views is not None
    assert of.crops is not None
    centre, found = wide(learnt.view_centre), []
    for sample in range(SAMPLES):
        pictures = [of.views[sample, 0], of.views[sample, 1], *of.crops[sample]]
        told, said = [], []
        for number, picture in enumerate(pictures):
            replaced = None
            if number < 2:
                row = torch.from_numpy(hidden[number, sample])[None]
                replaced = Replaced(row, learnt.mask)
                teacher = learnt.teacher.copy
                logits = teacher.of_views(teacher.vision(picture[None]).pooled)[0]
                told.append(shares(wide(logits) - centre, TEACHER))
            student = learnt.student
            pooled = student.vision(picture[None], replaced=replaced).pooled
            said.append(wide(student.of_views(pooled)[0]))
        found += [
            surprise(told[one], said[other])
            for one in range(2)
            for other in range(len(pictures))
            if other != one
        ]
    return float(np.mean(found))


def of_patches(learnt: Dino, of: Batch, hidden: NDArray[np.bool_]) -> float:
    """Mean over views that hide something of the mean over what they hide."""
    assert of.views is not None
    centre, found = wide(learnt.patch_centre), []
    for view in range(2):
        for sample in range(SAMPLES):
            places = np.flatnonzero(hidden[view, sample])
            if not len(places):
                continue
            picture, row = of.views[sample, view][None], torch.from_numpy(hidden[view, sample])
            student, teacher = learnt.student, learnt.teacher.copy
            seen = student.vision(picture, replaced=Replaced(row[None], learnt.mask)).tokens[0]
            true = teacher.vision(picture).tokens[0]
            found.append(
                np.mean(
                    [
                        surprise(
                            shares(wide(teacher.of_patches(true[place])) - centre, TEACHER),
                            wide(student.of_patches(seen[place])),
                        )
                        for place in map(int, places)
                    ]
                )
            )
    return float(np.mean(found))


def of_neighbours(learnt: Dino, of: Batch, hidden: NDArray[np.bool_]) -> float:
    """KoLeo of the trunk's vectors, of both whole views together."""
    assert of.views is not None
    whole = 0.0
    for view in range(2):
        replaced = Replaced(torch.from_numpy(hidden[view]), learnt.mask)
        vectors = wide(learnt.student.vision(of.views[:, view], replaced=replaced).pooled)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for one in range(SAMPLES):
            others = [np.linalg.norm(unit[one] - unit[two]) for two in range(SAMPLES) if two != one]
            whole -= math.log(min(others)) / SAMPLES
    return whole


@pytest.mark.parametrize("head", ["shared", "own"])
def test_it_is_what_the_papers_say_of_every_pair_patch_and_neighbour(head: str) -> None:
    learnt, of = dino(patch_head=head, patch_weight=0.7, koleo_weight=0.3), made()
    rows = learnt._hidden(made(), SAMPLES)
    hidden = rows.view(2, SAMPLES, -1).numpy()
    assert 0 < hidden.any(axis=2).sum() < 2 * SAMPLES

    outcome = learnt(of)

    with torch.no_grad():
        views, patches, near = (
            term(learnt, of, hidden) for term in (of_views, of_patches, of_neighbours)
        )
    assert float(outcome.metrics["views"]) == pytest.approx(views, rel=1e-4)
    assert float(outcome.metrics["patches"]) == pytest.approx(patches, rel=1e-4)
    assert float(outcome.metrics["koleo"]) == pytest.approx(near / 2, rel=1e-4, abs=1e-5)
    assert float(outcome.loss.detach()) == pytest.approx(
        views + 0.7 * patches + 0.3 * near, rel=1e-4
    )
