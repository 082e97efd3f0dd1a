"""Two lists to compare, each item with each."""

from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag, model_validator

import tectum
from tectum.requests import SimilarityItem as Comparable
from tectum.vocabulary import VectorTypeName
from tectum_server.gateway import codec
from tectum_server.gateway.codec import Picture
from tectum_server.gateway.fields import rest_field
from tectum_server.gateway.schemas.common import (
    MOST_NUMBERS,
    Answered,
    Info,
    ItemError,
    Items,
    ListOf,
    ModelChoice,
    Strict,
    Text,
)
from tectum_server.gateway.wrong import branch, wrong

Matrix = list[list[float | None]]
Listed = Annotated[ListOf[float], Field(max_length=MOST_NUMBERS), Tag(branch("numbers"))]
Packed = Annotated[str, Field(max_length=8 * MOST_NUMBERS), Tag(branch("base64"))]
"""Room for as many float32 numbers, line breaks included."""
Values = Annotated[
    Listed | Packed,
    # So that what is wrong with one form is said of that form alone.
    Discriminator(lambda given: branch("base64" if isinstance(given, str) else "numbers")),
]


class GivenEmbedding(Strict):
    """A vector already in hand, as another route answered it."""

    values: Values
    """Numbers, or base64 of the vector's little-endian bytes."""
    space_id: Annotated[str, Field(min_length=1, max_length=512)]
    """The space it lives in; must be the model's joint space."""
    data_type: VectorTypeName = "float32"
    """Element type."""
    scale: Annotated[float, Field(gt=0)] | None = None
    """For int8: what the values are multiplied by."""
    shape: Annotated[ListOf[int], Field(max_length=8)] | None = None
    """As answered; [D]."""
    tokens: int | None = None
    """As answered; not used."""
    truncated: bool | None = None
    """As answered; not used."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        size = self.vector.size
        if size == 0 or (self.shape is not None and self.shape != [size]):
            described = f"found {size} values; allowed: one vector, [D]"
            raise wrong(described, reason="SHAPE_MISMATCH")
        return self

    @cached_property
    def vector(self) -> NDArray[np.generic]:
        """The values in their element type; [D]."""
        return codec.parse_vector(self.values, self.data_type)

    def read(self) -> tectum.Embedding:
        """The vector, for the SDK."""
        return tectum.Embedding(self.vector, self.space_id, self.scale)


class SimilarityItem(Strict):
    """One side's member: exactly one of its parts is given."""

    image: Picture | None = None
    """A picture, embedded on the way."""
    text: Annotated[Text, Field(min_length=1)] | None = None
    """A text, embedded on the way."""
    embedding: GivenEmbedding | None = None
    """A vector already in hand."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [part for part in (self.image, self.text, self.embedding) if part is not None]
        if len(given) != 1:
            reason = "FIELD_OUT_OF_RANGE" if given else "FIELD_MISSING"
            found = f"found {len(given) or 'none'}"
            allowed = "allowed: exactly one of image, text and embedding"
            raise wrong(f"{found}; {allowed}", reason=reason)
        return self

    def read(self) -> Comparable:
        """The item, for the SDK."""
        if self.image is not None:
            return self.image
        return self.text if self.text is not None else self.embedding.read()  # type: ignore[union-attr]


class ComputeSimilarity(ModelChoice):
    """Two lists to compare."""

    left: Items[SimilarityItem]
    """The matrices' rows; with `right` as many as the model's `limits.max_items` (GET
    /v1/models), 64 unless the operator said otherwise."""
    right: Items[SimilarityItem]
    """The matrices' columns."""


class SimilarityError(Answered):
    """An item that could not be compared; its row or column is null."""

    side: Literal["left", "right", "unknown"]
    """Which side it is on."""
    index: int
    """Its place there, from 0."""
    error: ItemError
    """Why."""


class SimilarityAnswer(Answered):
    """How alike the two lists are; matrices are [left][right]."""

    info: Info
    cosine: Matrix
    """Cosine similarity, −1 to 1."""
    logits: Matrix
    """The cosine at the model's learnt scale and bias."""
    right_given_left: Matrix
    """Softmax along each row: given a left item, which right one."""
    left_given_right: Matrix
    """Softmax along each column."""
    space_id: str
    """The space the comparison was made in."""
    errors: list[SimilarityError]
    """The items that failed. Empty: all were compared."""
    truncated: list[str]
    """Texts too long for the model, of which only the beginning was compared: `right[3]`."""

    @classmethod
    def of(cls, similarity: tectum.Similarity) -> "SimilarityAnswer":
        """Read the SDK's."""
        failed: list[dict[str, Any]] = [
            {"side": e.side.value, "index": e.index, "error": ItemError.of(e.error)}
            for e in similarity.errors
        ]
        return cls(
            info=Info.of(similarity.info),
            cosine=codec.numbers(similarity.cosine),
            logits=codec.numbers(similarity.logits),
            right_given_left=codec.numbers(similarity.right_given_left),
            left_given_right=codec.numbers(similarity.left_given_right),
            space_id=similarity.space_id,
            errors=[SimilarityError(**error) for error in failed],
            truncated=[rest_field(field) for field in similarity.truncated],
        )
