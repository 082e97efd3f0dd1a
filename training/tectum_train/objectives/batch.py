"""A batch as objectives see it: preprocessed tensors, and what several of them share.

The whole-image pass of the trunk and the texts' pass are made once a step, by whoever
asks first. Letters: B batch, S the model's side, L text tokens, T action steps, A numbers
in an action, P numbers in a state.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Generator, Tensor

from tectum_core.model import PerceptionModel, TextOutput, VisionOutput

__all__ = ["Batch"]


@dataclass(slots=True)
class Batch:
    """One step's samples, on the model's device."""

    earlier: Tensor
    """float[B, 3, S, S], normalised and augmented."""
    later: Tensor
    """float[B, 3, S, S], under the same augmentation."""
    paired: Tensor
    """bool[B], whether the episode went on long enough for `later` to be what it says."""
    progress: Tensor
    """float[B], how much of its episode has gone by at `earlier`: 0 at the start, 1 at the end."""
    ids: Tensor
    """int64[B, L], the instruction's tokens."""
    ids_seen: Tensor
    """bool[B, L], False at padding."""
    content: Tensor
    """bool[B, L], True at the instruction's own tokens, special ones left out."""
    task: Tensor
    """int64[B], equal where the task is, and with it what the instruction means."""
    actions: Tensor
    """float[B, T, A], standardised."""
    padded: Tensor
    """bool[B, T], True where the episode had ended."""
    state: Tensor
    """float[B, P], standardised."""
    generator: Generator
    """Of this step's random choices, on the CPU."""
    noise: int
    """Seed of what can only draw from torch's global generator."""
    _image: VisionOutput | None = field(default=None, repr=False)
    _text: TextOutput | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.earlier.shape[0]

    def image(self, model: PerceptionModel) -> VisionOutput:
        """The trunk's view of the whole earlier frames."""
        if self._image is None:
            self._image = model.vision(self.earlier)
        return self._image

    def text(self, model: PerceptionModel) -> TextOutput:
        """The text trunk's view of the instructions."""
        if self._text is None:
            if model.text is None:
                raise ValueError("this model has no text trunk")
            self._text = model.text(self.ids, self.ids_seen)
        return self._text
