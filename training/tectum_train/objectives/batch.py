"""A batch as objectives see it: preprocessed tensors, and what several of them share.

The whole-image pass of the trunk and the texts' pass are made once a step, by whoever
asks first, and so are masks. What an objective reads beside a frame and its words (`Reads`)
is there if its configuration says so.

Letters: B batch, S the model's side, L text tokens, T action steps or frames of a clip, A numbers
in an action, P numbers in a state, V small views of side s, k action steps between two frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from enum import Flag, auto
from hashlib import blake2b
from typing import TypeVar

from torch import Generator, Tensor

from tectum_core.model import PerceptionModel, TextOutput, VisionOutput

__all__ = ["Batch", "Clip", "Reads", "given"]

_Value = TypeVar("_Value")


class Reads(Flag):
    """What is made of a sample beside its frame, its words, actions and state."""

    FRAME = 0
    """Nothing else."""
    LATER = auto()
    """The later frame of a pair."""
    RECOLOURED = auto()
    """Both frames of a pair again, in other colours."""
    VIEWS = auto()
    """Two views of the frame."""
    CLIP = auto()
    """Frames in a row, `data.clip`."""
    MOMENTS = auto()
    """Five frames of its episode: the start, three in order, the goal."""
    CROPS = auto()
    """Small views of the frame, as many as `augmentation.views.crops` says."""


@dataclass(slots=True)
class Clip:
    """Frames in a row of one episode, changed alike."""

    frames: Tensor
    """float[B, T, 3, S, S], normalised and augmented."""
    inside: Tensor
    """bool[B, T], False where the episode had ended and its last frame is repeated."""
    actions: Tensor
    """float[B, T, k, A], standardised, from each frame on, as they are shown: with whatever noise
    augmentation adds; A is 0 without actions."""


@dataclass(slots=True)
class Batch:
    """One step's samples, on the model's device."""

    earlier: Tensor
    """float[B, 3, S, S], normalised and augmented."""
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
    episode: Tensor
    """int64[B], equal where the episode is."""
    actions: Tensor
    """float[B, T, A], standardised; what is to be predicted."""
    padded: Tensor
    """bool[B, T], True where the episode had ended."""
    state: Tensor
    """float[B, P], standardised."""
    seeds: Tensor
    """int64[B] on the CPU, of each sample's own random choices; see `streams`."""
    generator: Generator
    """Of the random choices that this step's samples share, on the CPU."""
    noise: int
    """Seed of what can only draw from torch's global generator."""
    later: Tensor | None = None
    """float[B, 3, S, S], under the same augmentation; for `Reads.LATER`."""
    recoloured: Tensor | None = None
    """float[B, 2, 3, S, S], the pair where `earlier` and `later` are, in colours drawn anew and
    alike for both; for `Reads.RECOLOURED`."""
    views: Tensor | None = None
    """float[B, 2, 3, S, S], two views of the frame, each augmented by itself; for `Reads.VIEWS`."""
    crops: Tensor | None = None
    """float[B, V, 3, s, s], small views, likewise; for `Reads.CROPS`."""
    clip: Clip | None = None
    """For `Reads.CLIP`."""
    moments: Tensor | None = None
    """float[B, 5, 3, S, S]: one of the episode's first fifth, three in order, one of its last
    fifth; one augmentation for all. For `Reads.MOMENTS`."""
    action_noise: Tensor | None = None
    """float[B, T, A], what is added where actions are shown; None: nothing."""
    labels: dict[str, Tensor] = field(default_factory=dict)
    """int64[B] by the feature's name, for supervised objectives."""
    _image: dict[object, VisionOutput] = field(default_factory=dict, repr=False)
    _text: TextOutput | None = field(default=None, repr=False)
    _hidden: dict[object, Tensor] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.earlier.shape[0]

    def image(self, model: PerceptionModel) -> VisionOutput:
        """The trunk's view of the whole earlier frames; each trunk's own, where there are more."""
        if model.vision not in self._image:
            self._image[model.vision] = model.vision(self.earlier)
        return self._image[model.vision]

    def text(self, model: PerceptionModel) -> TextOutput:
        """The text trunk's view of the instructions."""
        if self._text is None:
            if model.text is None:
                raise ValueError("this model has no text trunk")
            self._text = model.text(self.ids, self.ids_seen)
        return self._text

    def hidden(self, drawer: object, draw: Callable[[], Tensor]) -> Tensor:
        """What one who hides patches draws for these samples: once, however often it is asked."""
        if drawer not in self._hidden:
            self._hidden[drawer] = draw()
        return self._hidden[drawer]

    @property
    def shown_actions(self) -> Tensor:
        """float[B, T, A], standardised: as whoever reads them, to tell others, is shown them."""
        return self.actions if self.action_noise is None else self.actions + self.action_noise

    def streams(self, purpose: str) -> Iterator[Generator]:
        """Each sample's own random choices, on the CPU; other ones by another purpose's name.

        A sample draws alike in whichever part of a batch and on whichever rank it is, which what is
        drawn for one after another from `generator` does not.
        """
        name = _number(purpose)
        for seed in self.seeds.tolist():
            yield Generator().manual_seed(seed ^ name)

    def stream(self, purpose: str) -> Generator:
        """Of what all samples of the step share, likewise: alike in every part and on every rank.

        Unlike `generator` it does not go on with what others draw.
        """
        return Generator().manual_seed(self.generator.initial_seed() ^ _number(purpose))

    def part(self, start: int, stop: int, step: int = 1) -> Batch:
        """Samples `start` to `stop`, every step-th, without what was computed of them.

        Each sample's own draws are what they were, and those of the step begin alike in every part.
        """
        own = slice(start, stop, step)
        cut: dict[str, object] = {"_image": {}, "_text": None, "_hidden": {}}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Tensor):
                cut[one.name] = value[own]
        if self.clip is not None:
            cut["clip"] = Clip(*(getattr(self.clip, one.name)[own] for one in fields(self.clip)))
        cut["labels"] = {name: value[own] for name, value in self.labels.items()}
        cut["generator"] = self.generator.clone_state()
        return replace(self, **cut)  # type: ignore[arg-type]


def given(value: _Value | None, what: str) -> _Value:
    """What an objective's `reads` asked for."""
    if value is None:
        raise ValueError(f"this batch was made without {what}; its objective does not ask for them")
    return value


def _number(purpose: str) -> int:
    """32 bits of a name."""
    return int.from_bytes(blake2b(purpose.encode(), digest_size=4).digest(), "little")
