"""What a run's own objectives can do: measured where there are any that no bundle keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.training.engine.runs import trained
from tests.training.tiny import job, parts

from tectum_train.engine.building import Run, open_samples
from tectum_train.evaluation.temporal import CHANCE, RANDOM
from tectum_train.evaluation.trained import measure_objectives


def made(data: Path, folder: Path, **changes: Any) -> Run:
    model = parts(**dict.fromkeys(("pixel_decoder", "fusion", "actions", "latent_action")))
    return trained(job(data, folder, model=model, data__action=None, data__state=None, **changes))


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
