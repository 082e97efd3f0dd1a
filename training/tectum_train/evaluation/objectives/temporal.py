"""Moments told apart, on held-out episodes: what CPC foretells, and in which order R3M sees them.

What these objectives add to the trunk (heads, a past, a reward) is in no bundle, so it is the
objectives themselves that are measured, on batches as they learn from, unaugmented (`held_out`).

Letters: B batch, T frames of a clip, K horizons, D width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tectum_core.model import PerceptionModel
from tectum_core.preprocess import ActionScaling
from tectum_core.tokenizer import Tokenizer
from tectum_train.augment import AugmentationConfig
from tectum_train.data.samples import Samples
from tectum_train.engine.batches import BatchMaker
from tectum_train.evaluation.measuring.context import NothingToMeasure, of_others
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.paired import beside
from tectum_train.losses.temporal import Foretold, repeats, time_contrast
from tectum_train.objectives.batch import Batch, given
from tectum_train.objectives.cpc import Cpc
from tectum_train.objectives.r3m import R3m
from tectum_train.recipe import Recipe

__all__ = [
    "CHANCE",
    "LIKENESS",
    "RANDOM",
    "WORDS",
    "held_out",
    "measure_foresight",
    "measure_order",
]

CHANCE, RANDOM, PIXELS = "chance", "random-init twin", "raw pixels"
LIKENESS = "by likeness to the last frame"
WORDS = "another task's instruction"
_PLAIN = AugmentationConfig(shift=0, colour=0, hue=0)
_BETWEEN = slice(1, 4)  # the three in order, of `Batch.moments`


def held_out(
    recipe: Recipe,
    samples: Samples,
    tokenizer: Tokenizer | None,
    scaling: ActionScaling | None,
    batches: int,
    device: torch.device,
) -> Iterator[Batch]:
    """So many batches of these episodes as the recipe's objectives read them, as they were seen."""
    data = recipe.data.model_copy(update={"episodes_at_once": 0, "frames_at_once": 0})
    plain = recipe.model_copy(update={"augmentation": _PLAIN, "data": data})
    maker = BatchMaker(plain, samples, tokenizer, scaling, device)
    yield from (maker.make(step) for step in range(batches))


@torch.inference_mode()
def measure_foresight(objective: Cpc, twin: Cpc, batches: Iterable[Batch]) -> list[Measure]:
    """How often a frame to come is found, by how far ahead it lies, and what it costs.

    Among the other moments of its own clip, where no background tells; and among all clips' too.
    Nats are what training minimises, so among the negatives it has; of frames that every horizon is
    asked of, since the ends of a clip are easier to tell than its middle.

    Args:
        objective: under test, evaluating.
        twin: the same, untrained.
        batches: held out, with clips.

    Raises:
        NothingToMeasure: no clip goes on far enough.
    """
    within, twins, among, by_chance, likeness = (_Asked() for _ in range(5))
    nats, equal, whole_chance = (_Asked() for _ in range(3))
    for batch in batches:
        episode = batch.episode
        _, own = objective.foresee(batch, "same_episode")
        within.add(own, own.hit, episode)
        by_chance.add(own, 1 / own.choices, episode)
        likeness.add(own, _by_likeness(objective, batch, own), episode)
        _, other = twin.foresee(batch, "same_episode")
        twins.add(own, other.hit, episode)
        _, every = objective.foresee(batch, "both")
        among.add(every, every.hit, episode)
        whole_chance.add(every, 1 / every.choices, episode)
        _, trained = objective.foresee(batch)
        shared = replace(trained, counted=trained.counted & _of_all(trained))
        nats.add(shared, shared.losses, episode)
        equal.add(shared, shared.choices.log(), episode)
    measures, horizons = [], objective.config.horizons
    within.of(horizons - 1)
    for ahead in range(horizons):
        hits, episodes = within.of(ahead)
        others = {CHANCE: by_chance, RANDOM: twins, LIKENESS: likeness}
        controls, errors = beside(
            hits, {name: asked.of(ahead)[0] for name, asked in others.items()}, episodes
        )
        place = f"{ahead + 1} ahead"
        measures += [
            Measure(
                f"frame {place} among its clip's, accuracy",
                float(hits.mean()),
                controls,
                on=f"{len(hits)} frames of {len(np.unique(episodes))} episodes",
                errors=errors,
            ),
            Measure(
                f"frame {place} among all clips', accuracy",
                among.mean(ahead),
                {CHANCE: whole_chance.mean(ahead)},
            ),
            Measure(f"frame {place}, nats", nats.mean(ahead), {"equal scores": equal.mean(ahead)}),
        ]
    return measures


@torch.inference_mode()
def measure_order(
    objective: R3m, twin: PerceptionModel, batches: Iterable[Batch], draw: np.random.Generator
) -> list[Measure]:
    """How often distances between moments are in order, and how often rewards are.

    Args:
        objective: under test, evaluating.
        twin: its model, untrained.
        batches: held out, with moments.
        draw: of other tasks' instructions.

    Raises:
        NothingToMeasure: no three moments differ, or there is one task alone.
    """
    right: dict[str, list[Tensor]] = defaultdict(list)
    episodes = list[Tensor]()
    rewards: dict[str, list[Tensor]] = defaultdict(list)
    chances: list[Tensor] = []
    for batch in batches:
        frames = given(batch.moments, "moments")[:, _BETWEEN]
        repeated = repeats(frames)
        different = ~repeated.triu(1).flatten(1).any(dim=1)
        episodes.append(batch.episode.cpu()[different.cpu()])
        flat = frames.flatten(0, 1)
        for name, vectors in (
            ("", objective.model.vision(flat).pooled),
            (RANDOM, twin.vision(flat).pooled),
            (PIXELS, flat.flatten(1)),
        ):
            _, aligned = time_contrast(
                vectors.view(len(batch), 3, -1), repeated, batch.episode.to(flat.device)
            )
            right[name].append(aligned[different])
        if objective.reward is None:
            continue
        for name, read in (("", batch), (WORDS, _misled(batch, draw))):
            metrics = objective(read).metrics
            for asked in {"progress", "told"} & metrics.keys():
                rewards[f"{asked}{name}"].append(metrics[asked])
        others = (batch.task[:, None] != batch.task[None]).sum(dim=1)
        chances.append((1 / (1 + others)).mean())
    group = torch.cat(episodes).numpy()
    if not len(group):
        raise NothingToMeasure("no episode shows three different moments")
    hits = {name: torch.cat(parts).double().cpu().numpy() for name, parts in right.items()}
    own = hits.pop("")
    controls, errors = beside(own, {CHANCE: np.full_like(own, 1 / 3), **hits}, group)
    number = len(np.unique(group))
    measures = [
        Measure(
            "three moments aligned",
            float(own.mean()),
            controls,
            on=f"{len(own)} times three moments of {number} episodes",
            errors=errors,
        )
    ]
    # Yes's and no's of one episode may all be one: as few as there are episodes, at worst.
    by_chance = {CHANCE: number**-0.5}
    for name, what, chance in (
        ("progress", "reward rises to a later moment", 1 / 2),
        ("told", "reward above all other tasks' episodes", _mean(chances)),
    ):
        if rewards[name] and rewards[f"{name}{WORDS}"]:
            misled = {WORDS: _mean(rewards[f"{name}{WORDS}"])}
            measures.append(
                Measure(what, _mean(rewards[name]), {CHANCE: chance, **misled}, errors=by_chance)
            )
    return measures


class _Asked:
    """What was asked of each horizon, one by one."""

    def __init__(self) -> None:
        self._values: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
        self._episodes: dict[int, list[NDArray[np.int64]]] = defaultdict(list)

    def add(self, asked: Foretold, values: Tensor, episode: Tensor) -> None:
        """Values [B, T, K] of what counts there, of episodes [B]."""
        clips = len(values)
        told, counted = values.double().cpu().numpy(), asked.counted.cpu().numpy()
        for ahead in range(counted.shape[2]):
            taken = counted[:, :, ahead]
            self._values[ahead].append(told[:, :, ahead][taken])
            self._episodes[ahead].append(
                np.repeat(episode[:clips].cpu().numpy(), taken.sum(axis=1))
            )

    def of(self, ahead: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The values, and which episode each is of."""
        values = np.concatenate(self._values[ahead] or [np.zeros(0)])
        if not len(values):
            raise NothingToMeasure(f"no clip goes on for {ahead + 1} frames more")
        return values, np.concatenate(self._episodes[ahead])

    def mean(self, ahead: int) -> float:
        """Of the values."""
        return float(self.of(ahead)[0].mean())


def _of_all(asked: Foretold) -> Tensor:
    """bool[T, K], whether the frame k on is one that every horizon is asked of."""
    _, length, horizons = asked.hit.shape
    now = torch.arange(length, device=asked.hit.device)
    ahead = torch.arange(1, horizons + 1, device=asked.hit.device)
    return now[:, None] + ahead >= horizons


def _by_likeness(objective: Cpc, batch: Batch, asked: Foretold) -> Tensor:
    """float[B, T, K], how often the right one is found by its likeness to frame t alone, by cosine.

    Who knows no more than that frames are the less alike the further apart they are says of k
    frames ahead: the one before which all lie that are nearer in time. Where one lies as far
    behind, it is one of two, and each is right half of the time. What looks the same as frame t is
    left out, unless it is the right one.
    """
    clip = given(batch.clip, "clips")
    clips, length, horizons = asked.hit.shape
    frames = clip.frames[:clips]
    features = objective.model.vision(frames.flatten(0, 1)).pooled.view(clips, length, -1)
    features = F.normalize(features.float(), dim=2)
    alike = features @ features.transpose(1, 2)  # [B, T, T]
    same = repeats(frames)
    there = ~same & clip.inside[:clips, None]
    place = torch.arange(length, device=frames.device)
    apart = (place[:, None] - place).abs()
    found = torch.zeros(asked.hit.shape, device=frames.device)
    for ahead in range(1, min(horizons, length - 1) + 1):
        now, right = place[: length - ahead], place[ahead:]
        rivals = there[:, now] & ~same[:, right]
        nearer = (rivals & (alike[:, now] > alike[:, now, right, None])).sum(dim=2)
        between = (there[:, now] & (apart[now] < ahead)).sum(dim=2)
        behind = there[:, now, now - ahead] & (now >= ahead)
        either = ((nearer == between) | (nearer == between + 1)) / 2
        found[:, now, ahead - 1] = torch.where(behind, either, (nearer == between).float())
    return found


def _misled(batch: Batch, draw: np.random.Generator) -> Batch:
    """The same episodes, each with the instruction of another task."""
    strangers = torch.from_numpy(of_others(batch.task.cpu().numpy(), draw)).to(batch.ids.device)
    said = {name: getattr(batch, name)[strangers] for name in ("ids", "ids_seen", "content")}
    return replace(batch, **said, _text=None)


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean()) if values else 0.0
