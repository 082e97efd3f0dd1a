"""What several routes send and answer: vectors, errors of items, how an answer was made."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

import tectum
from tectum.vocabulary import VectorKindName, VectorTypeName
from tectum_server.gateway import codec
from tectum_server.gateway.codec import EncodingFormat
from tectum_server.gateway.fields import rest_field, rest_words
from tectum_server.gateway.wrong import within, wrong

Member = TypeVar("Member")
ListOf = Annotated[list[Member], Field(fail_fast=True)]
"""A list in a request. Checked as far as the first wrong member: a body can hold hundreds of
thousands, and naming each would take the gateway minutes and gigabytes."""
MOST_ITEMS = 1024
"""Members of a list of items, frames, steps or a step's numbers: what the gateway reads. A worker's
own limits, of 64 items unless its operator said otherwise, are for the worker to judge; GET
/v1/models tells them."""
MOST_NUMBERS = 65_536
"""Numbers of one vector, and hidden elements of one mask."""
MOST_CHARACTERS = 65_536
"""Characters of one text."""
Items = Annotated[ListOf[Member], Field(min_length=1, max_length=MOST_ITEMS)]
"""A list of items, at least one; how many the worker takes, the model's limits say."""
Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
"""A text in a request."""
Dimensions = Annotated[int, Field(ge=1, lt=2**32), within(f"1 to {2**32 - 1}")]
"""So many of a vector's numbers."""
MOST_UNKNOWN = 8
"""Unknown fields that are named one by one, for the same reason."""

NumbersOrBase64 = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "number"}},
                {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
                {"type": "string", "contentEncoding": "base64"},
            ]
        }
    ),
]
"""A vector on its way out; checked where it is made, so that megabytes are not checked again."""


def milliseconds(seconds: float) -> float:
    """Seconds as REST tells them, to the microsecond."""
    return round(seconds * 1000, 3)


class Strict(BaseModel):
    """A request: an unknown key is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > len(cls.model_fields) + MOST_UNKNOWN:
            raise wrong(f"found {len(given)} fields; allowed: {', '.join(cls.model_fields)}")
        return given


class Answered(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ModelChoice(Strict):
    """What every request to a model may say."""

    model: str = Field(default="", max_length=512)
    """Model name, optionally `name@version`. Empty: the worker's default model."""


class TextVectorOptions(ModelChoice):
    """How vectors shall come back."""

    data_type: VectorTypeName = "float32"
    """Element type of the vectors."""
    dimensions: Dimensions | None = None
    """Keep only the first so many, renormalised; one of the space's truncations. Absent: all."""
    encoding_format: EncodingFormat = "float"
    """Vectors as lists of numbers, or as base64 of their little-endian bytes."""


class VectorOptions(TextVectorOptions):
    """How vectors shall come back, where there is more than one kind."""

    kind: VectorKindName | None = None
    """`joint`: in the space that images and texts share, unit length. `pooled`: the trunk's own
    features. `tokens`: one vector a patch or tubelet. Absent: the first of these that the model
    has."""


class Numerics(Answered):
    """Which arithmetic made the numbers; not part of a space."""

    precision: str
    engine: str


class Timings(Answered):
    """Where the time went inside the worker."""

    queue_ms: float
    """Waiting for the engine: while none of the request's items was computed."""
    decode_ms: float | None = None
    """Reading images: while any of the request's was read. Absent: nothing was decoded."""
    compute_ms: float
    """In the engine: while any of the request's items was computed."""
    total_ms: float
    """From the request's arrival at the worker to its answer."""
    batch_size: int
    """Items in the largest batch that an item of this request was part of."""


class Info(Answered):
    """How an answer was made."""

    model: str
    version: str
    numerics: Numerics
    timings: Timings
    request_id: str

    @classmethod
    def of(cls, info: tectum.ResponseInfo) -> "Info":
        """Read the SDK's."""
        timings = info.timings
        return cls(
            model=info.model,
            version=info.version,
            numerics=Numerics(precision=info.numerics.precision, engine=info.numerics.engine),
            timings=Timings(
                queue_ms=milliseconds(timings.queue),
                decode_ms=None if timings.decode is None else milliseconds(timings.decode),
                compute_ms=milliseconds(timings.compute),
                total_ms=milliseconds(timings.total),
                batch_size=timings.batch_size,
            ),
            request_id=info.request_id,
        )


class ItemError(Answered):
    """Why one item of a batch has no answer."""

    code: str
    """The gRPC code the whole call would have had."""
    reason: str
    """Name in the contract's ErrorReason."""
    field: str
    """The item, as a path into the request."""
    message: str
    """What was found and what is allowed."""
    retry_after_ms: float | None = None
    """After how long a retry can help. Absent: it cannot."""

    @classmethod
    def of(cls, error: tectum.ItemError) -> "ItemError":
        """Read the SDK's."""
        return cls(
            code=error.code,
            reason=error.reason,
            field=rest_field(error.field),
            message=rest_words(error.message, [error.field]),
            retry_after_ms=None if error.retry_after is None else milliseconds(error.retry_after),
        )


class Embedding(Answered):
    """A vector, or one vector a token, and the space it lives in."""

    values: NumbersOrBase64
    """[D], or [tokens, D]; or base64 of the same."""
    shape: list[int]
    """Length along each axis, which base64 does not say."""
    data_type: str
    """Element type."""
    space_id: str
    """Only vectors with equal space ids may be compared."""
    scale: float | None = None
    """For int8: multiply the values by this. Absent for floats."""
    tokens: int | None = None
    """Of a text: how many the model read, special ones included. Absent: not a text."""
    truncated: bool | None = None
    """Of a text: whether it was too long for the model, and only its beginning was read."""

    @classmethod
    def of(cls, embedding: tectum.Embedding, encoding: EncodingFormat) -> "Embedding":
        """Read the SDK's."""
        return cls(
            values=codec.vector(embedding.values, encoding),
            shape=list(embedding.values.shape),
            data_type=str(embedding.values.dtype),
            space_id=embedding.space_id,
            scale=embedding.scale,
            tokens=embedding.tokens or None,
            truncated=embedding.truncated if embedding.tokens else None,
        )
