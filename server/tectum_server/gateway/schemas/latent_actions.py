"""Frames in the order they were taken, and what changed between neighbours."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

import tectum
from tectum.vocabulary import VectorTypeName
from tectum_server.gateway import codec
from tectum_server.gateway.codec import EncodingFormat, Picture
from tectum_server.gateway.schemas.common import (
    MOST_ITEMS,
    Answered,
    Embedding,
    Info,
    ItemError,
    ListOf,
    ModelChoice,
    Strict,
)
from tectum_server.gateway.wrong import wrong

MISSING = "FIELD_MISSING"
ONE_OF = "allowed: exactly one of interval_ms and the frames' captured_at_ms"


class TimedImage(Strict):
    """A picture and when it was taken."""

    image: Picture
    """The picture."""
    captured_at_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """When the shutter closed, on any one clock. Absent: `interval_ms` is asserted for all."""


class PredictLatentActions(ModelChoice):
    """Frames to find latent actions between."""

    frames: Annotated[ListOf[TimedImage], Field(min_length=2, max_length=MOST_ITEMS)]
    """Oldest first, one model interval apart; all carry `captured_at_ms` or none does."""
    interval_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Asserts one interval for all neighbours; required where the frames carry no times."""
    decode_actions: bool = False
    """Also decode the robot's own actions."""
    predict_frames: bool = False
    """Also predict each pair's later frame."""
    data_type: VectorTypeName = "float32"
    """Element type of the latents."""
    encoding_format: EncodingFormat = "float"
    """Vectors as lists of numbers, or as base64 of their little-endian bytes."""

    @model_validator(mode="after")
    def _timed(self) -> Self:
        times = [frame.captured_at_ms for frame in self.frames]
        known = [time for time in times if time is not None]
        if known and len(known) != len(times):
            found = f"found captured_at_ms in {len(known)} of {len(times)} frames"
            raise wrong(f"{found}; allowed: in all or in none", reason=MISSING, field="frames")
        if not known and self.interval_ms is None:
            raise wrong(f"found neither; {ONE_OF}", reason=MISSING, field="interval_ms")
        if known and self.interval_ms is not None:
            raise wrong(f"found both; {ONE_OF}", field="interval_ms")
        for index, (earlier, later) in enumerate(pairwise(known), start=1):
            if later <= earlier:
                raise wrong(
                    f"found {later:g} after {earlier:g}; allowed: later than the frame before",
                    reason="INTERVAL_MISMATCH",
                    field=f"frames[{index}].captured_at_ms",
                )
        return self

    def captured_at(self) -> list[float] | None:
        """When the shutters closed, seconds. None: an interval is asserted."""
        times = [frame.captured_at_ms for frame in self.frames]
        return [time / 1000 for time in times if time is not None] or None


class LatentAction(Answered):
    """What changed between two frames."""

    latent: Embedding
    """The continuous vector."""
    codes: list[int]
    """The discrete codes. Empty: the bottleneck is continuous."""
    decoded_actions: list[list[float]] | None = None
    """[steps][A], in the robot's units. Absent: not asked for."""
    predicted_frame: str | None = None
    """Base64 PNG: the later frame as the model predicts it. Absent: not asked for."""
    interval_ms: float
    """Time between the two frames."""

    @classmethod
    def of(cls, action: tectum.LatentAction, encoding: EncodingFormat) -> "LatentAction":
        """Read the SDK's."""
        decoded, predicted = action.decoded_actions, action.predicted_frame
        return cls(
            latent=Embedding.of(action.latent, encoding),
            codes=list(action.codes),
            decoded_actions=None if decoded is None else decoded.tolist(),
            predicted_frame=None if predicted is None else codec.picture(predicted),
            interval_ms=action.interval * 1000,
        )


class LatentActionResult(Answered):
    """One pair's answer: exactly one is there."""

    latent_action: LatentAction | None = None
    error: ItemError | None = None


class LatentActionsAnswer(Answered):
    """The latent actions: one less than there are frames."""

    info: Info
    results: list[LatentActionResult]
    """One for each pair of neighbours, in order."""

    @classmethod
    def of(cls, batch: tectum.LatentActionBatch, encoding: EncodingFormat) -> "LatentActionsAnswer":
        """Read the SDK's."""
        results = [
            LatentActionResult(error=ItemError.of(item))
            if isinstance(item, tectum.ItemError)
            else LatentActionResult(latent_action=LatentAction.of(item, encoding))
            for item in batch
        ]
        return cls(info=Info.of(batch.info), results=results)
