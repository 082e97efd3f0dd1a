"""Models, in the shape of OpenAI's list plus the contract's fields."""

from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field

import tectum
from tectum_server.gateway.schemas.common import Answered

OWNER = "tectum"


class ModelAnswer(Answered):
    """A model on the worker."""

    id: str
    """Its name, as requests give it."""
    object: Literal["model"] = "model"
    created: int = 0
    """Always 0: a bundle does not say when it was made. OpenAI's clients want the field."""
    owned_by: str = OWNER
    version: str
    """Hash of the bundle's content."""
    state: str
    """ready, failed, evicted (it has made room, and is loaded for who asks) or loading (again)."""
    failure: str
    """Why it could not be loaded. Empty unless failed."""
    default_model: bool
    """Whether requests that name no model go here."""
    capabilities: list[str]
    """What it can do."""
    spaces: list[dict[str, Any]] = Field(
        examples=[[{"space_id": "…", "kind": "joint", "dimensions": 512}]]
    )
    """The spaces of its vectors: space_id, kind, modalities, dimensions, truncations."""
    input: dict[str, Any]
    """What it takes, part by part; times in milliseconds. A part it does not take is absent."""
    limits: dict[str, Any]
    """What one request may hold; times in milliseconds."""
    numerics: dict[str, Any]
    """precision and engine."""
    golden: dict[str, Any]
    """Whether it reproduces its golden outputs here."""
    parameters: int
    """Trained parameters."""
    card: str
    """The model card, Markdown. Empty in the list."""
    rejection: dict[str, Any] | None = Field(
        default=None, examples=[{"version": "…", "why": "…", "rejected_at": 1767225600.0}]
    )
    """The version that should serve by now, where it was rejected: version, why, rejected_at in
    seconds since 1970. Absent: nothing is wrong."""
    memory_bytes: int = 0
    """What its weights take. 0: it is not in memory."""

    @classmethod
    def of(cls, model: tectum.Model) -> "ModelAnswer":
        """Read the SDK's."""
        spec = asdict(model.input)
        return cls(
            id=model.name,
            version=model.version,
            state=model.state.value,
            failure=model.failure,
            default_model=model.default_model,
            capabilities=sorted(capability.value for capability in model.capabilities),
            spaces=[asdict(space) for space in model.spaces],
            input={part: in_milliseconds(value) for part, value in spec.items() if value},
            limits=in_milliseconds(asdict(model.limits)),
            numerics=asdict(model.numerics),
            golden=asdict(model.golden),
            parameters=model.parameters,
            card=model.card,
            rejection=None if model.rejection is None else asdict(model.rejection),
            memory_bytes=model.memory_bytes,
        )


class ModelList(Answered):
    """Every model on the worker, the default one first."""

    object: Literal["list"] = "list"
    data: list[ModelAnswer]


TIMES = (
    "interval",
    "tolerance",
    "frame_interval",
    "step_interval",
    "control_deadline",
    "interactive_deadline",
    "bulk_deadline",
)
"""The SDK's fields that are seconds; REST says milliseconds, and says so in the name."""


def in_milliseconds(fields: dict[str, Any]) -> dict[str, Any]:
    """The same fields, times renamed and multiplied."""
    return {
        (f"{name}_ms" if name in TIMES else name): (value * 1000 if name in TIMES else value)
        for name, value in fields.items()
    }
