"""From a finished run to a bundle: golden outputs, training summary, model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path

from pydantic import BaseModel
from safetensors import SafetensorError

from tectum_core.bundle import Bundle, read_bundle, write_bundle
from tectum_core.bundle.config import PARTS
from tectum_core.golden import LONGEST_TEXT, TEXTS, check_golden, make_golden
from tectum_core.golden_inputs import golden_inputs
from tectum_core.predictor import Predictor
from tectum_train.data.errors import DataError
from tectum_train.data.metadata import read_info, read_tasks
from tectum_train.engine.building import Run
from tectum_train.recipe import expanded
from tectum_train.tasks import TasksConfig
from tectum_train.world import read_world

__all__ = ["as_bundle", "export"]

_UNITS = {"initial": "the first steps", "chance": "chance"}
_LONGEST_FACT = 300
"""Characters of what a data set says about itself."""


def as_bundle(run: Run, instructions: list[str], metrics: Mapping[str, float]) -> Bundle:
    """The run in memory as a bundle, without golden outputs."""
    summary = run.config.training.model_copy(update={"metrics": dict(metrics)})
    config = run.config.model_copy(update={"training": summary})
    # Data of a single task have fewer instructions than there are golden pictures: they repeat.
    few = islice(cycle(instructions), TEXTS if run.tokenizer is not None else 0)
    texts = tuple(text[:LONGEST_TEXT] for text in few)
    return Bundle(run.recipe.name, "", config, run.model, run.tokenizer, {}, texts, "")


def export(
    run: Run, instructions: list[str], metrics: Mapping[str, float], table: str, folder: Path
) -> str:
    """Write the run's bundle, prove that it reproduces its golden outputs, and give its version.

    Args:
        run: a finished run.
        instructions: of its data; the first few become golden inputs.
        metrics: held-out numbers for the training summary.
        table: the evaluation as Markdown, for the card.
        folder: must not exist yet.

    Raises:
        OSError: it cannot be written; says why.
    """
    bundle = as_bundle(run, instructions, metrics)
    golden = make_golden(bundle, golden_inputs(bundle), bundle.golden_texts)
    try:
        version = write_bundle(
            folder,
            bundle.config,
            bundle.model,
            bundle.tokenizer,
            golden,
            bundle.golden_texts,
            _card(run, bundle, table),
        )
    except SafetensorError as error:  # such as a full disk
        raise OSError(f"{folder} cannot be written: {error}") from error
    check_golden(Predictor(read_bundle(folder, run.recipe.name, version)))
    return version


def _card(run: Run, bundle: Bundle, table: str) -> str:
    """What is true of this bundle; the recipe's description has another run's numbers."""
    recipe = run.recipe
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    left = ", ".join(PARTS[part] for part in bundle.config.training.untrained)
    objectives = ", ".join(f"{c.kind} × {c.weight:g}" for c in recipe.objectives)
    together = "" if recipe.tasks is None else f"\n| learnt together | {_together(recipe.tasks)} |"
    spaces = "\n".join(f"- `{s.name}`: `{s.space_id}`, {s.width} numbers" for s in bundle.spaces)
    return f"""# {recipe.name}

| | |
| --- | --- |
| recipe | {recipe.derived_from or recipe.name} |
| parameters | {parameters:,} |
| input | {recipe.images.size}×{recipe.images.size} pixels |
| objectives | {objectives} |{together}
| not trained, not served | {left or "nothing"} |
| training data | {_data(recipe.data.train)} |
| steps × batch | {recipe.schedule.steps} × {recipe.schedule.batch_size} |
| seed, commit | {recipe.seed}, {run.config.training.commit or "unknown"} |

## Spaces

{spaces}

## Held-out evaluation

{table.strip()}
"""


def _together(tasks: TasksConfig) -> str:
    """How several objectives learnt: their weights, units, turns, and what they shared."""
    facts = [f"weights {_named(tasks.weighting)}"]
    if tasks.normalise != "none":
        facts.append(f"losses in units of {_UNITS[tasks.normalise]}")
    if tasks.alternate is not None:
        facts.append(f"by turns {' → '.join(tasks.alternate.pattern)}")
    if tasks.sharing is not None:
        facts.append(f"a trunk each, {_named(tasks.sharing)}")
    return "; ".join(facts)


def _named(section: BaseModel) -> str:
    """A section's kind, with its other settings."""
    settings = section.model_dump(exclude={"kind"}).items()
    told = ", ".join(f"{key} {value}" for key, value in settings)
    kind = str(section.model_dump()["kind"])
    return f"{kind} ({told})" if told else kind


def _data(train: str) -> str:
    """The folder, how much is in it, and what generated it, as far as it says so."""
    root = expanded(train)
    info, sentences = read_info(root), len(read_tasks(root))
    try:
        families = len(read_world(root).families)
    except DataError:  # no reason to lose a whole training at its end
        families = 0
    tasks = f"{families:,} tasks ({sentences:,} sentences)"
    facts = [
        f"{train}: {info.total_episodes:,} episodes, {info.total_frames:,} frames, "
        + (tasks if families else f"{sentences:,} instructions")
    ]
    world = root / "meta" / "world.json"
    try:
        told = json.loads(world.read_text(encoding="utf-8")) if world.is_file() else {}
    except ValueError:
        told = {}
    for words, key in (("generator", "generator_version"), ("its seed", "seed"), ("by", "command")):
        if isinstance(told, dict) and isinstance(told.get(key), str | int):
            fact = " ".join(str(told[key]).replace("|", " ").split())
            facts.append(f"{words} {fact[:_LONGEST_FACT]}")
    return "; ".join(facts)
