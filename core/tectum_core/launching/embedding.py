"""What of a bundle is recorded: vectors of pictures, clips and texts, which are what is asked most.

What fills in hidden parts, names actions or rolls out decides on the host what comes next, or comes
in many shapes, and is launched kernel by kernel.

Letters: B batch, S the model's side, T frames, L text tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tectum_core.inputs import CapabilityMissing, Inputs
from tectum_core.launching.device import Device, device_for
from tectum_core.launching.faults import out_of_memory
from tectum_core.launching.lane import Flight, Lane, Program, graph_sizes
from tectum_core.outputs import Picture
from tectum_core.preprocess import affine, scaled
from tectum_core.tokenizer import EncodedText
from tectum_core.vectors import VectorName, picture_vectors, text_vectors

if TYPE_CHECKING:
    from tectum_core.predictor import Predictor

__all__ = ["EmbeddingLane", "embedding_lane"]

_log = logging.getLogger(__name__)


def embedding_lane(
    predictor: Predictor,
    max_batch: int,
    find: Callable[[torch.device], Device | None] = device_for,
) -> EmbeddingLane | None:
    """What embeds in a predictor's place; None: nothing can be recorded, or it is on a CPU.

    Args:
        predictor: whose model and numerics it has.
        max_batch: the largest batch that it takes.
        find: finds the device.

    Raises:
        torch.AcceleratorError: the device is lost.
    """
    name = f"{predictor.bundle.name}@{predictor.bundle.version}"
    try:
        device = find(predictor.device)
        if device is None:
            return None
        lane = Lane(device, list(_programs(predictor)), graph_sizes(max_batch), name)
    except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
        if not out_of_memory(error):
            raise
        extra = {"model": name, "reason": str(error).partition("\n")[0]}
        _log.warning("no graphs: there is no memory for what passes through them", extra=extra)
        return None
    if lane.names:
        return EmbeddingLane(lane, Inputs(predictor.bundle, predictor.device))
    lane.close()
    return None


class EmbeddingLane:
    """Embeds pictures, clips and texts by recorded graphs.

    Every method begins a batch and does not wait for it; it gives None for what has no graphs, or
    not for so many. Items, and what comes of them, are as the predictor has them.
    """

    def __init__(self, lane: Lane, inputs: Inputs) -> None:
        self._lane = lane
        self._inputs = inputs

    @property
    def memory(self) -> int:
        """Bytes that it holds on the device, beside the model's weights."""
        return self._lane.memory

    @property
    def most(self) -> int:
        """Items of the largest batch that graphs are for."""
        return self._lane.most

    @property
    def without(self) -> Mapping[str, str]:
        """Why something has no graphs, by what it is."""
        return self._lane.without

    def images(self, pictures: Sequence[Picture], vector: VectorName) -> Flight | None:
        """Pictures; float32[B, J], [B, D] or [B, N, D] comes of them."""
        return self._pictures(f"image {vector}", pictures)

    def clips(self, clips: Sequence[Picture], vector: VectorName) -> Flight | None:
        """Clips; float32[B, D] or [B, N, D]."""
        return self._pictures(f"clip {vector}", clips)

    def texts(self, texts: Sequence[EncodedText]) -> Flight | None:
        """Texts that were read; float32[B, J]."""
        name = "text joint"
        if not self._lane.takes(name, len(texts)):
            return None
        return self._lane.launch(name, self._inputs.text_rows(texts))

    def close(self) -> None:
        """Free what it holds, once all that was begun has been fetched; nothing begins any more."""
        self._lane.close()

    @torch.inference_mode()
    def _pictures(self, name: str, pictures: Sequence[Picture]) -> Flight | None:
        if not self._lane.takes(name, len(pictures)):
            return None
        return self._lane.launch(name, self._inputs.picture_rows(pictures))


def _programs(predictor: Predictor) -> Iterator[Program]:
    """All that a predictor embeds."""
    config, learnt = predictor.config.model, predictor.config.training.learnt
    joint = config.joint is not None and learnt("joint")
    side = predictor.config.images.size
    noise = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8, generator=noise)
    if learnt("vision"):
        yield Program("image tokens", picture, _pictures(predictor, "tokens"))
    if learnt("vision", "vision.pool"):
        yield Program("image pooled", picture, _pictures(predictor, "pooled"))
    if joint:
        yield Program("image joint", picture, _pictures(predictor, "joint"))
    if config.video is not None and learnt("video"):
        clip = picture.expand(config.video.frames, -1, -1, -1).contiguous()
        yield Program("clip tokens", clip, _clips(predictor, "tokens"))
        if learnt("video.pool"):
            yield Program("clip pooled", clip, _clips(predictor, "pooled"))
    if joint and config.text is not None:
        tokens = torch.full((config.text.max_tokens + 1,), 1)
        tokens[-1] = config.text.max_tokens
        yield Program("text joint", tokens, _texts(predictor))


def _pictures(predictor: Predictor, vector: VectorName) -> Callable[[Tensor], Tensor]:
    """uint8[B, S, S, 3] to their vectors."""
    model, constants = predictor.model, affine(predictor.config.images, predictor.device)

    def forward(pictures: Tensor) -> Tensor:
        pixels = scaled(pictures.movedim(-1, -3), *constants)
        return picture_vectors(model, model.vision, pixels, vector).float()

    return forward


def _clips(predictor: Predictor, vector: VectorName) -> Callable[[Tensor], Tensor]:
    """uint8[B, T, S, S, 3] to their vectors."""
    model, constants = predictor.model, affine(predictor.config.images, predictor.device)
    video = model.video

    def forward(clips: Tensor) -> Tensor:
        if video is None:
            raise CapabilityMissing("this model has no video path")
        pixels = scaled(clips.movedim(-1, -3), *constants).transpose(1, 2)
        return picture_vectors(model, video, pixels, vector).float()

    return forward


def _texts(predictor: Predictor) -> Callable[[Tensor], Tensor]:
    """int64[B, L + 1], of each its tokens padded and how many there are, to their vectors."""
    model = predictor.model

    def forward(rows: Tensor) -> Tensor:
        ids, lengths = rows[:, :-1], rows[:, -1:]
        seen = torch.arange(ids.shape[1], device=ids.device) < lengths
        return text_vectors(model, ids, seen).float()

    return forward
