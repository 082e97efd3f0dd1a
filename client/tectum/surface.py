"""Everything a worker can be asked, once, for both clients.

Each function here checks its arguments and returns the `Call` to make. `Client` and
`AsyncClient` turn each into a method of the same name and signature whose result is the call's
answer, so this is also their reference. Every one takes `CallOptions` as keywords, and
those that run a model `InferenceOptions`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Unpack

from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from numpy.typing import ArrayLike

from tectum import models, reconstructions, requests, results, rollouts
from tectum.calls import LOADING_WAIT, Answer, Call, CallOptions, InferenceOptions
from tectum.durations import duration
from tectum.images import ClipLike, ImageLike, put_image
from tectum.inputs import Mask
from tectum.models import Model
from tectum.reconstructions import (
    ActionReconstruction,
    ClipReconstruction,
    ImageReconstruction,
    TextReconstruction,
)
from tectum.requests import SimilarityItem
from tectum.results import EmbeddingBatch, LatentActionBatch, Similarity
from tectum.rollouts import RolloutBatch
from tectum.v1 import embed_pb2, latent_action_pb2, model_pb2, reconstruct_pb2, rollout_pb2
from tectum.vocabulary import Health, VectorKindName, VectorTypeName

_PERCEPTION = "/tectum.v1.PerceptionService"
_MODELS = "/tectum.v1.ModelService"
_HEALTH_WAIT = 5.0


def embed_images(
    images: Iterable[ImageLike],
    *,
    kind: VectorKindName | None = None,
    dtype: VectorTypeName = "float32",
    dimensions: int | None = None,
    **options: Unpack[InferenceOptions],
) -> Call[EmbeddingBatch]:
    """Turn pictures into vectors.

    Args:
        images: uint8[N, H, W, 3], or any pictures (see `ImageLike`), at least one.
        kind: `joint` (the image–text space, unit length), `pooled` (the trunk's own), `tokens`
            (one vector a patch). None: the first of these that the model has.
        dtype: Element type to travel in.
        dimensions: Keep only the first so many, renormalised. None: all.
        options: See `InferenceOptions`.

    Raises:
        InvalidInput: `violations` names the pictures.
    """
    request = requests.embed_images(images)
    request.vector.CopyFrom(requests.vector_options(kind, dtype, dimensions))
    response = embed_pb2.EmbedImagesResponse
    return Call(f"{_PERCEPTION}/EmbedImages", request, response, results.embedding_batch, options)


def embed_texts(
    texts: Iterable[str],
    *,
    dtype: VectorTypeName = "float32",
    dimensions: int | None = None,
    **options: Unpack[InferenceOptions],
) -> Call[EmbeddingBatch]:
    """Turn texts into vectors in the space shared with images.

    Args:
        texts: At least one, none empty. Of one with more than `Model.input.text.max_tokens`
            tokens only the beginning is read; its `Embedding.truncated` says so.
        dtype: Element type to travel in.
        dimensions: Keep only the first so many, renormalised. None: all.
        options: See `InferenceOptions`.
    """
    request = requests.embed_texts(texts)
    request.vector.CopyFrom(requests.vector_options(None, dtype, dimensions))
    response = embed_pb2.EmbedTextsResponse
    return Call(f"{_PERCEPTION}/EmbedTexts", request, response, results.embedding_batch, options)


def embed_clips(
    clips: Iterable[ClipLike],
    frame_interval: float | None = None,
    *,
    kind: VectorKindName | None = None,
    dtype: VectorTypeName = "float32",
    dimensions: int | None = None,
    **options: Unpack[InferenceOptions],
) -> Call[EmbeddingBatch]:
    """Turn short clips into vectors.

    Args:
        clips: Each uint8[T, H, W, 3], or a list of T pictures, oldest first.
        frame_interval: Seconds between frames. None: the model's own is asserted.
        kind: As for images; `tokens` are per tubelet.
        dtype: Element type to travel in.
        dimensions: Keep only the first so many, renormalised. None: all.
        options: See `InferenceOptions`.
    """
    request = requests.embed_clips(clips, frame_interval)
    request.vector.CopyFrom(requests.vector_options(kind, dtype, dimensions))
    response = embed_pb2.EmbedClipsResponse
    return Call(f"{_PERCEPTION}/EmbedClips", request, response, results.embedding_batch, options)


def similarity(
    left: Iterable[SimilarityItem],
    right: Iterable[SimilarityItem],
    **options: Unpack[InferenceOptions],
) -> Call[Similarity]:
    """Compare two lists, each item with each.

    Args:
        left: Rows. A `str` is a text, an `Embedding` a vector already in hand; anything else is
            a picture (a path must be a Path).
        right: Columns, alike.
        options: See `InferenceOptions`.
    """
    request = requests.compute_similarity(left, right)
    response = embed_pb2.ComputeSimilarityResponse
    return Call(f"{_PERCEPTION}/ComputeSimilarity", request, response, results.similarity, options)


def reconstruct_image(
    image: ImageLike,
    mask: Mask | None = None,
    *,
    text: str | None = None,
    **options: Unpack[InferenceOptions],
) -> Call[ImageReconstruction]:
    """Hide part of a picture and have the model fill it in.

    Args:
        image: The picture.
        mask: What to hide. None: random patches at the model's own ratio, seed 0.
        text: An instruction the model may use.
        options: See `InferenceOptions`.
    """
    request = requests.reconstruct(mask)
    put_image(request.image, image, "image")
    if text is not None:
        request.text_condition = requests.text(text, "text", empty=True)
    return _reconstruct(request, reconstructions.image, options)


def reconstruct_clip(
    clip: ClipLike,
    mask: Mask | None = None,
    *,
    frame_interval: float | None = None,
    **options: Unpack[InferenceOptions],
) -> Call[ClipReconstruction]:
    """Hide part of a clip and have the model fill it in.

    Args:
        clip: uint8[T, H, W, 3], or a list of T pictures, oldest first.
        mask: What to hide. None: random tubelets at the model's own ratio, seed 0, whatever
            training hid; usually it hides tubes, as `Mask("tube")` does.
        frame_interval: Seconds between frames. None: the model's own is asserted.
        options: See `InferenceOptions`.
    """
    request = requests.reconstruct(mask)
    requests.put_clip(request.clip, clip, frame_interval, "clip")
    return _reconstruct(request, reconstructions.clip, options)


def reconstruct_text(
    text: str,
    mask: Mask | None = None,
    *,
    image: ImageLike | None = None,
    top_k: int = 5,
    **options: Unpack[InferenceOptions],
) -> Call[TextReconstruction]:
    """Hide tokens of a text and have the model guess them.

    Args:
        text: Each literal `[MASK]` in it is one hidden token whose truth is unknown.
        mask: What else to hide. None: nothing if the text has a `[MASK]`, else random.
        image: A picture the model may use.
        top_k: Guesses to list for each hidden token, at most 20.
        options: See `InferenceOptions`.
    """
    request = requests.reconstruct(mask)
    request.text.text = requests.text(text, "text")
    request.top_k = requests.candidates(top_k)
    if image is not None:
        put_image(request.image_condition, image, "image")
    return _reconstruct(request, reconstructions.text, options)


def reconstruct_actions(
    actions: ArrayLike,
    mask: Mask | None = None,
    *,
    step_interval: float | None = None,
    text: str | None = None,
    image: ImageLike | None = None,
    state: ArrayLike | None = None,
    **options: Unpack[InferenceOptions],
) -> Call[ActionReconstruction]:
    """Hide steps of an action sequence and have the model fill them in.

    Args:
        actions: float[T, A] in the robot's own units; hidden steps must be finite all the same.
        mask: What to hide. None: random steps at the model's own ratio, seed 0; training hides a
            run of them, as `Mask("block")` does.
        step_interval: Seconds between steps. None: the model's own is asserted.
        text: An instruction the model may use.
        image: What the robot saw at the first step.
        state: float[S], the robot's state at the first step.
        options: See `InferenceOptions`.
    """
    request = requests.reconstruct(mask)
    request.actions.actions.CopyFrom(requests.numbers(actions, "actions", "T, A"))
    if step_interval is not None:
        request.actions.step_interval.CopyFrom(duration(step_interval, "step_interval"))
    if text is not None:
        request.text_condition = requests.text(text, "text", empty=True)
    if image is not None:
        put_image(request.image_condition, image, "image")
    if state is not None:
        request.state_condition.CopyFrom(requests.numbers(state, "state", "S"))
    return _reconstruct(request, reconstructions.actions, options)


def predict_latent_actions(
    frames: ClipLike,
    *,
    captured_at: Sequence[float] | None = None,
    interval: float | None = None,
    decode_actions: bool = False,
    predict_frames: bool = False,
    dtype: VectorTypeName = "float32",
    **options: Unpack[InferenceOptions],
) -> Call[LatentActionBatch]:
    """Say what changed between neighbouring frames.

    Args:
        frames: uint8[T, H, W, 3], or a list of T ≥ 2 pictures, oldest first, one model interval
            apart.
        captured_at: When each shutter closed, seconds on any one clock, rising.
        interval: Seconds between all neighbours, asserted; exactly one of the two is given.
        decode_actions: Also decode the robot's own actions.
        predict_frames: Also predict each pair's later frame.
        dtype: Element type for the latents to travel in.
        options: See `InferenceOptions`.
    """
    request = requests.predict_latent_actions(frames, captured_at, interval)
    request.decode_actions = decode_actions
    request.predict_frames = predict_frames
    request.data_type = requests.data_type(dtype)
    response = latent_action_pb2.PredictLatentActionsResponse
    return Call(
        f"{_PERCEPTION}/PredictLatentActions",
        request,
        response,
        results.latent_action_batch,
        options,
    )


def rollout(
    frames: ClipLike,
    candidates: ArrayLike | None = None,
    *,
    past_actions: ArrayLike | None = None,
    goal: ImageLike | None = None,
    steps: int | None = None,
    action_space_id: str = "",
    frame_interval: float | None = None,
    return_latents: bool = False,
    decode_frames: bool = False,
    dtype: VectorTypeName = "float32",
    **options: Unpack[InferenceOptions],
) -> Call[RolloutBatch]:
    """Say what would be seen if this or that were done.

    Lengths and intervals are the model's: `Model.input.world_model`, where k is `action_steps`.

    Args:
        frames: uint8[T, H, W, 3], or a list of T pictures, oldest first; the last one is now.
        candidates: float[K, F·k, A], K sequences of what may be done from now on, in the robot's
            own units, or latent actions. None: the model reads no actions.
        past_actions: float[(T − 1)·k, A], what was done between the frames; for T ≥ 2.
        goal: A picture of what shall be reached. None: no distances.
        steps: F, for a model that reads no actions.
        action_space_id: Space of latent actions, for a model that reads those.
        frame_interval: Seconds between frames. None: the model's own is asserted.
        return_latents: Also return the predicted latents.
        decode_frames: Also paint the predicted frames.
        dtype: Element type for the latents to travel in.
        options: See `InferenceOptions`.
    """
    request = requests.rollout(frames, past_actions, candidates, steps, frame_interval)
    request.action_space_id = requests.text(action_space_id, "action_space_id", empty=True)
    if goal is not None:
        put_image(request.goal, goal, "goal")
    request.return_latents = return_latents
    request.decode_frames = decode_frames
    request.data_type = requests.data_type(dtype)
    response = rollout_pb2.RolloutResponse
    return Call(f"{_PERCEPTION}/Rollout", request, response, rollouts.rollout_batch, options)


def list_models(**options: Unpack[CallOptions]) -> Call[tuple[Model, ...]]:
    """Every model on the worker, the default one first."""
    request, response = model_pb2.ListModelsRequest(), model_pb2.ListModelsResponse
    return Call(f"{_MODELS}/ListModels", request, response, models.listed, options)


def get_model(name: str = "", **options: Unpack[CallOptions]) -> Call[Model]:
    """One model in full, its card included.

    Args:
        name: Optionally `name@version`. Empty: the worker's default model.
        options: See `CallOptions`.
    """
    request = model_pb2.GetModelRequest(model=requests.text(name, "name", empty=True))
    response = model_pb2.GetModelResponse
    return Call(f"{_MODELS}/GetModel", request, response, models.single, options)


def load_model(
    name: str, version: str = "", make_default: bool = False, **options: Unpack[CallOptions]
) -> Call[Model]:
    """Load a model or a newer version of it, and return when it serves; needs an admin's token.

    Loading takes as long as it takes: a client's default timeout does not apply.

    Args:
        name: Name in the worker's repository.
        version: Empty: the repository's latest.
        make_default: Requests that name no model go here from now on.
        options: See `CallOptions`.
    """
    request = model_pb2.LoadModelRequest(
        name=requests.text(name, "name"),
        version=requests.text(version, "version", empty=True),
        make_default=make_default,
    )
    response = model_pb2.LoadModelResponse
    return Call(f"{_MODELS}/LoadModel", request, response, models.single, options, LOADING_WAIT)


def unload_model(name: str, **options: Unpack[CallOptions]) -> Call[None]:
    """Finish what is in flight and drop a model; needs an admin's token.

    Args:
        name: The model; not the default one.
        options: See `CallOptions`.
    """
    request = model_pb2.UnloadModelRequest(name=requests.text(name, "name"))
    response = model_pb2.UnloadModelResponse
    return Call(f"{_MODELS}/UnloadModel", request, response, models.unloaded, options, LOADING_WAIT)


def health(model: str = "", **options: Unpack[CallOptions]) -> Call[Health]:
    """Whether the worker, or one of its models, serves.

    Args:
        model: Empty: the worker as a whole.
        options: See `CallOptions`.

    Raises:
        NotFound: the worker has no such model.
    """
    # grpc.health.v1's messages have one field each, a string and an enum, both numbered 1. The
    # well-known wrappers have the same bytes, which spares the base install a package.
    request = StringValue(value=requests.text(model, "model", empty=True))
    path = "/grpc.health.v1.Health/Check"
    return Call(path, request, Int32Value, _health, options, _HEALTH_WAIT)


def _health(message: Int32Value) -> Health:
    known = {1: Health.SERVING, 2: Health.NOT_SERVING}
    return known.get(message.value, Health.UNKNOWN)


def _reconstruct(
    request: reconstruct_pb2.ReconstructRequest,
    read: Callable[[reconstruct_pb2.ReconstructResponse], Answer],
    options: InferenceOptions,
) -> Call[Answer]:
    response = reconstruct_pb2.ReconstructResponse
    return Call(f"{_PERCEPTION}/Reconstruct", request, response, read, options)
