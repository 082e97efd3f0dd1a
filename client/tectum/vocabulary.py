"""The contract's words, as Python enums.

Only names live here: what each one does is said where it is used. An enum that comes off the
wire has `UNKNOWN` for words a newer worker says and this SDK has not learnt yet, so that an
older robot keeps reading the rest of the answer.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum, StrEnum
from typing import Literal, TypeVar

from google.protobuf.descriptor import EnumDescriptor

from tectum.v1 import call_pb2, embed_pb2, model_pb2, stream_pb2

VectorKindName = Literal["joint", "pooled", "tokens"]
"""What kind of vector to ask for: in the image–text space, the trunk's own, or one a patch."""
VectorTypeName = Literal["float32", "float16", "int8"]
"""Element type that vectors shall travel in."""
MaskKindName = Literal["random", "block", "importance", "tube", "explicit"]
"""How the hidden part is chosen; `tectum.Mask` says what each means."""
ImportanceSourceName = Literal["attention", "change"]
"""What says how much a part matters; `tectum.Mask` says what each means."""


class Priority(IntEnum):
    """Which work goes first when not all of it can."""

    CONTROL = 1
    """A control loop waits; overtakes everything else."""
    INTERACTIVE = 2
    """A person or a program waits."""
    BULK = 3
    """Nobody waits: labelling, indexing."""


class VectorKind(StrEnum):
    """What kind of vectors a space holds."""

    JOINT = "joint"
    POOLED = "pooled"
    TOKENS = "tokens"
    LATENT_ACTION = "latent_action"
    WORLD_LATENT = "world_latent"
    UNKNOWN = "unknown"


class Capability(StrEnum):
    """What a model can do."""

    EMBED_IMAGES = "embed_images"
    EMBED_TEXTS = "embed_texts"
    EMBED_CLIPS = "embed_clips"
    RECONSTRUCT_IMAGES = "reconstruct_images"
    RECONSTRUCT_CLIPS = "reconstruct_clips"
    RECONSTRUCT_TEXTS = "reconstruct_texts"
    RECONSTRUCT_ACTIONS = "reconstruct_actions"
    PREDICT_LATENT_ACTIONS = "predict_latent_actions"
    DECODE_ACTIONS = "decode_actions"
    PREDICT_FRAMES = "predict_frames"
    ROLLOUT = "rollout"
    DECODE_ROLLOUTS = "decode_rollouts"
    UNKNOWN = "unknown"


class Modality(StrEnum):
    """Which input a space takes vectors from."""

    IMAGE = "image"
    TEXT = "text"
    CLIP = "clip"
    FRAME_PAIR = "frame_pair"
    FRAME_HISTORY = "frame_history"
    UNKNOWN = "unknown"


class WorldActions(StrEnum):
    """What a world model reads of what is done between two frames."""

    NONE = "none"
    """Nothing: it goes on as it saw things go."""
    REAL = "real"
    """The robot's own actions."""
    LATENT = "latent"
    """Latent actions of the same model."""
    UNKNOWN = "unknown"


class ModelState(StrEnum):
    """Where a model is in its life on a worker."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    EVICTED = "evicted"
    """It has made room for another model, and comes back for who asks for it."""
    UNKNOWN = "unknown"


class ResizeMode(StrEnum):
    """How the worker brings a picture to the model's size."""

    STRETCH = "stretch"
    CENTER_CROP = "center_crop"
    UNKNOWN = "unknown"


class Interpolation(StrEnum):
    """How the worker resamples a picture."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    UNKNOWN = "unknown"


class Side(StrEnum):
    """Which side of a comparison."""

    LEFT = "left"
    RIGHT = "right"
    UNKNOWN = "unknown"


class FrameStatus(StrEnum):
    """What became of a streamed frame."""

    OK = "ok"
    """Answered."""
    STALE = "stale"
    """Outlived its lifespan before the engine could take it."""
    SUPERSEDED = "superseded"
    """A newer frame arrived first."""
    FAILED = "failed"
    """Could not be answered; the result's `error` says why. The stream goes on."""
    UNKNOWN = "unknown"


class LatentActionStatus(StrEnum):
    """Whether a streamed frame's latent action could be had."""

    OK = "ok"
    INTERVAL_UNAVAILABLE = "interval_unavailable"
    """No earlier frame lies one model interval back, within its tolerance."""
    UNKNOWN = "unknown"
    """Not asked for."""


class Health(StrEnum):
    """What grpc.health.v1 says about a worker or one of its models."""

    SERVING = "serving"
    NOT_SERVING = "not_serving"
    UNKNOWN = "unknown"


WIRE: Mapping[type[Enum], EnumDescriptor] = {
    Priority: call_pb2.Priority.DESCRIPTOR,
    VectorKind: call_pb2.VectorKind.DESCRIPTOR,
    Capability: model_pb2.Capability.DESCRIPTOR,
    Modality: model_pb2.Modality.DESCRIPTOR,
    WorldActions: model_pb2.WorldActions.DESCRIPTOR,
    ModelState: model_pb2.ModelState.DESCRIPTOR,
    ResizeMode: model_pb2.ResizeMode.DESCRIPTOR,
    Interpolation: model_pb2.Interpolation.DESCRIPTOR,
    Side: embed_pb2.Side.DESCRIPTOR,
    FrameStatus: stream_pb2.FrameStatus.DESCRIPTOR,
    LatentActionStatus: stream_pb2.LatentActionStatus.DESCRIPTOR,
}
"""The contract's enum behind each of these; a test holds their words equal."""

AnyWord = TypeVar("AnyWord", bound=Enum)


def spoken(words: type[AnyWord], number: int) -> AnyWord:
    """The word for a number off the wire; `UNKNOWN` where this SDK has none."""
    value = WIRE[words].values_by_number.get(number)
    name = "" if value is None else value.name.removeprefix(prefix(WIRE[words]))
    return words[name if name in words.__members__ else "UNKNOWN"]


def numbers(wire: EnumDescriptor) -> dict[str, int]:
    """Every lower-case name of a contract's enum and its number, `unspecified` left out."""
    values = ((value.name.removeprefix(prefix(wire)), value.number) for value in wire.values)
    return {name.lower(): number for name, number in values if number != 0}


def prefix(wire: EnumDescriptor) -> str:
    """What the names of a contract's enum start with: `FRAME_STATUS_`."""
    words = "".join(f"_{letter}" if letter.isupper() else letter for letter in wire.name)
    return words.lstrip("_").upper() + "_"
