"""What the rows' rules read is what evaluation measures: names, controls and rules in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.bundles import stack
from tests.training.engine.runs import trained
from tests.training.tiny import (
    INTERVAL_STEPS,
    code_shape,
    image_tokenizer,
    job,
    latent_action,
    video,
    vision_alone,
)

from gates_rows import ROWS, Row
from gates_rules import Line, Rule, Unmeasured
from tectum_core.architecture import TransformerDynamicsConfig, VqBottleneck
from tectum_train.evaluation.latent_action import ceiling
from tectum_train.evaluation.latent_action.ceiling import Supervised
from tectum_train.evaluation.measuring import probes
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.trunk import neighbours
from tectum_train.job import evaluate_run, fitting_splits

pytestmark = pytest.mark.slow

MANY = [
    {"kind": "image_text"},
    {"kind": "masked_image", "text_share": 1},
    {"kind": "masked_language", "image_share": 1},
    {"kind": "masked_action", "image_share": 1},
    {"kind": "action_prediction"},
    {"kind": "latent_action", "decode_weight": 0.2},
    {"kind": "world_model", "decode_weight": 0.2},
    {"kind": "cpc", "horizons": 4},
    {"kind": "dino", "prototypes": 16, "hidden": 32, "bottleneck": 16},
    {"kind": "r3m"},
]
PICTURES = [
    {"kind": "image_codes", **code_shape()},
    {"kind": "beit", "tokenizer": str(image_tokenizer())},
    {"kind": "video_mae"},
]
TOKENS = latent_action(
    dynamics=TransformerDynamicsConfig(transformer=stack(), source="trunk"),
    bottleneck=VqBottleneck(codes=2, codebook_size=4, code_width=8), target="latents",
    decoded_steps=0,
)  # fmt: skip


def of_run(data: Path, folder: Path, *, labelled: bool = False, **changes: Any) -> list[Measure]:
    recipe, quiet = job(data, folder, schedule__steps=2, **changes), Console(quiet=True)
    return evaluate_run(
        trained(recipe), fitting_splits(recipe, quiet), "cpu", quiet,
        supervised=Supervised() if labelled else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[Measure]]:
    """What is measured of three runs, which together learn all that rows do."""
    with pytest.MonkeyPatch.context() as patch:
        for steps in ("_STEPS", "_FEW_STEPS"):
            patch.setattr(ceiling, steps, 2)
        patch.setattr(neighbours, "_DRAWS", 1)
        patch.setattr(probes, "_MOST_STEPS", 10)
        return [
            of_run(
                tiny_data, tmp_path_factory.mktemp("many"), objectives=MANY, labelled=True,
                data__clip={"frames": 5, "steps": INTERVAL_STEPS},
            ),
            of_run(
                tiny_data, tmp_path_factory.mktemp("pictures"), objectives=PICTURES,
                model={**vision_alone(), **video()},
            ),
            of_run(
                tiny_data, tmp_path_factory.mktemp("tokens"),
                objectives=[
                    {"kind": "latent_action", "encoder": "detached"}, {"kind": "masked_image"},
                ],
                model={**vision_alone(), "latent_action": TOKENS},
            ),
        ]  # fmt: skip


def judged(rule: Rule, measures: list[Measure]) -> list[Line]:
    try:
        return rule.judge(measures, dict.fromkeys(rule.rows, measures))
    except Unmeasured:
        return []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_rule_reads_what_is_measured_and_knows_evaluations_own(
    row: Row, runs: list[list[Measure]]
) -> None:
    for rule in row.rules:
        found = [lines for measures in runs if (lines := judged(rule, measures))]

        assert found, rule
        assert any(not any(line.outdated for line in lines) for lines in found), rule
