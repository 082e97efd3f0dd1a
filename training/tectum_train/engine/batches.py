"""From samples to batches, a pure function of (seed, step), made a few ahead on a thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import reduce
from operator import or_

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from tectum_core.preprocess import ActionScaling, normalise
from tectum_core.tokenizer import Tokenizer
from tectum_train.augment import Draws, Frames, Placement, Views
from tectum_train.data.samples import Order, Samples
from tectum_train.distributed import own_samples
from tectum_train.engine.following import Following
from tectum_train.engine.states import StateFeatures
from tectum_train.engine.words import Words
from tectum_train.objectives import Batch, Clip, Reads
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
        self._order = Order(
            recipe.seed, recipe.schedule.batch_size, len(samples),
            samples.episode, recipe.data.episodes_at_once, recipe.data.frames_at_once,
        )  # fmt: skip
        self._frames = Frames(recipe.images.size, recipe.augmentation)
        self._views = Views(recipe.images.size, recipe.augmentation.views)
        self._words = Words(recipe, samples, tokenizer)
        self._state = StateFeatures(recipe.data.state, recipe.data.intrinsics)
        self._state_following = Following.told(recipe, samples, "states")
        self._action_following = Following.told(recipe, samples, "actions")
        self._reads = reduce(or_, (one.reads for one in recipe.objectives), Reads.FRAME)
        self._labels = {name for one in recipe.objectives for name in one.labels}

    def make(self, step: int) -> Batch:
        """This rank's part of the batch of step `step`; always the same one.

        The parts of all ranks are the same samples, changed alike, however many ranks there are.
        """
        recipe, samples = self._recipe, self._samples
        # Streams of their own: what two draws have in common, one gives away of the other.
        drawing, noise = (
            int(stream.generate_state(1, np.uint64)[0] >> 1)
            for stream in np.random.SeedSequence([recipe.seed, step]).spawn(2)
        )
        index, epoch = (drawn[own_samples()] for drawn in self._order.of(step))
        draws = Draws(recipe.seed, epoch, index)
        placement = self._frames.placement(draws)
        words = self._words.of(index, draws, placement.flipped)
        gap = self._gap(draws)
        moving = np.arange(recipe.data.action_steps)[None].repeat(len(index), 0)
        made = Batch(
            earlier=self._seen(index[:, None], draws)[:, 0],
            paired=self._to(samples.inside(index, gap)),
            progress=self._to(samples.progress[index]),
            ids=words.ids.to(self._device),
            ids_seen=words.seen.to(self._device),
            content=words.content.to(self._device),
            task=words.task.to(self._device),
            episode=self._to(samples.episode[index]),
            actions=self._actions(samples.later(index, moving), placement),
            padded=self._to(~samples.inside(index, moving)),
            state=self._states(index, placement),
            labels={name: self._label(name, index, placement) for name in sorted(self._labels)},
            seeds=(draws.uniform("objectives")[:, 0] * 2**53).long(),
            generator=Generator().manual_seed(drawing),
            noise=noise,
        )
        if Reads.LATER in self._reads:
            made.later = self._seen(samples.later(index, gap)[:, None], draws)[:, 0]
        if Reads.RECOLOURED in self._reads:
            pair = np.stack([index, samples.later(index, gap)], axis=1)
            made.recoloured = self._seen(pair, draws, " recoloured")
        if recipe.augmentation.action_noise:
            made.action_noise = self._noise(draws, "action noise", made.actions)
        if Reads.VIEWS in self._reads:
            whole = self._views.whole(_channels_first(samples.frames[index]), draws)
            made.views = self._normalised(whole)
        if Reads.CROPS in self._reads:
            small = self._views.small(_channels_first(samples.frames[index]), draws)
            made.crops = self._normalised(small)
        if Reads.MOMENTS in self._reads:
            drawn = draws.uniform("moments", 5).numpy()
            made.moments = self._seen(samples.moments(index, drawn), draws)
        if Reads.CLIP in self._reads:
            made.clip = self._clip(index, draws, placement)
        return made

    def _gap(self, draws: Draws) -> NDArray[np.int64]:
        """[B], steps from each frame to the later one of its pair."""
        choices = np.array(self._recipe.data.pair_steps)
        return choices[(draws.uniform("gap")[:, 0].numpy() * len(choices)).astype(np.int64)]

    def _clip(self, index: NDArray[np.int64], draws: Draws, placement: Placement) -> Clip:
        recipe, samples = self._recipe, self._samples
        if recipe.data.clip is None:
            raise ValueError("an objective reads clips; data.clip says which")
        count, steps = recipe.data.clip.frames, recipe.data.clip.steps
        start = samples.clip(index, count, steps)
        at = steps * np.arange(count)[None].repeat(len(index), 0)
        moving = at[:, :, None] + np.arange(steps)
        frames = samples.later(start, at)
        actions = self._actions(samples.later(start, moving), placement)
        if recipe.augmentation.action_noise:
            actions = actions + self._noise(draws, "noise on a clip's actions", actions)
        return Clip(
            frames=self._seen(frames, draws),
            inside=self._to(samples.inside(start, at)),
            actions=actions,
        )

    def _seen(self, at: NDArray[np.int64], draws: Draws, view: str = "") -> Tensor:
        """Frames at [B, F], augmented alike and normalised: float[B, F, 3, S, S]."""
        frames = _channels_first(self._samples.frames[at])
        return self._normalised(self._frames(frames, draws, view))

    def _normalised(self, pixels: Tensor) -> Tensor:
        return normalise(pixels.to(self._device), self._recipe.images)

    def _actions(self, at: NDArray[np.int64], placement: Placement) -> Tensor:
        """Actions at frames [B, …], standardised; moved and mirrored as the pixels are."""
        actions = torch.from_numpy(self._samples.numbers(self._recipe.data.action, at))
        actions = self._action_following.moved(actions, placement)
        if self._scaling is not None:
            actions = self._scaling.standardise(actions)
        return actions.to(self._device)

    def _label(self, name: str, index: NDArray[np.int64], placement: Placement) -> Tensor:
        """int64[B], the classes at frames; those of a mirrored picture mirrored too."""
        plain = torch.from_numpy(self._samples.tasks(name)[index])
        flip, mirrored = self._recipe.augmentation.flip, plain.clone()
        for one, other in ({} if flip is None else flip.labels or {}).get(name, {}).items():
            mirrored[plain == one], mirrored[plain == other] = other, one
        return torch.where(placement.flipped, mirrored, plain).to(self._device)

    def _noise(self, draws: Draws, purpose: str, like: Tensor) -> Tensor:
        """Noise for standardised actions [B, …], each sample's own."""
        drawn = draws.normal(purpose, like[0].numel()).view(like.shape)
        return (self._recipe.augmentation.action_noise * drawn).to(like)

    def _states(self, at: NDArray[np.int64], placement: Placement) -> Tensor:
        """States at frames [B, …], standardised; moved and mirrored as the pixels are."""
        state = self._state.read(self._samples, at, placement, self._state_following)
        if self._scaling is not None:
            state = self._scaling.standardise_state(state)
        return state.to(self._device)

    def _to(self, values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(self._device)


def _channels_first(frames: NDArray[np.uint8]) -> Tensor:
    """uint8[…, S, S, 3] to uint8[…, 3, S, S]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -1, -3)))


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
