"""How fast the field's large recipes train on this GPU, and that their losses fall.

Each row is a recipe of the package at its published size: steps on one batch that lies on the
device (reading data is not measured), in the recipe's precision. MFU is the model's own arithmetic,
counted by torch for one forward and backward pass, a second over what the card's data sheet
promises in bfloat16; passes that GradCache makes again do not count. A short run on the embedded
world beside it has its loss curve drawn, at a learning rate as much smaller as the batch; whether
an objective learns is `make gates`' to say. Writes benchmarks/results/training-gpu.md and the
curves.

    make bench-gpu
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from machine import PEAK_TFLOPS, heading
from tectum_train.engine.accumulation import backward, division
from tectum_train.engine.batches import BatchMaker
from tectum_train.engine.building import build, open_samples
from tectum_train.engine.optimiser import optimiser_for
from tectum_train.engine.progress import say
from tectum_train.engine.run import repeat_exactly, train
from tectum_train.engine.stepping import take_step
from tectum_train.objectives import Batch, WeightedSum
from tectum_train.recipe import Recipe, read_recipe
from tectum_train.tasks import ManyTasks

WORLD = Path(__file__).parents[1] / "worlds" / "embedded"
RESULTS = Path(__file__).parent / "results"
COUNTED = 8
"""Samples of the pass whose arithmetic is counted."""
LARGE = "{width: 1024, depth: 24, heads: 16, hidden: 4096}"


@dataclass(frozen=True)
class Row:
    """One recipe at one size."""

    name: str
    recipe: str
    batch: int
    micro_batch: int | None = None
    changes: tuple[str, ...] = ()
    rising: tuple[tuple[str, float], ...] = ()
    """Fields that count steps in which something rises, and which share of a run they are."""


ROWS = (
    Row("MAE ViT-B/16", "mae", 512),
    Row("MAE ViT-L/16", "mae", 256, changes=(f"model.vision.transformer={LARGE}",)),
    Row("CLIP ViT-B/32, GradCache", "clip", 4096, 512),
    Row(
        "DINOv2 ViT-S/16",
        "dino",
        64,
        changes=("objectives.dino.frozen_steps=0",),  # an epoch is more than the short run
        rising=(("objectives.dino.teacher_steps", 0.3), ("objectives.dino.momentum_steps", 1.0)),
    ),
)


@dataclass(frozen=True)
class Found:
    """What was seen of a row."""

    row: Row
    batch: int
    parameters: int
    images_per_second: float
    tflops: float
    """A second, of the model's own arithmetic."""
    memory: float
    """GiB at most, on a GPU."""
    losses: list[tuple[int, float]]
    """Step and loss of the short run."""


def recipe_of(row: Row, batch: int, steps: int, folder: Path) -> Recipe:
    """The row's recipe on the embedded world, short."""
    published = read_recipe(row.recipe)
    lr = published.optimiser.lr * min(1.0, batch / published.schedule.batch_size)
    micro = row.micro_batch if row.micro_batch and batch > row.micro_batch else None
    return read_recipe(
        row.recipe,
        [
            f"data.train={WORLD / 'train'}",
            f"data.test={WORLD / 'test'}",
            f"data.cache={folder / 'frames'}",
            f"schedule.batch_size={batch}",
            f"schedule.micro_batch={'null' if micro is None else micro}",
            f"schedule.steps={steps}",
            f"schedule.warmup_steps={max(1, steps // 10)}",
            f"optimiser.lr={lr}",
            f"output={folder / 'runs'}",
            *row.changes,
            *(f"{field}={max(1, round(share * steps))}" for field, share in row.rising),
        ],
    )


def arithmetic(recipe: Recipe, batch: Batch, objective: WeightedSum | ManyTasks) -> float:
    """Floating-point operations of one sample's forward and backward pass."""
    few = batch.part(0, COUNTED)
    low = recipe.precision == "bfloat16"
    with FlopCounterMode(display=False) as counter:
        backward(
            objective,
            few,
            1,
            lambda: torch.autocast(few.earlier.device.type, torch.bfloat16, enabled=low),
        )
    objective.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / COUNTED


def measure(row: Row, batch: int, steps: int, short: int, device: str, console: Console) -> Found:
    """Time some steps, and train a little."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        recipe = recipe_of(row, batch, max(short, 1), folder)
        samples = open_samples(recipe, "train", lambda *_: None)
        repeat_exactly()  # as every run does
        torch.manual_seed(0)
        run = build(recipe, samples, folder)
        objective = run.objective.to(device)
        maker = BatchMaker(recipe, samples, run.tokenizer, run.scaling, torch.device(device))
        given = maker.make(0)
        each = arithmetic(recipe, given, objective)
        adam, pieces = optimiser_for(objective, recipe.optimiser), division(recipe)
        parameters = sum(one.numel() for one in objective.parameters() if one.requires_grad)
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        seconds: list[float] = []
        for number in range(2 + steps):
            wait(device)
            began = time.perf_counter()
            take_step(number, fresh(given), objective, adam, 1e-5, recipe, pieces)
            wait(device)
            seconds.append(time.perf_counter() - began)
        rate = batch * steps / sum(seconds[2:])
        memory = 0.0 if device == "cpu" else torch.cuda.max_memory_allocated() / 2**30
        del objective, adam, run, given
        losses = curve(recipe, device, console) if short else []
    return Found(row, batch, parameters, rate, rate * each / 1e12, memory, losses)


def fresh(batch: Batch) -> Batch:
    """The same samples, without what was computed of them."""
    return replace(batch.part(0, len(batch)), generator=batch.generator)


def wait(device: str) -> None:
    """Until the device has done all."""
    if device != "cpu":
        torch.cuda.synchronize()


def curve(recipe: Recipe, device: str, console: Console) -> list[tuple[int, float]]:
    """Train the recipe; gives what its losses were."""
    run = train(recipe, device, console=console)
    with (run.folder / "metrics.jsonl").open() as lines:
        told = [json.loads(line) for line in lines]
    return [(int(line["step"]), float(line["loss"])) for line in told]


def draw(found: Sequence[Found], path: Path) -> None:
    """Loss curves, one picture."""
    figure = Figure(figsize=(4 * len(found), 3), layout="constrained")
    for axis, one in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        axis.plot(*zip(*one.losses, strict=True))
        axis.set_title(f"{one.row.name}, batch {one.batch}")
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
    figure.savefig(path, dpi=110)


def table(found: Sequence[Found], peak: float | None) -> str:
    """The rows as Markdown."""
    lines = [
        "| recipe | parameters | batch | images/s | TFLOP/s | MFU | GiB | loss, first → last |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        share = "not known" if peak is None else f"{one.tflops / peak:.1%}"
        ends = f"{one.losses[0][1]:.3f} → {one.losses[-1][1]:.3f}" if one.losses else "no run"
        pieces = f" in {one.row.micro_batch}s" if one.row.micro_batch else ""
        lines.append(
            f"| {one.row.name} | {one.parameters / 1e6:.0f} M | {one.batch}{pieces} | "
            f"{one.images_per_second:.1f} | {one.tflops:.2f} | {share} | {one.memory:.1f} | "
            f"{ends} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--row", type=int, action="append", help="number of a row, from 0; all")
    parser.add_argument("--batch", type=int, help="in place of each row's")
    parser.add_argument("--steps", type=int, default=10, help="that are timed")
    parser.add_argument("--short", type=int, default=150, help="steps of the short run; 0: none")
    parser.add_argument("--out", type=Path, default=RESULTS / "training-gpu.md")
    given = parser.parse_args()
    console = Console(stderr=True)
    if given.device != "cpu" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu --batch 8 --steps 1 --short 0 tries it")
    name = "" if given.device == "cpu" else torch.cuda.get_device_name()
    peak = PEAK_TFLOPS.get(name)
    found: list[Found] = []
    for number in given.row if given.row is not None else range(len(ROWS)):
        row = ROWS[number]
        say(console, f"{row.name}: {row.recipe}")
        batch = given.batch or row.batch
        found.append(measure(row, batch, given.steps, given.short, given.device, console))
        given.out.write_text(report(found, peak, given.out), encoding="utf-8")
    print(given.out.read_text(encoding="utf-8"))


def report(found: Sequence[Found], peak: float | None, path: Path) -> str:
    """The whole file; beside it, its picture."""
    drawn = [one for one in found if one.losses]
    picture = path.with_suffix(".png")
    if drawn:
        draw(drawn, picture)
    shown = f"\n![Losses of the short runs]({picture.name})\n" if drawn else ""
    promised = "not known" if peak is None else f"{peak:.0f} TFLOP/s in bfloat16"
    return (
        f"{heading('Training on a GPU')}\nOne batch on the device, forward, backward and descent; "
        f"peak by the data sheet: {promised}. Short runs: the embedded world's frames.\n\n"
        f"{table(found, peak)}{shown}"
    )


if __name__ == "__main__":
    main()
