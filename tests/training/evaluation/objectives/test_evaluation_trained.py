"""What a run's own objectives can do: measured where there are any that no bundle keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.bundles import vision
from tests.training.engine.runs import trained
from tests.training.tiny import job, parts

from tectum_train.engine.building import Run, open_samples
from tectum_train.evaluation.objectives import trained as trained_objectives
from tectum_train.evaluation.objectives.temporal import CHANCE, RANDOM
from tectum_train.evaluation.objectives.trained import measure_objectives


def alone(**changes: Any) -> dict[str, Any]:
    """Trunks and a joint space."""
    nothing = dict.fromkeys(("pixel_decoder", "fusion", "actions", "latent_action"))
    return parts(**nothing, **changes)


def made(data: Path, folder: Path, **changes: Any) -> Run:
    given = {"model": alone(), "data__action": None, "data__state": None, **changes}
    return trained(job(data, folder, **given))


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of both, with a trunk each."""
    return made(
        tiny_data, tmp_path_factory.mktemp("both"),
        objectives=[{"kind": "cpc", "horizons": 2}, {"kind": "r3m"}],
        tasks={"sharing": {"kind": "distance", "served": "cpc"}},
    )  # fmt: skip


def test_both_are_measured_beside_random_weights_and_chance(run: Run) -> None:
    told = list[str]()

    found = measure_objectives(run, open_samples(run.recipe, "test", lambda *_: None), told.append)

    names = {measure.name: measure for measure in found}
    assert told == ["cpc", "r3m"]
    assert {"frame 1 ahead, nats", "frame 2 ahead, nats", "three moments aligned"} <= set(names)
    assert {CHANCE, RANDOM} <= set(names["frame 2 ahead among its clip's, accuracy"].controls)
    assert {CHANCE, RANDOM} <= set(names["three moments aligned"].controls)


def test_a_teacher_is_asked_what_it_says_of_pictures_and_patches(
    tiny_data: Path, tmp_path: Path
) -> None:
    run = made(
        tiny_data, tmp_path, objectives=[{"kind": "dino", "prototypes": 16, "bottleneck": 8}],
        model=alone(vision=vision(class_token=True, pooling="class")),
    )  # fmt: skip
    test = open_samples(run.recipe, "test", lambda *_: None)

    found = measure_objectives(run, test)

    assert [one.name for one in found] == [
        "teacher's entropy of a view, nats", "teacher's entropy of a patch, nats",
    ]  # fmt: skip
    assert all(RANDOM in one.controls for one in found)
    assert found[0].value != found[0].controls[RANDOM]
    assert found == measure_objectives(run, test)


def test_so_many_batches_are_asked_as_have_about_512_samples_and_a_twin_that_nobody_taught(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, compared = list[int](), list[tuple[Any, Any]]()

    def held_out(*given: Any) -> list[Any]:
        asked.append(given[4])
        return []

    def foresight(part: Any, twin: Any, _: Any) -> list[Any]:
        compared.extend([(part.model, twin.model), (part.heads, twin.heads)])
        return []

    def order(part: Any, twin: Any, *_: Any) -> list[Any]:
        compared.append((part.model, twin))
        return []

    monkeypatch.setattr(trained_objectives, "held_out", held_out)
    monkeypatch.setattr(trained_objectives, "measure_foresight", foresight)
    monkeypatch.setattr(trained_objectives, "measure_order", order)
    measure_objectives(run, open_samples(run.recipe, "test", lambda *_: None))

    assert asked == [64, 64]  # of 8 each, for both objectives
    assert len(compared) == 3
    for own, twin in compared:
        ours, theirs = (dict(one.named_parameters()) for one in (own, twin))
        assert ours.keys() == theirs.keys()
        assert not any(torch.equal(ours[name], theirs[name]) for name in ours if "embed" in name)
        assert any(not torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_comes_out_the_same_again(run: Run) -> None:
    test = open_samples(run.recipe, "test", lambda *_: None)

    assert measure_objectives(run, test) == measure_objectives(run, test)


def test_what_cannot_be_measured_is_said(run: Run, tiny_data: Path) -> None:
    said = list[str]()
    test = open_samples(run.recipe, "test", lambda *_: None)
    test.last[:] = range(len(test))  # no frame has another one behind it,
    test.frames = np.zeros_like(test.frames)  # and none is another than the others

    found = measure_objectives(run, test, left_out=said.append)

    assert found == []
    assert [line.partition(":")[0] for line in said] == ["cpc", "r3m"]


def test_other_objectives_have_bundles_for_that(tiny_data: Path, tmp_path: Path) -> None:
    run = made(tiny_data, tmp_path, objectives=[{"kind": "image_text"}])

    assert measure_objectives(run, open_samples(run.recipe, "test", lambda *_: None)) == []
