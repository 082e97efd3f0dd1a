"""What was seen and what may be done, and what would be seen if it were done."""

from collections.abc import Sequence
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
    Items,
    ListOf,
    ModelChoice,
)
from tectum_server.gateway.wrong import within, wrong

Finite = Annotated[float, Field(allow_inf_nan=False)]
Action = Annotated[ListOf[Finite], Field(min_length=1, max_length=MOST_ITEMS)]
Actions = Annotated[ListOf[Action], Field(min_length=1, max_length=MOST_ITEMS)]

ONE_OF = "allowed: exactly one of candidates and steps"


class PredictRollout(ModelChoice):
    """Frames that were seen, and sequences of what may be done next."""

    frames: Items[Picture]
    """Oldest first, one model interval apart; the last one shows what is seen now."""
    frame_interval_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Time between neighbouring frames. Absent: the model's own is asserted."""
    past_actions: Actions | None = None
    """[(frames − 1) · action_steps][A]: what was done between the frames; with two or more."""
    candidates: Items[Actions] | None = None
    """[K][F · action_steps][A]: what may be done from now on, in the robot's own units, or latent
    actions. Absent: the model reads no actions."""
    action_space_id: Annotated[str, Field(max_length=512)] = ""
    """Space of latent actions, for a model that reads those."""
    steps: Annotated[int, Field(ge=1, lt=2**32), within(f"1 to {2**32 - 1}")] | None = None
    """F, the frames to predict, for a model that reads no actions."""
    goal: Picture | None = None
    """What shall be reached, as a picture of it. Absent: no distances."""
    return_latents: bool = False
    """Also return the predicted latents."""
    decode_frames: bool = False
    """Also paint the predicted frames."""
    data_type: VectorTypeName = "float32"
    """Element type of the latents."""
    encoding_format: EncodingFormat = "float"
    """Latents as lists of numbers, or as base64 of their little-endian bytes."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.candidates is None) == (self.steps is None):
            reason = "FIELD_MISSING" if self.steps is None else "FIELD_OUT_OF_RANGE"
            found = "neither" if self.steps is None else "both"
            raise wrong(f"found {found}; {ONE_OF}", reason=reason, field="candidates")
        needed = self.candidates is not None and len(self.frames) > 1
        if needed and self.past_actions is None:
            found = f"found none for {len(self.frames)} frames; allowed: what was done between them"
            raise wrong(found, reason="FIELD_MISSING", field="past_actions")
        if self.past_actions is not None and not needed:
            allowed = "allowed: none without candidates, or with a single frame"
            raise wrong(f"found some; {allowed}", field="past_actions")
        if self.past_actions is not None:
            _check_equal(self.past_actions, "actions", "past_actions")
        if self.candidates is not None:
            _check_equal(self.candidates, "candidates", "candidates")
            flat = [action for one in self.candidates for action in one]
            _check_equal(flat, "actions", "candidates")
        return self


class Rollout(Answered):
    """What would be seen if one candidate were done."""

    latents: Embedding | None = None
    """[F, D], or [F, tokens, D]. Absent: not asked for."""
    goal_distances: list[float] | None = None
    """[F]: how far each predicted frame is from the goal; 0 is the goal, and what is far depends on
    the model. Absent: no goal."""
    frames: list[str] | None = None
    """Base64 PNGs: the predicted frames as the model paints them. Absent: not asked for."""

    @classmethod
    def of(cls, rollout: tectum.Rollout, encoding: EncodingFormat) -> "Rollout":
        """Read the SDK's."""
        latents, distances, frames = rollout.latents, rollout.goal_distances, rollout.frames
        return cls(
            latents=None if latents is None else Embedding.of(latents, encoding),
            goal_distances=None if distances is None else distances.tolist(),
            frames=None if frames is None else [codec.picture(frame) for frame in frames],
        )


class RolloutResult(Answered):
    """One candidate's answer: exactly one is there."""

    rollout: Rollout | None = None
    error: ItemError | None = None


class RolloutAnswer(Answered):
    """The rollouts."""

    info: Info
    results: list[RolloutResult]
    """One for each candidate, in order."""

    @classmethod
    def of(cls, batch: tectum.RolloutBatch, encoding: EncodingFormat) -> "RolloutAnswer":
        """Read the SDK's.

        Raises:
            InvalidInput: more numbers than are written as a list.
        """
        found = [item.latents for item in batch if isinstance(item, tectum.Rollout)]
        codec.check_listed([one.values for one in found if one is not None], encoding)
        results = [
            RolloutResult(error=ItemError.of(item))
            if isinstance(item, tectum.ItemError)
            else RolloutResult(rollout=Rollout.of(item, encoding))
            for item in batch
        ]
        return cls(info=Info.of(batch.info), results=results)


def _check_equal(lists: Sequence[Sequence[object]], what: str, field: str) -> None:
    """Lists of equal lengths are an array; others are none."""
    lengths = {len(one) for one in lists}
    if len(lengths) > 1:
        found = f"found {what} of {min(lengths)} to {max(lengths)}"
        raise wrong(f"{found}; allowed: of equal length", reason="SHAPE_MISMATCH", field=field)
