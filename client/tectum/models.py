"""What a worker says about its models: abilities, spaces, input, limits, golden status.

Times are in seconds. A part of the input that a model does not take is None.
"""

from dataclasses import dataclass

from tectum.durations import seconds
from tectum.results import Numerics
from tectum.v1 import model_pb2
from tectum.vocabulary import (
    Capability,
    Interpolation,
    Modality,
    ModelState,
    ResizeMode,
    VectorKind,
    WorldActions,
    spoken,
)


@dataclass(frozen=True, slots=True)
class Space:
    """A space that vectors of a model live in."""

    space_id: str
    """Hash of the path that makes its vectors."""
    kind: VectorKind
    modalities: tuple[Modality, ...]
    """Which inputs lead here."""
    dimensions: int
    """Length of a vector."""
    truncations: tuple[int, ...]
    """Shorter lengths the model was trained for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold, and what happens without a deadline."""

    max_items: int
    max_message_bytes: int
    max_pixels: int
    """Of one image, height × width, before any resizing."""
    max_text_bytes: int
    """UTF-8 bytes of one text."""
    max_queued_items: int
    """Items that may wait at once, of all requests together."""
    control_deadline: float
    """Seconds a CONTROL call has that sets no deadline."""
    interactive_deadline: float
    """Seconds an INTERACTIVE call has."""
    bulk_deadline: float
    """Seconds a BULK call has."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """What pictures become before the model sees them."""

    size: int
    """Rows and columns, pixels."""
    patch_size: int
    """Side of one patch, pixels."""
    resize_mode: ResizeMode
    resize_to: int
    """For center_crop: what the shorter side is brought to, pixels. 0 otherwise."""
    interpolation: Interpolation
    mean: tuple[float, ...]
    """Subtracted per channel (R, G, B) after scaling to 0..1."""
    standard_deviation: tuple[float, ...]
    """Divided by per channel, after the mean."""


@dataclass(frozen=True, slots=True)
class TextInput:
    """What texts become."""

    max_tokens: int
    """Tokens beyond this are cut off, special tokens included."""
    vocabulary_size: int


@dataclass(frozen=True, slots=True)
class ClipInput:
    """What clips must be."""

    frames: int
    frame_interval: float
    """Seconds between frames."""
    tubelet_frames: int
    """Frames in one tubelet."""
    patch_size: int
    """Side of one tubelet, pixels of the model's input; not always that of a picture's patches."""


@dataclass(frozen=True, slots=True)
class ActionInput:
    """What action sequences must be, and what decoded actions are; also those of rollouts."""

    names: tuple[str, ...]
    """Of each action dimension, in order."""
    max_steps: int
    """Of the longest sequence to reconstruct. 0: the model reconstructs none."""
    step_interval: float
    """Seconds between steps."""
    state_names: tuple[str, ...]
    """Of each dimension of the robot's state. Empty: the model takes none."""


@dataclass(frozen=True, slots=True)
class LatentActionInput:
    """What pairs of frames must be, and what comes out."""

    interval: float
    """Seconds between the two frames."""
    tolerance: float
    """Seconds a pair's interval may lie from it, either way."""
    dimensions: int
    """Length of the continuous vector."""
    codes: int
    """Codes in a latent action. 0: the bottleneck is continuous."""
    codebook_size: int
    """Values one code can take. 0: continuous."""
    decoded_steps: int
    """Robot actions decoded from one latent action. 0: none can be."""


@dataclass(frozen=True, slots=True)
class WorldModelInput:
    """What rollouts take."""

    interval: float
    """Seconds between two frames."""
    history: int
    """Most frames that are looked back on."""
    max_steps: int
    """Most frames that are predicted."""
    actions: WorldActions
    action_steps: int
    """Actions between two frames. 0: none is read."""
    action_dimensions: int
    """Numbers in one of them. 0: none is read."""
    latents: VectorKind
    """Which vectors of a frame are predicted: pooled or tokens."""
    latent_count: int
    """Latents of a frame."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model takes."""

    image: ImageInput | None
    text: TextInput | None
    clip: ClipInput | None
    actions: ActionInput | None
    latent_action: LatentActionInput | None
    world_model: WorldModelInput | None = None


@dataclass(frozen=True, slots=True)
class GoldenStatus:
    """Whether a model, as it runs there, reproduces the outputs stored in its bundle."""

    passed: bool
    max_abs_difference: float
    min_cosine: float
    outputs: int
    """Outputs compared."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A version that should serve and does not."""

    version: str
    """Empty: it could not even be told."""
    why: str
    rejected_at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model on a worker."""

    name: str
    version: str
    """Hash of the bundle's content."""
    state: ModelState
    failure: str
    """Why it could not be loaded. Empty unless failed."""
    default_model: bool
    """Whether requests that name no model go here."""
    capabilities: frozenset[Capability]
    spaces: tuple[Space, ...]
    input: InputSpec
    limits: Limits
    numerics: Numerics
    golden: GoldenStatus
    parameters: int
    card: str
    """The model card, Markdown. Empty unless the model was asked for by itself."""
    rejection: Rejection | None = None
    """The version that should serve by now, where it was rejected. None: nothing is wrong."""
    memory_bytes: int = 0
    """What its weights take. 0: it is not in memory."""

    def space(self, kind: VectorKind, modality: Modality = Modality.IMAGE) -> Space | None:
        """The space that a modality's vectors of a kind live in. None: the model has no such."""
        found = (s for s in self.spaces if s.kind == kind and modality in s.modalities)
        return next(found, None)


def listed(message: model_pb2.ListModelsResponse) -> tuple[Model, ...]:
    """Read a worker's models, the default one first."""
    return tuple(model(one) for one in message.models)


def single(message: model_pb2.GetModelResponse | model_pb2.LoadModelResponse) -> Model:
    """Read one model."""
    return model(message.model)


def unloaded(message: model_pb2.UnloadModelResponse) -> None:
    """Read that a model is gone."""


def model(message: model_pb2.Model) -> Model:
    """Read what a worker says about a model."""
    known = (spoken(Capability, number) for number in message.capabilities)
    golden = message.golden
    return Model(
        name=message.name,
        version=message.version,
        state=spoken(ModelState, message.state),
        failure=message.failure,
        default_model=message.default_model,
        capabilities=frozenset(known) - {Capability.UNKNOWN},
        spaces=tuple(_space(space) for space in message.spaces),
        input=_input(message.input),
        limits=_limits(message.limits),
        numerics=Numerics(message.numerics.precision, message.numerics.engine),
        golden=GoldenStatus(
            golden.passed, golden.max_abs_difference, golden.min_cosine, golden.outputs
        ),
        parameters=message.parameters,
        card=message.card,
        rejection=_rejection(message.rejection) if message.HasField("rejection") else None,
        memory_bytes=message.memory_bytes,
    )


def _rejection(message: model_pb2.Rejection) -> Rejection:
    return Rejection(message.version, message.why, message.rejected_at.ToNanoseconds() / 1e9)


def _space(message: model_pb2.Space) -> Space:
    return Space(
        space_id=message.space_id,
        kind=spoken(VectorKind, message.kind),
        modalities=tuple(spoken(Modality, n) for n in message.modalities),
        dimensions=message.dimensions,
        truncations=tuple(message.truncations),
    )


def _limits(message: model_pb2.Limits) -> Limits:
    return Limits(
        max_items=message.max_items,
        max_message_bytes=message.max_message_bytes,
        max_pixels=message.max_pixels,
        max_text_bytes=message.max_text_bytes,
        max_queued_items=message.max_queued_items,
        control_deadline=seconds(message.control_deadline),
        interactive_deadline=seconds(message.interactive_deadline),
        bulk_deadline=seconds(message.bulk_deadline),
    )


def _input(message: model_pb2.InputSpec) -> InputSpec:
    has = message.HasField
    return InputSpec(
        image=image_input(message.image) if has("image") else None,
        text=TextInput(message.text.max_tokens, message.text.vocabulary_size)
        if has("text")
        else None,
        clip=_clip_input(message.clip) if has("clip") else None,
        actions=_action_input(message.actions) if has("actions") else None,
        latent_action=_latent_action_input(message.latent_action) if has("latent_action") else None,
        world_model=_world_model_input(message.world_model) if has("world_model") else None,
    )


def image_input(message: model_pb2.ImageInput) -> ImageInput:
    """Read what pictures become."""
    return ImageInput(
        size=message.size,
        patch_size=message.patch_size,
        resize_mode=spoken(ResizeMode, message.resize_mode),
        resize_to=message.resize_to,
        interpolation=spoken(Interpolation, message.interpolation),
        mean=tuple(message.mean),
        standard_deviation=tuple(message.standard_deviation),
    )


def _clip_input(message: model_pb2.ClipInput) -> ClipInput:
    return ClipInput(
        message.frames,
        seconds(message.frame_interval),
        message.tubelet_frames,
        message.patch_size,
    )


def _action_input(message: model_pb2.ActionInput) -> ActionInput:
    return ActionInput(
        names=tuple(message.names),
        max_steps=message.max_steps,
        step_interval=seconds(message.step_interval),
        state_names=tuple(message.state_names),
    )


def _latent_action_input(message: model_pb2.LatentActionInput) -> LatentActionInput:
    return LatentActionInput(
        interval=seconds(message.interval),
        tolerance=seconds(message.tolerance),
        dimensions=message.dimensions,
        codes=message.codes,
        codebook_size=message.codebook_size,
        decoded_steps=message.decoded_steps,
    )


def _world_model_input(message: model_pb2.WorldModelInput) -> WorldModelInput:
    return WorldModelInput(
        interval=seconds(message.interval),
        history=message.history,
        max_steps=message.max_steps,
        actions=spoken(WorldActions, message.actions),
        action_steps=message.action_steps,
        action_dimensions=message.action_dimensions,
        latents=spoken(VectorKind, message.latents),
        latent_count=message.latent_count,
    )
