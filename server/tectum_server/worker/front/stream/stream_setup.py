"""What a stream was asked for, checked against the model that shall answer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from tectum.v1 import model_pb2, stream_pb2
from tectum_server.worker.front.call import Call
from tectum_server.worker.front.messages.wire import out_of_range
from tectum_server.worker.front.methods import latents
from tectum_server.worker.front.methods.vectors import VectorRequest
from tectum_server.worker.jobs import EmbedImages, LatentActions, Operation

__all__ = ["Setup", "read_depth"]

_MOST_WAITING = 16
"""Frames of one stream: each takes the memory of its message."""
_RESIZING = ("size", "resize_mode", "resize_to", "interpolation")
"""What of an ImageInput says how its size is reached."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the stream was asked for, and by which model."""

    asked: stream_pb2.StreamSetup
    call: Call
    """Model, spaces and request id; each frame works on a copy."""
    vector: VectorRequest | None
    """None: no vectors."""
    interval: latents.Interval | None
    """None: no latent actions."""

    @classmethod
    def of(cls, asked: stream_pb2.StreamSetup, call: Call) -> Self:
        """Check the setup against the call's model.

        Raises:
            Failure: that model cannot answer such a stream.
        """
        if asked.latent_actions:
            latents.require(call, asked.decode_actions, predict_frames=False)
        beside = "latent_action" if asked.latent_actions else ""
        vector = None
        if asked.embed:
            vector = VectorRequest.of(asked.vector, call, beside=beside)
        else:
            call.answer_in(beside)
        spec = call.served.description.input.latent_action
        interval = latents.Interval(spec) if asked.latent_actions else None
        return cls(asked, call, vector, interval)

    @property
    def image_input(self) -> model_pb2.ImageInput:
        """What the model makes of pictures."""
        return self.call.served.description.input.image

    def resizes_as(self, other: stream_pb2.Resized | model_pb2.ImageInput) -> bool:
        """Whether a picture that was brought to its size so is as this model has it."""
        own = self.image_input
        return all(getattr(own, name) == getattr(other, name) for name in _RESIZING)

    def operations(self, *, paired: bool) -> tuple[Operation, ...]:
        """What is computed of a frame.

        Args:
            paired: whether there is one to pair it with.
        """
        embed = () if self.vector is None else (EmbedImages(self.vector.vector),)
        if not paired:
            return embed
        return (*embed, LatentActions(self.asked.decode_actions, predict_frame=False))


def read_depth(asked: stream_pb2.StreamSetup) -> int:
    """How many frames may wait.

    Raises:
        Failure: FIELD_OUT_OF_RANGE.
    """
    if asked.depth > _MOST_WAITING:
        raise out_of_range("setup.depth", f"1 to {_MOST_WAITING}, found {asked.depth}")
    return asked.depth or 1
