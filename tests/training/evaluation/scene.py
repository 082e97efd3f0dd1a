"""Data sets without files, in which every number and pixel is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tectum_core.bundle import Part, TrainingSummary
from tectum_train.data import LeRobotDataset
from tectum_train.data.samples import Samples
from tectum_train.engine.states import StateFeatures
from tectum_train.evaluation.measuring.context import Columns, Context
from tectum_train.world import World

__all__ = ["FPS", "context", "recorded", "taught", "world"]

FPS = 80


def recorded(
    lengths: Sequence[int],
    columns: Mapping[str, NDArray[Any]],
    frames: NDArray[np.uint8] | None = None,
    instructions: Sequence[str] = ("do it",),
    root: Path | None = None,
    fps: float = FPS,
) -> Samples:
    """A data set of episodes; its columns hold all of them, `root` no more than its meta/."""
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    whole = {"task_index": np.zeros(total, np.int64), **columns}
    dataset = SimpleNamespace(
        root=root,
        info=SimpleNamespace(fps=fps),
        tasks=list(instructions),
        episodes=[
            SimpleNamespace(index=number, length=length, dataset_to_index=int(end))
            for number, (length, end) in enumerate(zip(lengths, ends, strict=True))
        ],
        read_columns=lambda episode, pictures: {
            name: values[ends[episode] - lengths[episode] : ends[episode]]
            for name, values in whole.items()
        },
    )
    pictures = np.zeros((total, 2, 2, 3), np.uint8) if frames is None else frames
    return Samples(cast("LeRobotDataset", dataset), pictures)


def world(partners: Mapping[str, str | None]) -> World:
    """Families by name, each with one sentence to train on and one held out."""
    return World.model_validate(
        {
            "families": [
                {"index": index, "name": name, "partner": partner}
                for index, (name, partner) in enumerate(partners.items())
            ],
            "instructions": [
                {"text": text, "family": name, "held_out": text.startswith("new")}
                for name in partners
                for text in (f"old {name}", f"new {name}")
            ],
        }
    )


def context(train: Samples, test: Samples, **changes: Any) -> Context:
    """An evaluation of whatever predictor is given, or of none."""
    twins = (changes.pop("twin", None),)
    given = {
        "predictor": None, "twins": twins, "train": train, "test": test,
        "world": world({"left": None}), "columns": Columns("state", "action"), "pair_steps": 2,
        "shown": StateFeatures("state"), **changes,
    }  # fmt: skip
    return Context(**given)


def taught(*untrained: Part) -> TrainingSummary:
    """Of a training that reached all but these parts."""
    return TrainingSummary(recipe="", data="", steps=0, seed=0, commit="", untrained=untrained)
