"""Measures in TensorBoard: read back as it reads them."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from tensorboard.plugins.custom_scalar import layout_pb2  # type: ignore[import-untyped]
from tests.training.tiny import job

from tectum_train.engine.progress import RunProgress
from tectum_train.evaluation.board import write_board
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.job import run_job

HAND = "latent action (16) over 0.0625 s → hand in plane, R²"


def read(folder: Path) -> Any:
    return EventAccumulator(str(folder)).Reload()


def scalars(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Steps and values, by tag; values to single precision."""
    found = read(folder)
    return {
        tag: [(one.step, pytest.approx(one.value)) for one in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def charts(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Regular expressions, by heading and chart."""
    (event,) = read(folder).Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    return {
        category.title: {chart.title: list(chart.multiline.tag) for chart in category.chart}
        for category in layout.category
    }


def test_every_measure_and_its_controls_are_scalars_of_the_last_step(tmp_path: Path) -> None:
    measures = [
        Measure("R@1", 0.7, {"chance": 0.1}, part="retrieval"),
        Measure(HAND, 0.8, {"random init": 0.2}, part="latent actions"),
    ]

    write_board(tmp_path, 700, measures)

    assert scalars(tmp_path / "tensorboard" / "evaluation") == {
        "retrieval/R@1/measured": [(700, 0.7)],
        "retrieval/R@1/chance": [(700, 0.1)],
        f"latent actions/{HAND}/measured": [(700, 0.8)],
        f"latent actions/{HAND}/random init": [(700, 0.2)],
    }


def test_a_chart_a_measure_holds_its_numbers_and_no_others(tmp_path: Path) -> None:
    measures = [
        Measure("R@1", 0.7, {"chance": 0.1}, part="retrieval"),
        Measure("R@10", 0.9, {"chance": 0.4}, part="retrieval"),
        Measure(HAND, 0.8, {"random init": 0.2}, part="latent actions"),
    ]

    write_board(tmp_path, 700, measures)

    folder = tmp_path / "tensorboard" / "evaluation"
    found, tags = charts(folder), scalars(folder)
    assert {part: list(inside) for part, inside in found.items()} == {
        "retrieval": ["R@1", "R@10"], "latent actions": [HAND],
    }  # fmt: skip
    for part, inside in found.items():
        for name, patterns in inside.items():
            shown = {tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)}
            assert shown == {tag for tag in tags if tag.startswith(f"{part}/{name}/")}


def test_what_is_measured_again_stands_once(tmp_path: Path) -> None:
    write_board(tmp_path, 10, [Measure("R@1", 0.1, part="retrieval")])
    write_board(tmp_path, 10, [Measure("R@1", 0.2, part="retrieval")])

    found = scalars(tmp_path / "tensorboard" / "evaluation")

    assert found == {"retrieval/R@1/measured": [(10, 0.2)]}


def test_a_job_leaves_its_evaluation_and_the_curves_of_its_training(
    tiny_data: Path, tmp_path: Path
) -> None:
    objectives = [{"kind": "masked_language"}, {"kind": "masked_image"}]
    recipe = job(tiny_data, tmp_path, objectives=objectives, schedule__steps=2)

    run_job(recipe, "cpu", False, True, None, Console(quiet=True))

    found = scalars(recipe.folder / "tensorboard" / "evaluation")
    assert {step for values in found.values() for step, _ in values} == {2}
    for whose in ("measured", "shuffled picture", "no picture"):
        ((_, value),) = found[f"masked words/masked word, nats/{whose}"]
        assert math.isfinite(value.expected)
    assert {"masked words", "masked images"} <= charts(
        recipe.folder / "tensorboard" / "evaluation"
    ).keys()
    assert [step for step, _ in scalars(recipe.folder / "tensorboard")["loss"]] == [1, 2]


def test_what_was_recorded_before_a_run_was_taken_up_again_is_still_shown(tmp_path: Path) -> None:
    for done in (0, 2):
        with RunProgress(tmp_path, 4, done, 8, Console(quiet=True)) as progress:
            for step in (done + 1, done + 2):
                progress.record(step, {"loss": float(step)})
        time.sleep(1.01)  # files are read in the order of the second that names them

    assert scalars(tmp_path / "tensorboard")["loss"] == [
        (step, float(step)) for step in (1, 2, 3, 4)
    ]
