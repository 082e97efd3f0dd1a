"""Every measure of a bundle, in one go, and as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tectum_core.bundle import Bundle
from tectum_core.predictor import Predictor
from tectum_train.data.samples import Samples
from tectum_train.evaluation.ceiling import measure_ceiling
from tectum_train.evaluation.context import Context, random_twin
from tectum_train.evaluation.latent import measure_latent_actions
from tectum_train.evaluation.masked import (
    measure_masked_actions,
    measure_masked_images,
    measure_masked_words,
)
from tectum_train.evaluation.measure import Measure
from tectum_train.evaluation.retrieval import measure_retrieval
from tectum_train.world import read_world

__all__ = ["as_json", "evaluate", "flat", "markdown"]


def evaluate(
    bundle: Bundle,
    train: Samples,
    test: Samples,
    root: Path,
    seed: int = 0,
    ceiling: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Measure]:
    """All measures that the bundle has a head for.

    Args:
        bundle: under test.
        train, test: the data set's two splits at the bundle's input size.
        root: the test split's folder, for its world.json.
        seed: of choices such as masks and shuffles.
        ceiling: also train the supervised ceiling of latent actions.
        tell: called with what is being measured.
    """
    context = Context(
        predictor=Predictor(bundle),
        twin=random_twin(bundle, seed),
        train=train,
        test=test,
        world=read_world(root),
        state="observation.state",
        action="action",
        pair_steps=_pair_steps(bundle, test),
        seed=seed,
    )
    measures: list[Measure] = []
    if bundle.config.model.joint is not None:
        tell("retrieval")
        measures += measure_retrieval(context)
    for name, measure in (
        ("masked images", measure_masked_images),
        ("masked words", measure_masked_words),
        ("masked actions", measure_masked_actions),
        ("latent actions", measure_latent_actions),
    ):
        tell(name)
        measures += measure(context)
    if ceiling:
        tell("the supervised ceiling")
        measures += measure_ceiling(context)
    return measures


def flat(measures: Sequence[Measure]) -> dict[str, float]:
    """Names and values, for a training summary."""
    return {measure.name: round(measure.value, 4) for measure in measures}


def as_json(measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """For a file."""
    return [{**asdict(measure), "controls": dict(measure.controls)} for measure in measures]


def markdown(runs: Sequence[Sequence[Measure]]) -> str:
    """A table over one run or several seeds: value, controls, gate, verdict."""
    lines = ["| measure | value | controls | gate | |", "| --- | --- | --- | --- | --- |"]
    for row in zip(*runs, strict=True):
        first = row[0]
        controls = "; ".join(
            f"{name} {_spread([m.controls[name] for m in row])}" for name in first.controls
        )
        verdict = ""
        if first.passed is not None:
            good = sum(bool(measure.passed) for measure in row)
            verdict = "PASS" if good == len(row) else f"FAIL ({good} of {len(row)} pass)"
        value = _spread([measure.value for measure in row])
        lines.append(f"| {first.name} | {value} | {controls} | {first.gate} | {verdict} |")
    return "\n".join(lines) + "\n"


def _pair_steps(bundle: Bundle, samples: Samples) -> int:
    """The model's interval in the data set's steps."""
    latent = bundle.config.model.latent_action
    return 1 if latent is None else max(1, round(latent.interval * samples.dataset.info.fps))


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{mean(values):.3f} ± {stdev(values):.3f}"
