"""Two lists to compare, each item with each."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

import tectum
from tectum.requests import SimilarityItem as Comparable
from tectum.vocabulary import VectorTypeName
from tectum_server.gateway import codec
from tectum_server.gateway.codec import Picture
from tectum_server.gateway.schemas.common import (
    Answered,
    Info,
    ItemError,
    ListOf,
    ModelChoice,
    Strict,
)
from tectum_server.gateway.wrong import wrong

Matrix = list[list[float | None]]


class GivenEmbedding(Strict):
    """A vector already in hand, as another route answered it."""

    values: ListOf[float] | str
    """Numbers, or base64 of the vector's little-endian bytes."""
    space_id: Annotated[str, Field(min_length=1)]
    """The space it lives in; must be the model's joint space."""
    data_type: VectorTypeName = "float32"
    """Element type."""
    scale: Annotated[float, Field(gt=0)] | None = None
    """For int8: what the values are multiplied by."""
    shape: ListOf[int] | None = None
    """As answered; [D]."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        values = codec.parse_vector(self.values, self.data_type)
        if values.size == 0 or (self.shape is not None and self.shape != [values.size]):
            described = f"found {values.size} values; allowed: one vector, [D]"
            raise wrong(described, reason="SHAPE_MISMATCH")
        return self

    def read(self) -> tectum.Embedding:
        """The vector, for the SDK."""
        values = codec.parse_vector(self.values, self.data_type)
        return tectum.Embedding(values, self.space_id, self.scale)


class SimilarityItem(Strict):
    """One side's member: exactly one of its parts is given."""

    image: Picture | None = None
    """A picture, embedded on the way."""
    text: Annotated[str, Field(min_length=1)] | None = None
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

    left: Annotated[ListOf[SimilarityItem], Field(min_length=1)]
    """The matrices' rows."""
    right: Annotated[ListOf[SimilarityItem], Field(min_length=1)]
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
        )
