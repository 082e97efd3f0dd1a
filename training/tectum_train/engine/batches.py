"""From samples to batches, a pure function of (seed, step), made a few ahead on a thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from tectum_core.preprocess import ActionScaling, normalise
from tectum_core.tokenizer import Tokenizer
from tectum_train.augment import Augmentation
from tectum_train.data.samples import Samples, order_of
from tectum_train.objectives import Batch
from tectum_train.recipe import Recipe

__all__ = ["BatchMaker", "Prefetch"]


class BatchMaker:
    """Makes the batch of any step.

    Args:
        recipe: the run.
        samples: its training data.
        tokenizer: of the instructions; None without a text trunk.
        scaling: of actions and states; None without an action path.
        device: where batches go.
    """

    def __init__(
        self,
        recipe: Recipe,
        samples: Samples,
        tokenizer: Tokenizer | None,
        scaling: ActionScaling | None,
        device: torch.device,
    ) -> None:
        self._recipe = recipe
        self._samples = samples
        self._scaling = scaling
        self._device = device
        self._augment = Augmentation(recipe.images.size, recipe.augmentation)
        self._ids, self._seen, self._content = _encoded(recipe, samples.instructions, tokenizer)
        self._tasks = samples.tasks(recipe.data.task)
        self._paraphrases = samples.paraphrases(recipe.data.task)

    def make(self, step: int) -> Batch:
        """The batch of step `step`; always the same one."""
        recipe, size = self._recipe, self._recipe.schedule.batch_size
        # Streams of their own: what two draws have in common, one gives away of the other.
        drawing, augmenting, noise = (
            int(stream.generate_state(1, np.uint64)[0] >> 1)
            for stream in np.random.SeedSequence([recipe.seed, step]).spawn(3)
        )
        generator = Generator().manual_seed(drawing)
        index = order_of(recipe.seed, step, size, len(self._samples))
        choices = torch.tensor(recipe.data.pair_steps)
        gap = choices[torch.randint(len(choices), (size,), generator=generator)].numpy()
        tasks = self._tasks[index]
        raw = self._samples.take(
            index,
            gap,
            self._sentences(tasks, generator),
            tasks,
            recipe.data.action,
            recipe.data.action_steps,
            recipe.data.state,
        )
        frames = np.stack([raw.earlier, raw.later], axis=1).transpose(0, 1, 4, 2, 3)
        augmented = self._augment(torch.from_numpy(np.ascontiguousarray(frames)), augmenting)
        pixels = normalise(augmented.to(self._device), recipe.images)
        actions, state = torch.from_numpy(raw.actions), torch.from_numpy(raw.state)
        if self._scaling is not None:
            actions = self._scaling.standardise(actions)
            state = self._scaling.standardise_state(state)
        instruction = torch.from_numpy(raw.instruction)
        return Batch(
            earlier=pixels[:, 0],
            later=pixels[:, 1],
            paired=torch.from_numpy(raw.gap > 0).to(self._device),
            progress=torch.from_numpy(self._samples.progress[index]).to(self._device),
            ids=self._ids[instruction].to(self._device),
            ids_seen=self._seen[instruction].to(self._device),
            content=self._content[instruction].to(self._device),
            task=torch.from_numpy(raw.task).to(self._device),
            actions=actions.to(self._device),
            padded=torch.from_numpy(raw.padded).to(self._device),
            state=state.to(self._device),
            generator=generator,
            noise=noise,
        )

    def _sentences(self, tasks: NDArray[np.int64], generator: Generator) -> NDArray[np.int64]:
        """One of each task's sentences."""
        draws = torch.rand(len(tasks), generator=generator).tolist()
        return np.array(
            [
                self._paraphrases[int(task)][int(draw * len(self._paraphrases[int(task)]))]
                for task, draw in zip(tasks, draws, strict=True)
            ]
        )


class Prefetch:
    """Batches of consecutive steps, made ahead on a thread: two wait while a third is made.

    Iterate to get (step, batch, seconds waited).
    """

    def __init__(self, make: Callable[[int], Batch], first: int, last: int) -> None:
        self._make = make
        self._steps = range(first, last)
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=2)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="batches", daemon=True)

    def __iter__(self) -> Iterator[tuple[int, Batch, float]]:
        self._thread.start()
        for step in self._steps:
            started = time.perf_counter()
            found = self._ready.get()
            if isinstance(found, BaseException):
                raise found
            yield step, found, time.perf_counter() - started

    def stop(self) -> None:
        """End the thread, wherever it is."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _fill(self) -> None:
        for step in self._steps:
            if self._stopped.is_set():
                return
            try:
                self._ready.put(self._make(step))
            except Exception as error:
                self._ready.put(error)
                return


def _encoded(
    recipe: Recipe, instructions: list[str], tokenizer: Tokenizer | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """int64[I, L] ids, bool[I, L] of those that are no padding, bool[I, L] of content."""
    text = recipe.model.text
    if tokenizer is None or text is None:
        nothing = torch.zeros(len(instructions), 1, dtype=torch.long)
        return nothing, nothing == 0, nothing > 0
    encoded = [tokenizer.encode(instruction, text.max_tokens) for instruction in instructions]
    ids = torch.tensor(tokenizer.pad([e.ids for e in encoded], text.max_tokens))
    seen = torch.zeros(ids.shape, dtype=torch.bool)
    content = torch.zeros(ids.shape, dtype=torch.bool)
    for row, one in enumerate(encoded):
        seen[row, : len(one.ids)] = True
        content[row, one.content] = True
    return ids, seen, content
