"""What a call answers: frozen values with numpy arrays, and how they are read off the wire.

Every arrived array is a read-only view of the message; `.copy()` it to write. Times are in
seconds. A reader raises ValueError where the worker's answer contradicts itself; the clients
turn that into InternalError.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from tectum import errors
from tectum.durations import seconds
from tectum.images import pixels
from tectum.tensors import from_wire
from tectum.v1 import call_pb2, embed_pb2, errors_pb2, latent_action_pb2, stream_pb2
from tectum.vocabulary import FrameStatus, LatentActionStatus, Side, spoken

# N items, D dimensions, L left and R right items, T frames, A action dimensions

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Numerics:
    """Which arithmetic made the numbers; not part of a space."""

    precision: str
    """`float32`, `bfloat16` or `int8`."""
    engine: str
    """What ran it, e.g. `torch-2.13.0/cpu/eager`."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went inside the worker, in seconds."""

    queue: float
    """Waiting for the engine: while none of the request's items was computed."""
    decode: float | None
    """Reading images: while any of the request's was read. None: nothing was decoded."""
    compute: float
    """In the engine: while any of the request's items was computed."""
    total: float
    """From the request's arrival to its answer."""
    batch_size: int
    """Items in the largest batch that one of them was part of, neighbours' included."""


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """How an answer was made."""

    model: str
    version: str
    numerics: Numerics
    timings: Timings
    request_id: str
    """Names this request in the worker's log."""


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why one item of a batch has no answer."""

    code: str
    """The gRPC code the whole call would have had, e.g. `INVALID_ARGUMENT`."""
    reason: str
    """Name in the contract's ErrorReason, without its prefix."""
    field: str
    """The item, as a path into the request: `images[3]`."""
    message: str
    """What was found and what is allowed."""
    retry_after: float | None
    """Seconds after which a retry can help. None: it cannot."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A vector, or one vector a token, and the space it lives in."""

    values: NDArray[Any]
    """As it travelled: float32, float16 or int8, [D], or [tokens, D]."""
    space_id: str
    """Only vectors with equal space ids may be compared."""
    scale: float | None = None
    """For int8: what the values are multiplied by. None for floats."""
    tokens: int = 0
    """Of a text: how many the model read, special ones included. 0: not a text."""
    truncated: bool = False
    """Of a text: it was longer than `Model.input.text.max_tokens`, and only its beginning read."""

    def as_float32(self) -> NDArray[np.float32]:
        """The vector itself: float32, dequantised where it travelled as int8."""
        vector = self.values.astype(np.float32, copy=False)
        return vector if self.scale is None else vector * np.float32(self.scale)


Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Batch(Generic[Item]):
    """One answer for each item, in order: a result, or why there is none."""

    items: tuple[Item | ItemError, ...]
    """In the request's order."""
    info: ResponseInfo
    """How the answer was made."""

    @property
    def errors(self) -> dict[int, ItemError]:
        """The failed items' errors by their place. Empty: all were answered."""
        return {i: item for i, item in enumerate(self.items) if isinstance(item, ItemError)}

    def answers(self) -> list[Item]:
        """Every item's result.

        Raises:
            ItemFailed: some have none; it lists them.
        """
        if self.errors:
            raise errors.ItemFailed(self.errors, len(self.items), self.info.request_id)
        return [item for item in self.items if not isinstance(item, ItemError)]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item | ItemError]:
        return iter(self.items)


class EmbeddingBatch(Batch[Embedding]):
    """One vector for each item of the request."""

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """All vectors: float32[N, D], or [N, tokens, D].

        Raises:
            ItemFailed: some items have no vector.
        """
        return np.stack([embedding.as_float32() for embedding in self.answers()])

    @property
    def space_id(self) -> str:
        """The space the vectors live in."""
        return next(item.space_id for item in self.items if isinstance(item, Embedding))


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityError:
    """An item that could not be compared; its row or column is NaN."""

    side: Side
    index: int
    """Its place on that side, from 0."""
    error: ItemError


@dataclass(frozen=True, slots=True, eq=False)
class Similarity:
    """How alike two lists are; every matrix is float32[L, R]."""

    cosine: NDArray[np.float32]
    """Cosine similarity, −1 to 1."""
    logits: NDArray[np.float32]
    """The cosine at the model's learnt scale and bias."""
    right_given_left: NDArray[np.float32]
    """Softmax along each row: given a left item, which right one."""
    left_given_right: NDArray[np.float32]
    """Softmax along each column."""
    space_id: str
    """The space the comparison was made in."""
    errors: tuple[SimilarityError, ...]
    """The items that failed. Empty: all were compared."""
    info: ResponseInfo
    truncated: tuple[str, ...] = ()
    """Texts too long for the model, of which only the beginning was compared: `right[3]`."""


@dataclass(frozen=True, slots=True, eq=False)
class LatentAction:
    """What changed between two frames, as the model names it."""

    latent: Embedding
    """The continuous vector."""
    codes: tuple[int, ...]
    """The discrete codes. Empty: the bottleneck is continuous."""
    decoded_actions: NDArray[np.float32] | None
    """float32[steps, A] in the robot's units. None: not asked for."""
    predicted_frame: NDArray[np.uint8] | None
    """uint8[H, W, 3]: the later frame as the model predicts it. None: not asked for."""
    interval: float
    """Seconds between the two frames."""


class LatentActionBatch(Batch[LatentAction]):
    """One latent action for each pair of neighbouring frames."""

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """All continuous vectors: float32[T−1, D].

        Raises:
            ItemFailed: some pairs have no latent action.
        """
        return np.stack([action.latent.as_float32() for action in self.answers()])

    @property
    def space_id(self) -> str:
        """The space the latent actions live in."""
        found = (item for item in self.items if isinstance(item, LatentAction))
        return next(found).latent.space_id


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """What became of one frame."""

    frame_id: int
    status: FrameStatus
    error: ItemError | None
    """Why the frame failed. None unless `status` is failed."""
    info: ResponseInfo | None
    """How the answer was made. None unless `status` is ok."""
    embedding: Embedding | None
    """The frame's vector. None: not asked for, or not ok."""
    latent_action_status: LatentActionStatus | None
    """Whether there is a latent action. None: not asked for, or not ok."""
    latent_action: LatentAction | None
    """What changed since `earlier_frame_id`; its interval is the actual one."""
    earlier_frame_id: int | None
    """The frame that the latent action starts from."""
    age: float
    """Seconds since its capture, when this was taken from the stream: by this computer's clock
    where that timed it (`own_clock`); else as the worker told it, and what it waited here."""


def response_info(message: call_pb2.ResponseInfo) -> ResponseInfo:
    """Read how an answer was made."""
    timings = message.timings
    return ResponseInfo(
        model=message.model,
        version=message.version,
        numerics=Numerics(message.numerics.precision, message.numerics.engine),
        timings=Timings(
            queue=seconds(timings.queue),
            decode=seconds(timings.decode) if timings.HasField("decode") else None,
            compute=seconds(timings.compute),
            total=seconds(timings.total),
            batch_size=timings.batch_size,
        ),
        request_id=message.request_id,
    )


def item_error(message: errors_pb2.ItemError) -> ItemError:
    """Read why an item failed."""
    reason = errors_pb2.ErrorReason.DESCRIPTOR.values_by_number.get(message.reason)
    return ItemError(
        code=_CODES.get(message.code, "UNKNOWN"),
        reason="" if reason is None else reason.name.removeprefix(errors.REASON_PREFIX),
        field=message.field,
        message=message.message,
        retry_after=seconds(message.retry_delay) if message.HasField("retry_delay") else None,
    )


def embedding(message: call_pb2.Embedding) -> Embedding:
    """Read a vector."""
    scale = message.scale if message.HasField("scale") else None
    return Embedding(
        from_wire(message.values), message.space_id, scale, message.tokens, message.truncated
    )


def embedding_batch(
    message: embed_pb2.EmbedImagesResponse
    | embed_pb2.EmbedTextsResponse
    | embed_pb2.EmbedClipsResponse,
) -> EmbeddingBatch:
    """Read the vectors of pictures, texts or clips."""
    found = items(message.results, "embedding", lambda result: embedding(result.embedding))
    return EmbeddingBatch(found, response_info(message.info))


def similarity(message: embed_pb2.ComputeSimilarityResponse) -> Similarity:
    """Read a comparison."""
    return Similarity(
        cosine=from_wire(message.cosine),
        logits=from_wire(message.logits),
        right_given_left=from_wire(message.right_given_left),
        left_given_right=from_wire(message.left_given_right),
        space_id=message.space_id,
        errors=tuple(
            SimilarityError(spoken(Side, e.side), e.index, item_error(e.error))
            for e in message.errors
        ),
        info=response_info(message.info),
        truncated=tuple(message.truncated),
    )


def latent_action(message: latent_action_pb2.LatentAction) -> LatentAction:
    """Read what changed between two frames."""
    decoded, predicted = message.HasField("decoded_actions"), message.HasField("predicted_frame")
    return LatentAction(
        latent=embedding(message.latent),
        codes=tuple(message.codes),
        decoded_actions=from_wire(message.decoded_actions) if decoded else None,
        predicted_frame=pixels(message.predicted_frame) if predicted else None,
        interval=seconds(message.interval),
    )


def latent_action_batch(
    message: latent_action_pb2.PredictLatentActionsResponse,
) -> LatentActionBatch:
    """Read the latent actions of neighbouring frames."""
    found = items(
        message.results, "latent_action", lambda result: latent_action(result.latent_action)
    )
    return LatentActionBatch(found, response_info(message.info))


def items(
    results: Iterable[Any], answered: str, read: Callable[[Any], Item]
) -> tuple[Item | ItemError, ...]:
    """Read every item's answer, or why it has none.

    Args:
        results: messages with a oneof `result`.
        answered: the field of an answer.
        read: reads it off its message.
    """
    found = list[Item | ItemError]()
    for result in results:
        which = result.WhichOneof("result")
        if which is None:
            raise ValueError("an item has neither an answer nor an error")
        found.append(read(result) if which == answered else item_error(result.error))
    return tuple(found)


def frame_result(message: stream_pb2.FrameResult) -> FrameResult:
    """Read what became of a frame."""
    latent_status = message.latent_action_status
    has_latent = message.HasField("latent_action")
    return FrameResult(
        frame_id=message.frame_id,
        status=spoken(FrameStatus, message.status),
        error=item_error(message.error) if message.HasField("error") else None,
        info=response_info(message.info) if message.HasField("info") else None,
        embedding=embedding(message.embedding) if message.HasField("embedding") else None,
        latent_action_status=spoken(LatentActionStatus, latent_status) if latent_status else None,
        latent_action=latent_action(message.latent_action) if has_latent else None,
        earlier_frame_id=message.earlier_frame_id if has_latent else None,
        age=seconds(message.age),
    )
