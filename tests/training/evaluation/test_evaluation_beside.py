"""What a bundle leaves out is measured at the end of the run that trained it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.training.tiny import (
    INTERVAL_STEPS,
    code_shape,
    image_tokenizer,
    job,
    video,
    vision_alone,
)

from tectum_core.bundle import read_bundle
from tectum_train.job import run_job

NAMES = {
    "image_codes": [
        "image codes, share of 16 in use",
        "image codes, perplexity",
        "image codes, painted picture's error ÷ mean patch of each place",
    ],
    "beit": ["masked code, accuracy"],
    "video_mae": ["masked clip, error ÷ predicting zero"],
}
CLIP = {"frames": 4, "steps": INTERVAL_STEPS}


def settings(kind: str) -> dict[str, Any]:
    if kind == "beit":
        return {"kind": kind, "tokenizer": str(image_tokenizer())}
    return {"kind": kind, **(code_shape() if kind == "image_codes" else {})}


@pytest.mark.parametrize("kind", NAMES)
def test_a_run_is_measured_by_what_it_was_trained_for(
    kind: str, tiny_data: Path, tmp_path: Path
) -> None:
    recipe = job(
        tiny_data, tmp_path, model={**vision_alone(), **(video() if kind == "video_mae" else {})},
        objectives=[settings(kind)], data__clip=CLIP, schedule__steps=2,
    )  # fmt: skip

    left = run_job(recipe, "cpu", False, True, None, Console(quiet=True))

    measured = json.loads((recipe.folder / "evaluation.json").read_text())
    names = [one["name"] for one in measured]
    own = {name for expected in NAMES.values() for name in expected}
    assert [name for name in names if name in own] == NAMES[kind]
    assert all(math.isfinite(one["value"]) for one in measured)
    assert all(math.isfinite(value) for one in measured for value in one["controls"].values())
    assert left is not None
    metrics = read_bundle(left[0], "made").config.training.metrics
    assert list(metrics) == names
