"""A whole run: open the data, build the model, loop, checkpoint, and leave a bundle behind."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from rich.console import Console
from torch.optim import AdamW

from tectum_core.bundle import BundleConfig, Part, TrainingSummary
from tectum_core.bundle.config import PARTS
from tectum_core.model import PerceptionModel
from tectum_core.numerics import exact_float32
from tectum_core.preprocess import ActionScaling
from tectum_core.tokenizer import Tokenizer
from tectum_train.data.samples import Samples
from tectum_train.distributed import (
    all_sum,
    anywhere,
    average_gradients,
    means,
    rank,
    same_everywhere,
    together,
    world_size,
)
from tectum_train.engine.accumulation import backward, division, indivisible
from tectum_train.engine.batches import BatchMaker, Prefetch
from tectum_train.engine.begun import begin_with_trunk
from tectum_train.engine.checkpoint import Origin, load_checkpoint, save_checkpoint
from tectum_train.engine.optimiser import learning_rate, optimiser_for
from tectum_train.engine.progress import RunProgress, say, telling
from tectum_train.engine.provenance import commit_of, fingerprint_of
from tectum_train.engine.scaling import scaling_of
from tectum_train.engine.words import sentences
from tectum_train.objectives import Batch, Outcome, WeightedSum, objective_for
from tectum_train.recipe import Recipe, RecipeError, expanded

__all__ = ["Interrupted", "Run", "open_samples", "train"]

_RECORD_EVERY = 20


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP came, and everything done so far is saved."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run has made."""

    recipe: Recipe
    model: PerceptionModel
    tokenizer: Tokenizer | None
    scaling: ActionScaling | None
    config: BundleConfig
    """Of the bundle that it becomes, not yet evaluated."""
    folder: Path
    begun: tuple[Part, ...] = ()
    """Parts that came trained from another bundle."""


def open_samples(recipe: Recipe, split: str, progress: Callable[[int, int], None]) -> Samples:
    """The recipe's `train` or `test` data, its frames decoded and cached.

    Raises:
        DataError: the folder is not as it should be.
        RecipeError: `augmentation.flip` names numbers that the data set has not.
    """
    root = recipe.data.train if split == "train" else recipe.data.test
    samples = Samples.open(
        expanded(root),
        recipe.data.camera,
        recipe.images,
        expanded(recipe.data.cache),
        progress,
    )
    _check_mirror(recipe, samples)
    return samples


def train(
    recipe: Recipe,
    device: str = "cpu",
    resume: bool = False,
    console: Console | None = None,
) -> Run:
    """Train to the recipe's last step, together with all other ranks.

    Each of them takes its samples of every step, and averages gradients with the others; the first
    one writes and speaks.

    Args:
        recipe: the run.
        device: a torch device.
        resume: go on from the run's checkpoint, if there is one.
        console: where to show progress; None: standard error.

    Raises:
        Interrupted: Ctrl-C, SIGTERM or SIGHUP came, to any rank; the checkpoint is written.
        CheckpointError: the checkpoint is another recipe's, or was trained on other data.
        FileExistsError: the folder holds a run, and `resume` is off.
        RecipeError: a step's samples cannot be divided among ranks or into micro-batches.
    """
    console = console or Console(stderr=True)
    pieces = division(recipe)
    folder = recipe.folder
    checkpoint = recipe.checkpoint
    if checkpoint.exists() and not resume:
        raise FileExistsError(
            f"{folder} holds a run already; resume it (--resume), or choose another output "
            "(--output)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with telling(console, "reading the data set") as tell:
        samples = open_samples(recipe, "train", tell.decoding)
    _check_interval(recipe, samples.dataset.info.fps)
    _repeat_exactly()
    torch.manual_seed(recipe.seed)
    run = _build(recipe, samples, folder)
    run.model.to(device)
    weighted = [(c.weight, objective_for(c, run.model, run.tokenizer)) for c in recipe.objectives]
    objective = WeightedSum(weighted).to(device)
    if pieces > 1 and (whole := indivisible(objective)):
        raise RecipeError(f"schedule.micro_batch: {', '.join(whole)} must see a batch as a whole")
    adam = optimiser_for(objective, recipe.optimiser)
    data = fingerprint_of(expanded(recipe.data.train), run.tokenizer, run.scaling)
    origin = Origin(recipe.identity(), data, (commit_of(Path(__file__)),))
    done = 0
    if checkpoint.exists():
        done, before = load_checkpoint(checkpoint, origin, objective, adam)
        new = () if done == recipe.schedule.steps else origin.commits
        origin = replace(origin, commits=(*before, *(c for c in new if c != before[-1])))
        say(console, f"goes on after step {done}")
    same_everywhere(objective)
    run = replace(run, config=_summed_up(run.config, commit=_words(origin.commits)))
    first = rank() == 0
    if first:
        (folder / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n", "utf-8")
    maker = BatchMaker(recipe, samples, run.tokenizer, run.scaling, torch.device(device))
    batches = Prefetch(maker.make, done, recipe.schedule.steps)
    size = recipe.schedule.batch_size
    shown = RunProgress(folder, recipe.schedule.steps, done, size, console) if first else None
    with _interruptible() as interrupted, shown or nullcontext():
        try:
            for step, batch, waited in batches:
                rate = learning_rate(step, recipe.optimiser.lr, recipe.schedule)
                outcome, norm = _step(step, batch, objective, adam, rate, recipe, pieces)
                last = step + 1 == recipe.schedule.steps
                record = last or step % _RECORD_EVERY == 0
                loss = float(all_sum(outcome.loss)) / world_size()
                metrics = {"loss": loss, "lr": rate, "gradient": norm}
                if record:  # each is a wait for the device
                    own = {name: float(value) for name, value in outcome.metrics.items()}
                    metrics |= means(own, device)
                if shown is not None:
                    shown.step(step, metrics, waited, record)
                stop = anywhere(interrupted.is_set(), device)
                due = stop or last or (step + 1) % recipe.schedule.checkpoint_every == 0
                if due and shown is not None:
                    save_checkpoint(checkpoint, step + 1, origin, objective, adam)
                    shown.saved(step + 1, folder)
                if stop or last:
                    together()  # a launcher ends the others when one has ended
                if stop and not last:
                    raise Interrupted(f"saved after step {step + 1} in {folder}")
        finally:
            batches.stop()
    left = tuple(part for part in _untrained(run.model, adam) if part not in run.begun)
    run.model.cpu().eval()
    return replace(run, config=_summed_up(run.config, untrained=left))


def _step(
    step: int,
    batch: Batch,
    objective: WeightedSum,
    adam: AdamW,
    rate: float,
    recipe: Recipe,
    pieces: int,
) -> tuple[Outcome, float]:
    """Learn from a batch; gives what was said of this rank's samples, and the gradient's norm."""
    for group in adam.param_groups:
        group["lr"] = rate
    adam.zero_grad(set_to_none=True)
    low = recipe.precision == "bfloat16"
    autocast = partial(torch.autocast, batch.earlier.device.type, torch.bfloat16, enabled=low)
    # Codes that are drawn anew are a function of the step too.
    torch.manual_seed(batch.noise)
    outcome = backward(objective, batch, pieces, autocast)
    average_gradients(objective.parameters())
    norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), recipe.optimiser.clip_norm)
    if not bool(torch.isfinite(norm)):
        raise FloatingPointError(f"step {step}: the gradient is not finite")
    adam.step()
    objective.after_step()
    return outcome, float(norm)


def _repeat_exactly() -> None:
    """Let a resumed run on a GPU be the uninterrupted one: the same kernels, in full precision."""
    exact_float32()
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False  # would choose kernels by how fast they just were


def _check_mirror(recipe: Recipe, samples: Samples) -> None:
    """What a mirror is said to change are numbers that the data set has."""
    flip, known = recipe.augmentation.flip, samples.dataset.info.features
    if flip is None:
        return
    for key, feature, places in (
        ("actions", recipe.data.action, flip.actions),
        ("states", recipe.data.state, flip.states),
    ):
        if feature not in known or not places:
            continue  # what is missing is told by who reads it
        width = math.prod(known[feature].shape)
        if max(places) >= width:
            raise RecipeError(
                f"augmentation.flip.{key}: found {max(places)}; allowed: 0 to {width - 1}, the "
                f"numbers of {feature}"
            )


def _check_interval(recipe: Recipe, fps: float) -> None:
    """The frames of a pair lie as far apart as the bundle will say that they should."""
    latent, world, clip = recipe.model.latent_action, recipe.model.world_model, recipe.data.clip
    if world is not None and clip is not None and abs(clip.steps / fps / world.interval - 1) > 0.01:
        raise RecipeError(
            f"data.clip.steps: {clip.steps} steps at {fps:g} a second are {clip.steps / fps:g} s, "
            f"but model.world_model.interval is {world.interval:g} s"
        )
    if latent is None:
        return
    for steps in recipe.data.pair_steps:
        if abs(steps / fps - latent.interval) > latent.tolerance + 1e-9:
            raise RecipeError(
                f"data.pair_steps: {steps} steps at {fps:g} a second are {steps / fps:g} s, "
                f"but model.latent_action.interval is {latent.interval:g} ± {latent.tolerance:g} s"
            )


def _build(recipe: Recipe, samples: Samples, folder: Path) -> Run:
    """Tokenizer from the instructions, scales from the actions, model from the recipe."""
    text = recipe.model.text
    tokenizer = (
        None
        if text is None
        else Tokenizer.train(sentences(recipe, samples.instructions), text.vocabulary_size)
    )
    scaling = None if recipe.model.actions is None else scaling_of(recipe, samples)
    summary = TrainingSummary(
        recipe=recipe.name,
        data=recipe.data.train,
        steps=recipe.schedule.steps,
        seed=recipe.seed,
        commit="",
    )
    try:
        config = BundleConfig(
            model=recipe.model, images=recipe.images, actions=scaling, training=summary
        )
    except ValidationError as error:
        told = "; ".join(found["msg"] for found in error.errors())
        raise RecipeError(f"{recipe.name} on this data set: {told}") from error
    model = PerceptionModel(recipe.model)
    bins = None if model.fusion is None else model.fusion.bins
    if bins is not None and bins.config.spacing == "quantiles" and scaling is not None:
        taken = samples.numbers(recipe.data.action, np.arange(len(samples)))
        bins.fit(scaling.standardise(torch.from_numpy(taken)))
    begun = begin_with_trunk(model, recipe)
    return Run(recipe, model, tokenizer, scaling, config, folder, begun)


def _words(commits: tuple[str, ...]) -> str:
    """Every commit that trained it."""
    return ", ".join(commit or "unknown" for commit in commits) if any(commits) else ""


def _summed_up(config: BundleConfig, **facts: object) -> BundleConfig:
    """The same, with these facts in its training summary."""
    summary = config.training.model_copy(update=facts)
    return config.model_copy(update={"training": summary})


def _untrained(model: PerceptionModel, adam: AdamW) -> tuple[Part, ...]:
    """Parts that no gradient ever reached: the optimiser has no moments of theirs, or zeros.

    Asked of the run, not of the recipe: what an objective reads depends on its settings.
    """
    modules, found = dict(model.named_modules()), list[Part]()
    for part in PARTS:
        own = list(modules[part].parameters()) if part in modules else []
        moments = (adam.state[one]["exp_avg_sq"] for one in own if one in adam.state)
        if own and not any(bool(squares.any()) for squares in moments):
            found.append(part)
    return tuple(found)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM or a closed terminal sets; a second one stops at once."""
    asked = threading.Event()

    def ask(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup asks for
        heard.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
