"""Whether a model and two splits of a data set belong together, and the splits are apart.

Asked before anything is measured, and before the training of what shall be measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tectum_core.architecture import ModelConfig, WorldModelConfig
from tectum_core.bundle import Bundle
from tectum_train.data.errors import DataError
from tectum_train.data.samples import Samples
from tectum_train.engine.states import StateFeatures
from tectum_train.engine.words import heard, mirrored
from tectum_train.evaluation.measuring.context import Columns
from tectum_train.world import read_world

__all__ = ["check_fits", "check_seeds", "frame_steps", "pair_steps"]

_ROUNDING, _INTERVAL_SHARE = 1e-9, 0.01
_COMPARED_FRAMES = 4
_HELD_OUT = "episodes never trained on (a recipe's data.test, or --test of tectum eval)"


def pair_steps(model: ModelConfig, fps: float) -> int:
    """Steps that come closest to the interval of the model's pairs; 1 without latent actions."""
    latent = model.latent_action
    return 1 if latent is None else max(1, round(latent.interval * fps))


def frame_steps(config: WorldModelConfig, fps: float) -> int:
    """Steps that come closest to the interval of the world model's frames."""
    return max(1, round(config.interval * fps))


def check_fits(
    model: ModelConfig,
    columns: Columns,
    train: Samples,
    test: Samples,
    step_interval: float | None = None,
    shown: StateFeatures | None = None,
    exchanged: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """That what is fitted on `train` can be asked about `test`, and the model about both.

    What a split lacks altogether is no contradiction: it is measured as far as it goes. Of what is
    learnt from, nothing may be measured on: no episode, and no sentence that `test` holds out, even
    in a mirror.

    Args:
        model: of the bundle, or of the one to be trained.
        columns: what the data set's features are called.
        train: where probes are fitted.
        test: what is measured on.
        step_interval: seconds between the actions that the model knows; None: they are `train`'s.
        shown: what the model reads as its state; None: the robot's own, if it reads any.
        exchanged: words that mirrored sentences exchanged in training.

    Raises:
        DataError: they contradict each other, or are not apart; says where and by what.
    """
    _check_folders(train, test)
    fps = train.dataset.info.fps
    if fps != test.dataset.info.fps:
        raise DataError(
            f"{test.dataset.root} has {test.dataset.info.fps:g} frames a second and "
            f"{train.dataset.root} {fps:g}; probes want them equal"
        )
    _check_time(model, fps, step_interval)
    shown = shown or StateFeatures(columns.state)
    for samples in (train, test):
        for name, found, wanted in _widths(model, columns, shown, samples):
            if found != wanted:
                raise DataError(
                    f"{samples.dataset.root}: {name} has {found} numbers; {wanted} are wanted"
                )
    _check_families(columns, train, test)
    _check_sentences(train, test, exchanged)
    _check_episodes(columns, train, test)


def check_seeds(bundles: Sequence[tuple[str, Bundle]]) -> None:
    """That bundles are of one recipe, as far as they tell, and each of a seed of its own.

    Args:
        bundles: by what each is called in the message.

    Raises:
        ValueError: they are not.
    """
    (first, one), *others = bundles
    for name, other in others:
        ours, theirs = one.config, other.config
        differing = [
            what
            for what, left, right in (
                ("recipe", ours.training.recipe, theirs.training.recipe),
                ("training.steps", ours.training.steps, theirs.training.steps),
                ("model", ours.model, theirs.model),
                ("images", ours.images, theirs.images),
            )
            if left != right
        ]
        if differing:
            raise ValueError(
                f"{name} is of another recipe than {first} ({', '.join(differing)} differ): "
                "evaluate them one by one"
            )
    seeds: dict[int, str] = {}
    for name, bundle in bundles:
        seed = bundle.config.training.seed
        if seed in seeds:
            raise ValueError(
                f"{name} and {seeds[seed]} are both of seed {seed}; several bundles must be "
                "different seeds of one recipe"
            )
        seeds[seed] = name


def _check_time(model: ModelConfig, fps: float, step_interval: float | None) -> None:
    latent = model.latent_action
    steps = pair_steps(model, fps)
    if latent is not None and abs(steps / fps - latent.interval) > latent.tolerance + _ROUNDING:
        raise DataError(
            f"at {fps:g} frames a second a pair is {steps / fps:g} s apart at best; the model's "
            f"latent_action.interval is {latent.interval:g} ± {latent.tolerance:g} s"
        )
    world = model.world_model
    if world is not None:
        gap = frame_steps(world, fps)
        if abs(gap / fps / world.interval - 1) > _INTERVAL_SHARE:
            raise DataError(
                f"at {fps:g} frames a second two frames are {gap / fps:g} s apart at best; the "
                f"model's world_model.interval is {world.interval:g} s"
            )
    if step_interval is not None and abs(step_interval * fps - 1) > _INTERVAL_SHARE:
        raise DataError(
            f"the data set has {fps:g} actions a second; the model knows actions "
            f"{step_interval:g} s apart"
        )


def _widths(
    model: ModelConfig, columns: Columns, shown: StateFeatures, samples: Samples
) -> Iterator[tuple[str, int, int]]:
    """Features that are read: how many numbers each has, and how many it should have."""
    actions, wanted = model.actions, dict[str, int]()
    if actions is not None:
        wanted = {columns.action: actions.dimensions}
        wanted |= shown.widths(actions.state_dimensions)
    if model.latent_action is not None:
        wanted[columns.extrinsics] = 16
    for name, width in wanted.items():
        if width and samples.has(name):
            yield name, samples.column(name).reshape(len(samples), -1).shape[1], width


def _check_families(columns: Columns, train: Samples, test: Samples) -> None:
    known, found = (read_world(samples.dataset.root).families for samples in (train, test))
    if known and found and known != found:
        raise DataError(
            f"{test.dataset.root} names other task families than {train.dataset.root}; probes "
            "want the same ones"
        )
    named = {family.index for family in found}
    for samples in (train, test):
        if named and samples.has(columns.family):
            strange = set(samples.tasks(columns.family).tolist()) - named
            if strange:
                raise DataError(
                    f"{samples.dataset.root}: {columns.family} has {sorted(strange)}, which "
                    "meta/world.json does not name"
                )


def _check_folders(train: Samples, test: Samples) -> None:
    if train.dataset.root.samefile(test.dataset.root):
        raise DataError(
            f"{test.dataset.root} is the folder that is learnt from; measure on another one, of "
            f"{_HELD_OUT}"
        )


def _check_sentences(train: Samples, test: Samples, exchanged: Mapping[str, str]) -> None:
    """That what `test` calls held out was not heard, as a tokenizer hears it."""
    said = {heard(sentence) for sentence in train.instructions}
    turned = {heard(mirrored(sentence, exchanged)) for sentence in train.instructions}
    told = [
        one.text
        for one in read_world(test.dataset.root).instructions
        if one.held_out and heard(one.text) in said | turned
    ]
    if told:
        how = "" if heard(told[0]) in said else ", as augmentation.flip.words mirrors them"
        raise DataError(
            f"{train.dataset.root} has {told[0]!r} among its instructions{how} ({len(told)} such "
            f"in all), which {test.dataset.root}/meta/world.json holds out; learn from a set "
            "without them, or hold others out"
        )


def _check_episodes(columns: Columns, train: Samples, test: Samples) -> None:
    """That no episode is in both, whatever its number, its file and its neighbours there are."""
    numbers = [
        name for name in (columns.state, columns.action) if train.has(name) and test.has(name)
    ]
    known = {mark: number for number, marks in _marks(train, numbers) for mark in marks}
    shared = {
        number: known[mark]
        for number, marks in _marks(test, numbers)
        for mark in marks
        if mark in known
    }
    if shared:
        here, there = next(iter(shared.items()))
        raise DataError(
            f"{len(shared)} of the {len(test.dataset.episodes)} episodes of {test.dataset.root} "
            f"are in {train.dataset.root} too, by their pictures or their states and actions: "
            f"number {here} is number {there} there; leave them out of one set, or measure on "
            f"{_HELD_OUT}"
        )


def _marks(samples: Samples, numbers: Sequence[str]) -> Iterator[tuple[int, list[bytes]]]:
    """By what each episode is known: its number, and digests of what was seen and what moved.

    Pictures are some frames spread over it, at the model's size. Numbers count where measured
    ones, not choices among a few, change in it: rest looks alike in many episodes.
    """
    for episode in samples.dataset.episodes:
        stop = episode.dataset_to_index
        start = stop - episode.length
        shown = np.linspace(start, stop - 1, _COMPARED_FRAMES).round().astype(np.int64)
        marks = [_digest(episode.length, samples.frames[shown])]
        values = [samples.column(name)[start:stop] for name in numbers]
        if any(np.issubdtype(v.dtype, np.floating) and bool((v != v[0]).any()) for v in values):
            marks.append(_digest(episode.length, *(v.astype(np.float64) for v in values)))
        yield episode.index, marks


def _digest(length: int, *arrays: NDArray[np.generic]) -> bytes:
    return hashlib.sha256(
        b"".join([f"{length} ".encode(), *(a.tobytes() for a in arrays)])
    ).digest()
