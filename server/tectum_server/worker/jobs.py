"""The vocabulary that fronts and the engine share: what can be asked, and what comes back.

Plain data, no behaviour: no grpc, no torch. Arrays are numpy here; how they cross
between processes is `link`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tectum_server.worker.outlook import Outlook

__all__ = [
    "Content",
    "EmbedClips",
    "EmbedImages",
    "EmbedTexts",
    "Engine",
    "FillActions",
    "FillClip",
    "FillImage",
    "FillText",
    "FilledToken",
    "Item",
    "ItemFailure",
    "ItemOutput",
    "Job",
    "JobResult",
    "LatentActions",
    "MaskSpec",
    "ModelEntry",
    "Operation",
    "Priority",
    "Rejection",
    "Renewal",
    "Rollout",
    "Sequel",
    "empty",
]

Array = NDArray[Any]
VectorName = Literal["joint", "pooled", "tokens"]


class Priority(IntEnum):
    """Lower goes first; the numbers are the wire's."""

    CONTROL = 1
    INTERACTIVE = 2
    BULK = 3


class MaskSpec(msgspec.Struct, frozen=True):
    """What to hide."""

    kind: Literal["random", "block", "importance", "tube", "explicit"] = "random"
    ratio: float | None = None
    """None: the model's own."""
    seed: int = 0
    hidden: tuple[int, ...] = ()
    """For "explicit"."""
    source: Literal["attention", "change"] = "attention"
    """For "importance": what matters."""
    hint: float = 0.0
    """For "importance": share of what is seen that is drawn from all elements alike."""


class EmbedImages(msgspec.Struct, frozen=True, tag=True):
    """Arrays: (uint8[H, W, 3],). Answers (float32[D],) or (float32[N, D],)."""

    name = "embed_images"
    vector: VectorName


class EmbedTexts(msgspec.Struct, frozen=True, tag=True):
    """Text: the item's. Answers (float32[J], int64[2]: tokens read, tokens cut off)."""

    name = "embed_texts"


class EmbedClips(msgspec.Struct, frozen=True, tag=True):
    """Arrays: (uint8[T, H, W, 3],). Answers as EmbedImages."""

    name = "embed_clips"
    vector: VectorName


class FillImage(msgspec.Struct, frozen=True, tag=True):
    """Arrays: (uint8[H, W, 3],); text: the condition, or empty.

    Answers (seen uint8[1, S, S, 3], filled likewise, mask bool[N], error float32[N]).
    """

    name = "fill_images"
    mask: MaskSpec


class FillClip(msgspec.Struct, frozen=True, tag=True):
    """Arrays: (uint8[T, H, W, 3],). Answers as FillImage, with T frames."""

    name = "fill_clips"
    mask: MaskSpec


class FillText(msgspec.Struct, frozen=True, tag=True):
    """Arrays: (uint8[H, W, 3],) if conditioned; text: the item's. Answers `tokens`."""

    name = "fill_texts"
    mask: MaskSpec | None
    """None: only the [MASK] written in the text."""
    top_k: int


class FillActions(msgspec.Struct, frozen=True, tag=True):
    """Arrays: actions float32[T, A], then state float32[S], then image uint8[H, W, 3], as flagged.

    Text: the condition, or empty. Answers (actions float32[T, A], mask bool[T], error float32[T]).
    """

    name = "fill_actions"
    mask: MaskSpec
    has_state: bool
    has_image: bool


class LatentActions(msgspec.Struct, frozen=True, tag=True):
    """Arrays: (earlier uint8[H, W, 3], later likewise).

    Answers (vector float32[D], codes int64[C], actions float32[k, A] or empty, frame
    uint8[s, s, 3] or empty); C is 0 if the bottleneck is continuous.
    """

    name = "latent_actions"
    decode_actions: bool
    predict_frame: bool


class Rollout(msgspec.Struct, frozen=True, tag=True):
    """Arrays: the trunk's vectors of T frames, then actions and the goal's vectors, as flagged.

    Actions are two arrays, float32[(T - 1)·k, A] between the frames and float32[F·k, A] after them.
    Answers (latents float32[F, ...], distances float32[F], frames uint8[F, S, S, 3]), each empty if
    not asked for.
    """

    name = "rollout"
    frames: int
    """F."""
    seen: int
    """T."""
    has_actions: bool
    has_goal: bool
    return_latents: bool
    decode_frames: bool


Operation = (
    EmbedImages
    | EmbedTexts
    | EmbedClips
    | FillImage
    | FillClip
    | FillText
    | FillActions
    | LatentActions
    | Rollout
)


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One thing to compute; which arrays and texts, its operation says."""

    arrays: tuple[Array, ...] = ()
    text: str = ""
    operation: Operation | None = None
    """Where a job has items of several operations; None: the job's."""


class Sequel(msgspec.Struct, frozen=True):
    """What a request will ask for once a job of its is answered, by the same deadline."""

    operation: Rollout
    items: int


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One request, as the engine sees it: items that share a fate in admission."""

    model: str
    """Name of a loaded model."""
    operation: Operation
    items: tuple[Item, ...]
    priority: Priority
    deadline: float
    """On the system's monotonic clock, seconds."""
    arrived: float | None = None
    """When the worker got it, or when a stream's frame was captured, on the same clock; None: just
    now."""
    version: str = ""
    """Bundle version that the job was prepared for; empty: whatever serves."""
    request_id: str = ""
    """Names the caller's request in the logs."""
    sequel: Sequel | None = None
    """Refused at once with the job, if both together cannot be in time; None: nothing follows."""
    turn: float | None = None
    """For a stream's place in the line: when the stream was last answered, or opened, on the same
    clock; the longest ago goes first among streams, whatever their deadlines. None: a call."""

    def operation_of(self, index: int) -> Operation:
        """What the item at `index` asks for."""
        return self.items[index].operation or self.operation


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What a job is computed from, where that may change."""

    items: tuple[Item, ...]
    deadline: float
    """As the job's, which it replaces."""


class Renewal(Protocol):
    """Newer content for a job that waits, so that it is computed from the newest there is.

    It is asked for shortly before the job's turn, or again and again until that comes.
    """

    async def newest(self, *, patient: bool) -> Content | None:
        """What is newer than what the job has, of the same operations.

        After a cancellation what was not handed over is the caller's own again.

        Args:
            patient: whether to wait until there is something; else what there is now, which may
                be nothing.
        """

    def settled(self, taken: bool) -> None:
        """Hear what became of what `newest` gave last, if it gave something.

        Args:
            taken: whether it has the place of what the job had before; else it came too late,
                or does not fit, and nothing is asked for any more.
        """


class FilledToken(msgspec.Struct, frozen=True):
    """One token of a reconstructed text."""

    token: str
    hidden: bool
    candidates: tuple[tuple[str, float], ...] = ()
    error: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ItemOutput:
    """One item's answer."""

    arrays: tuple[Array, ...] = ()
    tokens: tuple[FilledToken, ...] = ()
    text: str = ""


class ItemFailure(msgspec.Struct, frozen=True, tag=True):
    """Why one item has no answer."""

    reason: int
    """An ErrorReason."""
    message: str
    field: str = ""
    """Path into the request, where the engine knows one better than the item's own."""


@dataclass(frozen=True, slots=True, eq=False)
class JobResult:
    """A request's answers, in the order of its items, and where their time went."""

    version: str
    """Version of the model that answered."""
    outputs: tuple[ItemOutput | ItemFailure, ...]
    queue_seconds: float
    """From its arrival until its last batch began, while none of its items was computed."""
    compute_seconds: float
    """While any of them was."""
    batch_size: int
    """Items in the largest batch that one of them was part of."""


class Rejection(msgspec.Struct, frozen=True):
    """A version that should serve and does not."""

    version: str
    """Empty: it could not even be told."""
    why: str
    at: float
    """Seconds since 1970."""


class ModelEntry(msgspec.Struct, frozen=True):
    """A model as the engine announces it to the fronts."""

    name: str
    version: str
    """Empty: none of it was ever loaded."""
    state: Literal["loading", "ready", "failed", "evicted"]
    default: bool
    description: bytes
    """A serialised tectum.v1.Model, without card, limits, and what stands here."""
    card: str = ""
    spaces: dict[str, str] = {}
    """Space ids by the bundle's names."""
    logit_scale: float = 1.0
    logit_bias: float = 0.0
    memory_bytes: int = 0
    """What its weights take in memory."""
    load_seconds: float = 0.0
    """What it took to make it ready, the last time."""
    rejection: Rejection | None = None
    """Of the version that should serve in place of this one, or at all."""


class Engine(Protocol):
    """What a front needs of an engine, wherever it runs."""

    @property
    def models(self) -> Mapping[str, ModelEntry]:
        """The models by name, in whatever state; empty while the engine is away."""

    @property
    def back_in(self) -> float:
        """Seconds after which it is worth to ask again, if it is away."""

    def outlooks(self) -> Sequence[Outlook | None]:
        """What each engine that a job may go to last told of what it has to do.

        None: nothing is known, nothing waits, or nothing of this front's is with it.
        """

    def want(self, name: str) -> None:
        """Say that a model which has made room for another one is asked for; it is loaded again."""

    def expect_control(self) -> None:
        """Say that a CONTROL call came and was not sent, for it would be late: more may come."""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `models` has changed."""

    def off_change(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`."""

    async def submit(self, job: Job, renewal: Renewal | None = None) -> JobResult:
        """Compute a request; cancelling the call withdraws what has not run yet.

        Args:
            job: the request.
            renewal: gives newer content while it waits; None: what it has is what counts.

        Raises:
            Failure: refused, expired, or the engine is away.
        """

    async def load_model(self, name: str, version: str, make_default: bool) -> ModelEntry:
        """Load, check, warm up and swap in a model; empty version: the latest.

        Raises:
            Failure: MODEL_NOT_FOUND or BUNDLE_REJECTED; what served before still serves.
        """

    async def unload_model(self, name: str) -> None:
        """Drop a model once what it is computing is done.

        Raises:
            Failure: MODEL_NOT_FOUND, or it is the default model.
        """


def empty(dtype: type[np.generic] = np.float32) -> Array:
    """An array that stands for "not asked for"."""
    return np.zeros((0,), dtype)
