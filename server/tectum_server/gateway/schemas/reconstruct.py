"""A picture, a clip, a text or actions with a part hidden, and the part filled in."""

from typing import Annotated, Self

from pydantic import Field, model_validator

import tectum
from tectum.vocabulary import ImportanceSourceName, MaskKindName
from tectum_server.gateway import codec
from tectum_server.gateway.codec import Picture
from tectum_server.gateway.schemas.common import (
    MOST_ITEMS,
    MOST_NUMBERS,
    Answered,
    Info,
    Items,
    ListOf,
    ModelChoice,
    Strict,
    Text,
)
from tectum_server.gateway.schemas.embed import Clip
from tectum_server.gateway.wrong import within, wrong

Finite = Annotated[float, Field(allow_inf_nan=False)]
Step = Annotated[ListOf[Finite], Field(max_length=MOST_ITEMS)]
Indices = Annotated[
    ListOf[Annotated[int, Field(ge=0, lt=2**32)]],
    Field(max_length=MOST_NUMBERS),
    within(f"0 to {2**32 - 1}"),  # around the list: thousands of numbers are not worth a call each
]

TARGETS = ("image", "clip", "text", "actions")
BELONGS = {
    "text_condition": ("image", "actions"),
    "image_condition": ("text", "actions"),
    "state_condition": ("actions",),
    "step_interval_ms": ("actions",),
    "frame_interval_ms": ("clip",),
    "top_k": ("text",),
}
"""Which targets each of the other fields may be given with."""


class Mask(Strict):
    """What to hide before the model fills it in."""

    kind: MaskKindName | None = None
    """Absent: random, or explicit if `hidden` is given."""
    ratio: Annotated[float, Field(gt=0, lt=1), within("above 0 and below 1")] | None = None
    """Share of elements to hide. Absent: as the model was trained."""
    seed: Annotated[int, Field(ge=0, lt=2**64), within(f"0 to {2**64 - 1}")] | None = None
    """Equal seeds hide equal elements. Absent: 0."""
    hidden: Indices = Field(default_factory=list)
    """For explicit: the hidden elements' indices, row by row from 0."""
    source: ImportanceSourceName | None = None
    """For importance: what the encoder attends to, or what changes in a clip. Absent: attention."""
    hint: Annotated[float, Field(ge=0, le=1), within("0 to 1")] | None = None
    """For importance: share of what is left visible that is drawn from all alike. Absent: 0."""

    def read(self) -> tectum.Mask:
        """The mask, for the SDK."""
        return tectum.Mask(self.kind, self.ratio, self.seed, self.hidden, self.source, self.hint)


class Reconstruct(ModelChoice):
    """Something to hide part of and fill in again: exactly one of the four targets."""

    image: Picture | None = None
    """Target: a picture."""
    clip: Clip | None = None
    """Target: a clip."""
    text: Annotated[Text, Field(min_length=1)] | None = None
    """Target: a text. Every literal `[MASK]` in it is one hidden token of unknown truth."""
    actions: Items[Step] | None = None
    """Target: steps of the robot's own actions, in its units."""
    mask: Mask | None = None
    """What to hide. Absent: random at the model's own ratio, seed 0."""
    text_condition: Text | None = None
    """With an image or actions: an instruction the model may use."""
    image_condition: Picture | None = None
    """With a text or actions: a picture the model may use."""
    state_condition: Items[Finite] | None = None
    """With actions: the robot's state at the first step."""
    frame_interval_ms: Annotated[float, Field(gt=0)] | None = None
    """With a clip: time between frames. Absent: the model's own is asserted."""
    step_interval_ms: Annotated[float, Field(gt=0)] | None = None
    """With actions: time between steps. Absent: the model's own is asserted."""
    top_k: Annotated[int, Field(ge=1, le=20), within("1 to 20")] | None = None
    """With a text: how many candidates to list for each hidden token. Absent: 5."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = [name for name in TARGETS if getattr(self, name) is not None]
        if len(given) != 1:
            found, allowed = " and ".join(given) or "none", ", ".join(TARGETS)
            reason = "FIELD_OUT_OF_RANGE" if given else "FIELD_MISSING"
            raise wrong(f"found {found}; allowed: exactly one of {allowed}", reason=reason)
        for name, targets in BELONGS.items():
            if getattr(self, name) is not None and given[0] not in targets:
                allowed = " or ".join(targets)
                raise wrong(f"found with {given[0]}; allowed: with {allowed}", field=name)
        lengths = {len(step) for step in self.actions or ()}
        if len(lengths) > 1:
            found = f"found steps of {min(lengths)} to {max(lengths)} numbers"
            described = f"{found}; allowed: of equal length"
            raise wrong(described, reason="SHAPE_MISMATCH", field="actions")
        return self


class ImageReconstruction(Answered):
    """A picture filled in; patches run row by row."""

    input: str
    """Base64 PNG: the picture as the model saw it, before masking."""
    reconstruction: str
    """Base64 PNG: the same with the hidden patches filled in."""
    mask: list[list[bool]]
    """[rows][columns] over patches: true was hidden."""
    element_error: list[list[float | None]]
    """Each hidden patch's mean squared error (1.0 is predicting zero); null for visible ones."""


class ClipReconstruction(Answered):
    """A clip filled in."""

    input: list[str]
    """Base64 PNGs: the frames as the model saw them."""
    reconstruction: list[str]
    """Base64 PNGs: the same with the hidden tubelets filled in."""
    mask: list[list[list[bool]]]
    """[steps][rows][columns] over tubelets: true was hidden."""
    element_error: list[list[list[float | None]]]
    """As for a picture."""


class TokenCandidate(Answered):
    """One guess for a hidden token."""

    token: str
    probability: float


class TokenReconstruction(Answered):
    """One token of a reconstructed text."""

    token: str
    """As it was; `[MASK]` where the request did not say."""
    hidden: bool
    """Whether the model did not see it."""
    candidates: list[TokenCandidate]
    """For a hidden token: the model's guesses, most probable first."""
    error: float | None = None
    """For a hidden token of known truth: −ln of the probability given to it."""


class TextReconstruction(Answered):
    """A text filled in."""

    text: str
    """The text with each hidden token replaced by the best guess."""
    tokens: list[TokenReconstruction]
    """Every token in order, special tokens left out."""


class ActionReconstruction(Answered):
    """An action sequence filled in."""

    actions: list[list[float]]
    """Visible steps as sent, hidden ones as predicted."""
    mask: list[bool]
    """True was hidden."""
    element_error: list[float | None]
    """Each hidden step's mean squared error in standard deviations squared; null for visible."""


class ReconstructAnswer(Answered):
    """The target, filled in: the same one of the four that was asked."""

    info: Info
    image: ImageReconstruction | None = None
    clip: ClipReconstruction | None = None
    text: TextReconstruction | None = None
    actions: ActionReconstruction | None = None


def of_image(answer: tectum.ImageReconstruction) -> ReconstructAnswer:
    """Read the SDK's."""
    image = ImageReconstruction(
        input=codec.picture(answer.input),
        reconstruction=codec.picture(answer.reconstruction),
        mask=answer.mask.tolist(),
        element_error=codec.numbers(answer.element_error),
    )
    return ReconstructAnswer(info=Info.of(answer.info), image=image)


def of_clip(answer: tectum.ClipReconstruction) -> ReconstructAnswer:
    """Read the SDK's."""
    clip = ClipReconstruction(
        input=[codec.picture(frame) for frame in answer.input],
        reconstruction=[codec.picture(frame) for frame in answer.reconstruction],
        mask=answer.mask.tolist(),
        element_error=codec.numbers(answer.element_error),
    )
    return ReconstructAnswer(info=Info.of(answer.info), clip=clip)


def of_text(answer: tectum.TextReconstruction) -> ReconstructAnswer:
    """Read the SDK's."""
    tokens = [
        TokenReconstruction(
            token=token.token,
            hidden=token.hidden,
            candidates=[
                TokenCandidate(token=c.token, probability=c.probability) for c in token.candidates
            ],
            error=token.error,
        )
        for token in answer.tokens
    ]
    text = TextReconstruction(text=answer.text, tokens=tokens)
    return ReconstructAnswer(info=Info.of(answer.info), text=text)


def of_actions(answer: tectum.ActionReconstruction) -> ReconstructAnswer:
    """Read the SDK's."""
    actions = ActionReconstruction(
        actions=answer.actions.tolist(),
        mask=answer.mask.tolist(),
        element_error=codec.numbers(answer.element_error),
    )
    return ReconstructAnswer(info=Info.of(answer.info), actions=actions)
