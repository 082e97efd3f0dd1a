"""A whole run: open the data, build the model, loop, checkpoint, and leave a bundle behind."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch.optim import AdamW

from tectum_core.bundle import Part
from tectum_core.bundle.config import PARTS
from tectum_core.numerics import exact_float32
from tectum_train.distributed import (
    all_sum,
    anywhere,
    rank,
    same_everywhere,
    together,
    world_size,
)
from tectum_train.engine.accumulation import division
from tectum_train.engine.agreement import oversized, seldom_begun
from tectum_train.engine.batches import BatchMaker, Prefetch
from tectum_train.engine.building import Run, build, check_parts, open_samples
from tectum_train.engine.checkpoint import (
    Origin,
    check_agreement,
    load_checkpoint,
    save_checkpoint,
    stays,
)
from tectum_train.engine.optimiser import learning_rate, optimiser_for
from tectum_train.engine.progress import RunProgress, say, telling
from tectum_train.engine.provenance import commit_of, fingerprint_of
from tectum_train.engine.stepping import take_step
from tectum_train.engine.tally import Tally
from tectum_train.engine.untrained import unreached, untrained
from tectum_train.objectives import Objective
from tectum_train.recipe import Recipe, expanded
from tectum_train.tasks import ManyTasks

__all__ = ["Interrupted", "repeat_exactly", "train"]

_RECORD_EVERY = 20
_ASKED = 8
"""Steps whose batches tell what an objective trains; a picture is left out of one in five."""
_ENDING = (
    "ending after this step, which will be saved; a second Ctrl-C ends it now, and what came since "
    "the last checkpoint is lost"
)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP came, and everything done so far is saved."""


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
        resume: go on from the run's checkpoint, if there is one, or begin. An unfinished run of
            this very recipe goes on in any case.
        console: where to show progress; None: standard error.

    Raises:
        Interrupted: Ctrl-C, SIGTERM or SIGHUP came, to any rank; the checkpoint is written.
        CheckpointError: the checkpoint is another recipe's, was trained on other data, or is not
            the same step's on all ranks.
        FileExistsError: the folder holds a run that is finished or another recipe's, and `resume`
            is off.
        RecipeError: a step's samples cannot be divided among ranks or into micro-batches.
        ValueError: an objective lacks a part of the model, or a file (see `check_parts`).
    """
    console = console or Console(stderr=True)
    pieces = division(recipe)
    check_parts(recipe)
    folder = recipe.folder
    checkpoint = recipe.checkpoint
    if checkpoint.exists() and not resume and (why := stays(checkpoint, recipe)):
        raise FileExistsError(
            f"{folder} holds a run already, {why}; resume it as it was begun (--resume), or give "
            "this one another name (--set name=…) or output (--output)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with telling(console, "reading the data set") as tell:
        samples = open_samples(recipe, "train", tell.decoding)
    lengths = [one.length for one in samples.dataset.episodes]
    for line in (*seldom_begun(recipe, lengths), *oversized(recipe, sum(lengths))):
        say(console, line)
    repeat_exactly()
    torch.manual_seed(recipe.seed)
    run = build(recipe, samples, folder)
    run.model.to(device)
    objective = run.objective.to(device)
    adam = optimiser_for(objective, recipe.optimiser)
    data = fingerprint_of(expanded(recipe.data.train), run.tokenizer, run.scaling)
    origin = Origin(recipe.identity(), data, (commit_of(Path(__file__)),))
    done, before = 0, tuple[str, ...]()
    if checkpoint.exists():
        done, before = load_checkpoint(checkpoint, origin, objective, adam)
    check_agreement(checkpoint, done, device)
    if done:
        new = () if done == recipe.schedule.steps else origin.commits
        origin = replace(origin, commits=(*before, *(c for c in new if c != before[-1])))
        say(console, f"goes on after step {done} with the run in {folder}")
    same_everywhere(objective)
    run = run.summed_up(commit=_words(origin.commits))
    first = rank() == 0
    maker = BatchMaker(recipe, samples, run.tokenizer, run.scaling, torch.device(device))
    if first:
        (folder / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n", "utf-8")
    batches = Prefetch(maker.make, done, recipe.schedule.steps)
    size = recipe.schedule.batch_size
    shown = RunProgress(folder, recipe.schedule.steps, done, size, console) if first else None
    tally = Tally()
    with _interruptible(console) as interrupted, shown or nullcontext():
        try:
            for step, batch, waited in batches:
                rate = learning_rate(step, recipe.optimiser.lr, recipe.schedule)
                outcome, norm = take_step(step, batch, objective, adam, rate, recipe, pieces)
                last = step + 1 == recipe.schedule.steps
                loss = float(all_sum(outcome.loss)) / world_size()
                tally.add({"loss": outcome.loss, "gradient": torch.tensor(norm)} | outcome.metrics)
                if shown is not None:
                    shown.step(step, loss, waited)
                stop = anywhere(interrupted.is_set(), device)
                due = stop or last or (step + 1) % recipe.schedule.checkpoint_every == 0
                # At checkpoints too: who resumes records what the uninterrupted run would have.
                if due or step % _RECORD_EVERY == 0:
                    told = {"lr": rate} | tally.taken(device)
                    if shown is not None:
                        shown.record(step + 1, told)
                if due and shown is not None:
                    save_checkpoint(checkpoint, step + 1, origin, objective, adam)
                    shown.saved(step + 1, folder)
                if stop or last:
                    together()  # a launcher ends the others when one has ended
                if stop and not last:
                    raise Interrupted(f"saved after step {step + 1} in {folder}")
        finally:
            batches.stop()
    if first:
        for part in run.parts:
            part.leave(folder, recipe.images)
    run = _with_what_was_trained(run, adam, maker)
    run.model.cpu().eval()
    objective.cpu().eval()
    return run


def _with_what_was_trained(run: Run, adam: AdamW, maker: BatchMaker) -> Run:
    """The run and its views, which say what of them was not trained."""
    left = tuple(part for part in untrained(run.model, adam) if part not in run.begun)
    run = run.summed_up(untrained=left)
    if not isinstance(run.objective, ManyTasks) or not run.views:
        return run
    foreign = {
        kind: {*_foreign(run, kind, part, maker)} - {*run.begun}
        for kind, part in run.objective.named_parts()
    }
    # Who only reads the served trunk adds to the bundle, and reads what others have trained.
    served = [kind for kind, view in run.views.items() if view.model.vision is run.model.vision]
    missed = {part for part in PARTS if served and all(part in foreign[kind] for kind in served)}
    views = dict[str, Run]()
    for kind, view in run.views.items():
        read = {"vision", "vision.pool"} - missed if kind in served else set[str]()
        own = _in_order({*left, *(foreign[kind] - read)})
        views[kind] = replace(view, config=run.config).summed_up(untrained=own)
    return replace(run.summed_up(untrained=_in_order({*left, *missed})), views=views)


def _in_order(parts: Collection[Part]) -> tuple[Part, ...]:
    return tuple(part for part in PARTS if part in parts)


def _foreign(run: Run, kind: str, part: Objective, maker: BatchMaker) -> tuple[Part, ...]:
    """Parts that one of a run's objectives does not train."""
    return unreached(run.views[kind].model, part, map(maker.make, range(_ASKED)))


def repeat_exactly() -> None:
    """Let a resumed run on a GPU be the uninterrupted one: the same kernels, in full precision."""
    exact_float32()
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False  # would choose kernels by how fast they just were


def _words(commits: tuple[str, ...]) -> str:
    """Every commit that trained it."""
    return ", ".join(commit or "unknown" for commit in commits) if any(commits) else ""


@contextmanager
def _interruptible(console: Console) -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM or a closed terminal sets; a second one stops at once."""
    asked, lines = threading.Event(), queue.SimpleQueue[str | None]()

    def ask(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        lines.put(_ENDING)

    def speak() -> None:
        while (line := lines.get()) is not None:
            say(console, line)

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    # A signal may come in the middle of a line: another thread writes what is to be said.
    speaker = threading.Thread(target=speak, name="interrupts", daemon=True)
    speaker.start()
    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup asks for
        heard.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        lines.put(None)
        speaker.join()
