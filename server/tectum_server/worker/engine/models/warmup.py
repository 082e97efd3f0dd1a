"""Synthetic work of every kind a model can do, so that no caller is the first to pay for it.

Tells what each batch took, so that admission knows what to promise from the start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from functools import partial

import numpy as np
import torch

from tectum_core.model import WorldModel
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.computing.operations import batch_key, run_batch
from tectum_server.worker.engine.computing.pictures import preparation, prepared
from tectum_server.worker.jobs import (
    EmbedClips,
    EmbedImages,
    EmbedTexts,
    FillActions,
    FillClip,
    FillImage,
    FillText,
    Item,
    LatentActions,
    MaskSpec,
    Operation,
    Rollout,
)

__all__ = ["batch_sizes", "keeps_by_thread", "prepare_cameras", "warm_up", "warm_up_there"]

_RUNS = 2
"""Of each batch, the faster one counting: what disturbs one is no cost of the model's."""
_CAMERAS = ((480, 640), (1080, 1920))
"""Rows and columns of what is often sent: what these take tells what others will."""


def batch_sizes(max_batch: int) -> list[int]:
    """The buckets: powers of two up to the largest batch, which is one of them."""
    sizes = [1]
    while sizes[-1] * 2 < max_batch:
        sizes.append(sizes[-1] * 2)
    return sizes if max_batch == 1 else [*sizes, max_batch]


def warm_up(predictor: Predictor, max_batch: int) -> list[tuple[Hashable, int, float]]:
    """Run every operation the model has at every bucket.

    Returns:
        Each batch's key, its items, and the milliseconds it took at best.
    """
    seen: list[tuple[Hashable, int, float]] = []
    model = f"{predictor.bundle.name}@{predictor.bundle.version}"
    for operation, item in _work(predictor):
        key = batch_key(model, operation, item, predictor)
        run_batch(predictor, [(operation, item)])  # the very first run pays for lazy set-up
        for size in batch_sizes(max_batch):
            took = min(_timed(predictor, [(operation, item)] * size) for _ in range(_RUNS))
            seen.append((key, size, took * 1000))
    return seen


def keeps_by_thread(device: torch.device) -> bool:
    """Whether what is set up for a kernel, cuBLAS's or cuDNN's, is so for one thread."""
    return device.type == "cuda"


def warm_up_there(
    predictor: Predictor, max_batch: int, there: Callable[[Callable[[], object]], None]
) -> None:
    """Run once more what `warm_up` does, where callers' batches run.

    Args:
        predictor: has been warmed up.
        max_batch: as there.
        there: does something on that thread, and returns once it is done; asked for each batch
            anew, so that callers' go between them.
    """
    for operation, item in _work(predictor):
        for size in batch_sizes(max_batch):
            there(partial(run_batch, predictor, [(operation, item)] * size))


def prepare_cameras(predictor: Predictor) -> list[tuple[Hashable, int, float]]:
    """Bring pictures of cameras to the model's size.

    Returns:
        Each preparation's kind and size, and the milliseconds it took at best.
    """
    seen: list[tuple[Hashable, int, float]] = []
    model = f"{predictor.bundle.name}@{predictor.bundle.version}"
    for height, width in _CAMERAS:
        item = Item((np.full((height, width, 3), 127, np.uint8),))
        needed = preparation(model, item, predictor)
        if needed is not None:
            took = min(_seconds(partial(prepared, item, predictor)) for _ in range(_RUNS))
            seen.append((needed.kind, needed.size, took * 1000))
    return seen


def _timed(predictor: Predictor, work: list[tuple[Operation, Item]]) -> float:
    """Seconds that a batch takes."""
    return _seconds(partial(run_batch, predictor, work))


def _seconds(run: Callable[[], object]) -> float:
    started = time.monotonic()
    run()
    return time.monotonic() - started


def _work(predictor: Predictor) -> Iterator[tuple[Operation, Item]]:
    config, side = predictor.config.model, predictor.config.images.size
    learnt = predictor.config.training.learnt
    image = np.full((side, side, 3), 127, np.uint8)
    if learnt("vision", "vision.pool"):
        yield EmbedImages("pooled"), Item((image,))
    if learnt("vision"):
        yield EmbedImages("tokens"), Item((image,))
    if config.joint is not None and learnt("joint"):
        yield EmbedImages("joint"), Item((image,))
        yield EmbedTexts(), Item(text="warm up")
    if config.pixel_decoder is not None and learnt("pixel_decoder"):
        told = config.pixel_decoder.text_context and learnt("pixel_decoder.from_text")
        for spec in (MaskSpec(), *([MaskSpec("importance")] if learnt("vision") else ())):
            yield FillImage(spec), Item((image,))
            if told:
                yield FillImage(spec), Item((image,), "warm up")
    if config.video is not None and learnt("video"):
        clip = np.stack([image] * config.video.frames)
        yield EmbedClips("pooled" if learnt("video.pool") else "tokens"), Item((clip,))
        if config.video_decoder is not None and learnt("video_decoder"):
            for spec in (
                MaskSpec("tube"),
                MaskSpec("importance"),
                MaskSpec("importance", source="change"),
            ):
                yield FillClip(spec), Item((clip,))
    if config.fusion is not None and learnt("fusion.token_head"):
        yield FillText(MaskSpec(), 5), Item(text="warm up")
        if learnt("fusion.from_image"):
            yield FillText(MaskSpec(), 5), Item((image,), "warm up")
    fills = learnt("fusion.action_head", "fusion.actions.embed") and config.fusion is not None
    if config.actions is not None and fills:
        actions = np.zeros((config.actions.max_steps, config.actions.dimensions), np.float32)
        yield FillActions(MaskSpec("block"), False, False), Item((actions,))
    if config.latent_action is not None and learnt("latent_action"):
        decodes = config.latent_action.decoded_steps > 0
        decodes = decodes and learnt("latent_action.action_decoder")
        for decode in {False, decodes}:
            yield LatentActions(decode, False), Item((image, image))
        if config.latent_action.target == "pixels":
            yield LatentActions(decodes, True), Item((image, image))
    world = predictor.model.world_model
    if world is not None and learnt("world_model", *predictor.rollout_reads):
        yield from _rollouts(world, decodes=learnt("world_model.decoder"))


def _rollouts(world: WorldModel, *, decodes: bool) -> Iterator[tuple[Operation, Item]]:
    """As a planner asks: all that can be looked back on, towards a goal, near and far.

    What lies between, and what looks back on less, is told by these (`cost.Length`).
    """
    config = world.config
    frame = np.zeros((world.trunk_grid**2, world.latent_width), np.float32)
    frame = frame[0] if config.latents == "pooled" else frame
    seen, each = np.stack([frame] * config.history), config.action_steps or 1
    for frames in sorted({1, config.max_steps}):
        acts = world.action_width > 0
        steps = (((config.history - 1) * each), frames * each) if acts else ()
        done = [np.zeros((count, world.action_width // each), np.float32) for count in steps]
        yield Rollout(frames, config.history, acts, True, False, False), Item((seen, *done, frame))
        if config.decoder is not None and decodes:
            yield Rollout(frames, config.history, acts, False, False, True), Item((seen, *done))
