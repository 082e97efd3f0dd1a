"""What Reconstruct answers: the target with its hidden part filled in, and how well.

Every array is a read-only view of the message, as in `results.py`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tectum.images import pixels
from tectum.results import ResponseInfo, response_info
from tectum.tensors import from_wire
from tectum.v1 import image_pb2, reconstruct_pb2

# T frames or steps, H×W pixels, A action dimensions


@dataclass(frozen=True, slots=True, eq=False)
class ImageReconstruction:
    """A picture filled in; patches run row by row."""

    input: NDArray[np.uint8]
    """uint8[H, W, 3]: the picture as the model saw it, before masking."""
    reconstruction: NDArray[np.uint8]
    """uint8[H, W, 3]: the same with the hidden patches as the model believes they look."""
    mask: NDArray[np.bool_]
    """bool[rows, columns] over patches: true was hidden."""
    element_error: NDArray[np.float32]
    """float32[rows, columns]: each hidden patch's mean squared error in the model's target space
    (1.0 is predicting zero); visible patches are NaN."""
    info: ResponseInfo


@dataclass(frozen=True, slots=True, eq=False)
class ClipReconstruction:
    """A clip filled in."""

    input: NDArray[np.uint8]
    """uint8[T, H, W, 3]: the frames as the model saw them."""
    reconstruction: NDArray[np.uint8]
    """uint8[T, H, W, 3]: the same with the hidden tubelets filled in."""
    mask: NDArray[np.bool_]
    """bool[steps, rows, columns] over tubelets: true was hidden."""
    element_error: NDArray[np.float32]
    """float32[steps, rows, columns], as for a picture."""
    info: ResponseInfo


@dataclass(frozen=True, slots=True)
class TokenCandidate:
    """One guess for a hidden token."""

    token: str
    probability: float
    """0 to 1."""


@dataclass(frozen=True, slots=True)
class TokenReconstruction:
    """One token of a reconstructed text."""

    token: str
    """As it was; `[MASK]` where the request did not say."""
    hidden: bool
    """Whether the model did not see it."""
    candidates: tuple[TokenCandidate, ...]
    """For a hidden token: the model's guesses, most probable first."""
    error: float | None
    """For a hidden token whose truth is known: −ln of the probability given to it."""


@dataclass(frozen=True, slots=True)
class TextReconstruction:
    """A text filled in."""

    text: str
    """The text with each hidden token replaced by the best guess."""
    tokens: tuple[TokenReconstruction, ...]
    """Every token in order, special tokens left out."""
    info: ResponseInfo


@dataclass(frozen=True, slots=True, eq=False)
class ActionReconstruction:
    """An action sequence filled in."""

    actions: NDArray[np.float32]
    """float32[T, A] in the robot's units: visible steps as sent, hidden ones as predicted."""
    mask: NDArray[np.bool_]
    """bool[T]: true was hidden."""
    element_error: NDArray[np.float32]
    """float32[T]: each hidden step's mean squared error in units of the training data's standard
    deviation; visible steps are NaN."""
    info: ResponseInfo


def image(message: reconstruct_pb2.ReconstructResponse) -> ImageReconstruction:
    """Read a picture filled in."""
    answer = message.image
    return ImageReconstruction(
        input=pixels(answer.input),
        reconstruction=pixels(answer.reconstruction),
        mask=from_wire(answer.mask),
        element_error=from_wire(answer.element_error),
        info=_info(message, "image"),
    )


def clip(message: reconstruct_pb2.ReconstructResponse) -> ClipReconstruction:
    """Read a clip filled in."""
    answer = message.clip
    return ClipReconstruction(
        info=_info(message, "clip"),
        input=_frames(answer.input),
        reconstruction=_frames(answer.reconstruction),
        mask=from_wire(answer.mask),
        element_error=from_wire(answer.element_error),
    )


def text(message: reconstruct_pb2.ReconstructResponse) -> TextReconstruction:
    """Read a text filled in."""
    answer = message.text
    tokens = (
        TokenReconstruction(
            token=token.token,
            hidden=token.hidden,
            candidates=tuple(TokenCandidate(c.token, c.probability) for c in token.candidates),
            error=token.error if token.HasField("error") else None,
        )
        for token in answer.tokens
    )
    return TextReconstruction(answer.text, tuple(tokens), _info(message, "text"))


def actions(message: reconstruct_pb2.ReconstructResponse) -> ActionReconstruction:
    """Read an action sequence filled in."""
    answer = message.actions
    return ActionReconstruction(
        info=_info(message, "actions"),
        actions=from_wire(answer.actions),
        mask=from_wire(answer.mask),
        element_error=from_wire(answer.element_error),
    )


def _info(message: reconstruct_pb2.ReconstructResponse, expected: str) -> ResponseInfo:
    found = message.WhichOneof("reconstruction")
    if found != expected:
        raise ValueError(f"a reconstruction of kind {found} came back for one of kind {expected}")
    return response_info(message.info)


def _frames(frames: Any) -> NDArray[np.uint8]:
    raws: list[image_pb2.RawImage] = list(frames)
    return np.stack([pixels(raw) for raw in raws])
