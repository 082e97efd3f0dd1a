"""A whole run: open the data, build the model, loop, checkpoint, and leave a bundle behind."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from tectum_core.model import PerceptionModel
from tectum_core.preprocess import ActionScaling
from tectum_core.tokenizer import Tokenizer
from tectum_train.augment import global_generator
from tectum_train.data.samples import Samples
from tectum_train.engine.batches import BatchMaker, Prefetch
from tectum_train.engine.checkpoint import load_checkpoint, save_checkpoint
from tectum_train.engine.optimiser import learning_rate, optimiser_for
from tectum_train.engine.progress import RunProgress
from tectum_train.objectives import WeightedSum, objective_for
from tectum_train.recipe import Recipe, expanded

__all__ = ["Interrupted", "Run", "open_samples", "train"]

_RECORD_EVERY = 20


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came, and everything done so far is saved."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run has made."""

    recipe: Recipe
    model: PerceptionModel
    tokenizer: Tokenizer | None
    scaling: ActionScaling | None
    folder: Path
    commit: str
    """The commit it was made at; empty if unknown."""


def open_samples(recipe: Recipe, split: str, progress: Callable[[int, int], None]) -> Samples:
    """The recipe's `train` or `test` data, its frames decoded and cached."""
    root = recipe.data.train if split == "train" else recipe.data.test
    return Samples.open(
        expanded(root),
        recipe.data.camera,
        recipe.images,
        expanded(recipe.data.cache),
        progress,
    )


def train(
    recipe: Recipe,
    device: str = "cpu",
    resume: bool = False,
    console: Console | None = None,
) -> Run:
    """Train to the recipe's last step.

    Args:
        recipe: the run.
        device: a torch device.
        resume: go on from the run's checkpoint, if there is one.
        console: where to show progress; None: standard error.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; the checkpoint is written.
        CheckpointError: the checkpoint is another recipe's.
        FileExistsError: the folder holds a run, and `resume` is off.
    """
    console = console or Console(stderr=True)
    folder = expanded(recipe.output) / f"{recipe.name}-seed{recipe.seed}"
    checkpoint = folder / "checkpoint.safetensors"
    if checkpoint.exists() and not resume:
        raise FileExistsError(f"{folder} holds a run already; resume it, or choose another output")
    folder.mkdir(parents=True, exist_ok=True)
    with console.status("reading the data set") as status:

        def tell(done: int, total: int) -> None:
            status.update(f"decoding frames once: {done} of {total}")

        samples = open_samples(recipe, "train", tell)
    torch.manual_seed(recipe.seed)
    run = _build(recipe, samples, folder)
    run.model.to(device)
    parts = [(c.weight, objective_for(c, run.model, run.tokenizer)) for c in recipe.objectives]
    objective = WeightedSum(parts).to(device)
    adam = optimiser_for(objective, recipe.optimiser)
    identity = recipe.identity()
    done = load_checkpoint(checkpoint, identity, objective, adam) if checkpoint.exists() else 0
    (folder / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n")
    maker = BatchMaker(recipe, samples, run.tokenizer, run.scaling, torch.device(device))
    batches = Prefetch(maker.make, done, recipe.schedule.steps)
    size = recipe.schedule.batch_size
    with (
        _interruptible() as interrupted,
        RunProgress(folder, recipe.schedule.steps, done, size, console) as progress,
    ):
        try:
            for step, batch, waited in batches:
                rate = learning_rate(step, recipe.optimiser.lr, recipe.schedule)
                for group in adam.param_groups:
                    group["lr"] = rate
                adam.zero_grad(set_to_none=True)
                autocast = torch.autocast(
                    torch.device(device).type,
                    torch.bfloat16,
                    enabled=recipe.precision == "bfloat16",
                )
                with global_generator, autocast:
                    # Codes that are drawn anew are a function of the step too.
                    torch.manual_seed(batch.generator.initial_seed())
                    outcome = objective(batch)
                outcome.loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(
                    objective.parameters(), recipe.optimiser.clip_norm
                )
                if not bool(torch.isfinite(norm)):
                    raise FloatingPointError(f"step {step}: the gradient is not finite")
                adam.step()
                objective.after_step()
                metrics = {name: float(value) for name, value in outcome.metrics.items()}
                metrics |= {"loss": outcome.loss.item(), "lr": rate, "gradient": float(norm)}
                last = step + 1 == recipe.schedule.steps
                progress.step(step, metrics, waited, last or step % _RECORD_EVERY == 0)
                stop = interrupted.is_set()
                if stop or last or (step + 1) % recipe.schedule.checkpoint_every == 0:
                    save_checkpoint(checkpoint, step + 1, identity, objective, adam)
                if stop and not last:
                    raise Interrupted(f"saved after step {step + 1} in {folder}")
        finally:
            batches.stop()
    run.model.cpu().eval()
    return run


def _build(recipe: Recipe, samples: Samples, folder: Path) -> Run:
    """Tokenizer from the instructions, scales from the actions, model from the recipe."""
    text = recipe.model.text
    tokenizer = (
        None if text is None else Tokenizer.train(samples.instructions, text.vocabulary_size)
    )
    return Run(
        recipe=recipe,
        model=PerceptionModel(recipe.model),
        tokenizer=tokenizer,
        scaling=None if recipe.model.actions is None else _scaling(recipe, samples),
        folder=folder,
        commit=_commit(),
    )


def _scaling(recipe: Recipe, samples: Samples) -> ActionScaling:
    fps = samples.dataset.info.fps

    def summary(name: str) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
        values = samples.column(name).astype(np.float64).reshape(len(samples), -1)
        names = _names(samples.dataset.info.features[name].names, values.shape[1])
        spread = np.maximum(values.std(axis=0), 1e-3)
        return names, tuple(values.mean(axis=0).tolist()), tuple(spread.tolist())

    names, mean, spread = summary(recipe.data.action)
    state = ((), (), ()) if recipe.data.state is None else summary(recipe.data.state)
    return ActionScaling(
        names=names,
        mean=mean,
        standard_deviation=spread,
        step_interval=1 / fps,
        state_names=state[0],
        state_mean=state[1],
        state_standard_deviation=state[2],
    )


def _names(found: object, count: int) -> tuple[str, ...]:
    """The data set's own names, in whichever form it has them, or numbers."""
    if isinstance(found, dict) and len(found) == 1:
        found = next(iter(found.values()))
    if isinstance(found, list) and len(found) == count:
        return tuple(map(str, found))
    return tuple(str(number) for number in range(count))


def _commit() -> str:
    """The commit of the working tree this package runs from; empty outside one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except OSError:
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C stops at once."""
    asked = threading.Event()

    def ask(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
