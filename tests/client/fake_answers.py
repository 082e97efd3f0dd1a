"""Deterministic arithmetic in place of a model: what a picture or a text is worth.

A picture's vector is its mean colour, its size and four constants; a text's is made of its
bytes. No learning, so every test can say what the answer must be.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from tests.client import fake_errors

from tectum.v1 import (
    call_pb2,
    embed_pb2,
    errors_pb2,
    image_pb2,
    reconstruct_pb2,
    rollout_pb2,
    tensor_pb2,
)

DIMENSIONS = 8
TOKENS = 4
JOINT, POOLED, TOKEN_SPACE, LATENT = "joint-1", "pooled-1", "tokens-1", "latent-1"
WORLD = "world-1"
SPACES = {0: JOINT, 1: JOINT, 2: POOLED, 3: TOKEN_SPACE}
"""Space of each VectorKind asked for."""

_TYPES = {1: "<f4", 2: "<f2", 3: "i1", 4: "u1", 5: "<i4", 6: "<i8", 7: "?"}


class Unreadable(Exception):
    """The bytes are no picture."""


def tensor(array: NDArray[np.generic], data_type: int = 1) -> tensor_pb2.Tensor:
    """An array for the wire."""
    data = array.astype(_TYPES[data_type]).tobytes()
    return tensor_pb2.Tensor(
        data_type=tensor_pb2.DataType.ValueType(data_type), shape=array.shape, data=data
    )


def array(message: tensor_pb2.Tensor) -> NDArray[np.generic]:
    """An array off the wire."""
    return np.frombuffer(message.data, _TYPES[message.data_type]).reshape(tuple(message.shape))


def pixels(image: image_pb2.Image) -> NDArray[np.uint8]:
    """uint8[H, W, 3] of a picture in either form."""
    if image.WhichOneof("content") == "raw":
        raw = image.raw
        return np.frombuffer(raw.data, np.uint8).reshape(raw.height, raw.width, 3)
    try:
        with Pictures.open(io.BytesIO(image.encoded)) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise Unreadable from error


def raw(array: NDArray[np.uint8]) -> image_pb2.RawImage:
    """Pixels for the wire."""
    return image_pb2.RawImage(height=array.shape[0], width=array.shape[1], data=array.tobytes())


def image_vector(array: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32[8]: mean R, G, B in 0..1, rows and columns in hundreds, 1, 2, 3."""
    height, width, _ = array.shape
    colour = array.reshape(-1, 3).mean(axis=0) / 255
    return np.array([*colour, height / 100, width / 100, 1, 2, 3], np.float32)


def text_vector(text: str) -> NDArray[np.float32]:
    """float32[8]: how many of the text's bytes leave each remainder by 8, plus one."""
    counts = np.bincount(np.frombuffer(text.encode(), np.uint8) % DIMENSIONS, minlength=DIMENSIONS)
    return (counts + 1).astype(np.float32)


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector at length 1."""
    return vector / np.float32(np.linalg.norm(vector))


def embedding(
    vector: NDArray[np.float32], options: call_pb2.VectorOptions, space: str = ""
) -> call_pb2.Embedding:
    """A vector as the request wants it."""
    if options.kind == call_pb2.VECTOR_KIND_TOKENS:
        vector = np.stack([vector * (token + 1) for token in range(TOKENS)])
    elif options.kind != call_pb2.VECTOR_KIND_POOLED and not space:
        vector = unit(vector[: options.dimensions or DIMENSIONS])
    message = call_pb2.Embedding(space_id=space or SPACES[options.kind])
    if options.data_type == tensor_pb2.DATA_TYPE_INT8:
        message.scale = float(np.abs(vector).max() / 127)
        vector = np.round(vector / message.scale)
    message.values.CopyFrom(tensor(vector, options.data_type or 1))
    return message


def count_tokens(text: str, result: embed_pb2.EmbedResult) -> None:
    """Say what was read of a text: at most eight words, and two special tokens."""
    if result.HasField("embedding"):
        words = len(text.split())
        result.embedding.tokens = 2 + min(words, 8)
        result.embedding.truncated = words > 8


def unreadable(field: str) -> errors_pb2.ItemError:
    """Why a picture has no answer."""
    return errors_pb2.ItemError(
        code=3,
        reason=fake_errors.R.ERROR_REASON_IMAGE_UNREADABLE,
        field=field,
        message=f"{field}: the bytes are no picture",
    )


def embed(
    vectors: Sequence[NDArray[np.float32] | None], options: call_pb2.VectorOptions, field: str
) -> list[embed_pb2.EmbedResult]:
    """One result an item; None is a picture that could not be read."""
    return [
        embed_pb2.EmbedResult(error=unreadable(f"{field}[{i}]"))
        if vector is None
        else embed_pb2.EmbedResult(embedding=embedding(vector, options))
        for i, vector in enumerate(vectors)
    ]


def similarity_vector(item: embed_pb2.SimilarityItem) -> NDArray[np.float32] | None:
    """float32[8] at length 1; None for a picture that could not be read."""
    match item.WhichOneof("item"):
        case "text":
            return unit(text_vector(item.text))
        case "image":
            try:
                return unit(image_vector(pixels(item.image)))
            except Unreadable:
                return None
        case _:
            values = array(item.embedding.values).astype(np.float32)
            return unit(values * np.float32(item.embedding.scale or 1))


def reconstructed_image(image: image_pb2.Image) -> reconstruct_pb2.ImageReconstruction:
    """The picture, its negative, and a 2×2 grid whose first patch was hidden."""
    seen = pixels(image)
    error = np.array([[0.5, np.nan], [np.nan, np.nan]], np.float32)
    return reconstruct_pb2.ImageReconstruction(
        input=raw(seen),
        reconstruction=raw(255 - seen),
        mask=tensor(~np.isnan(error), 7),
        element_error=tensor(error),
    )


def reconstructed_clip(clip: image_pb2.Clip) -> reconstruct_pb2.ClipReconstruction:
    """The frames, their negatives, and one tubelet hidden."""
    frames = [pixels(frame) for frame in clip.frames]
    return reconstruct_pb2.ClipReconstruction(
        input=[raw(frame) for frame in frames],
        reconstruction=[raw(255 - frame) for frame in frames],
        mask=tensor(np.ones((1, 1, 1), bool), 7),
        element_error=tensor(np.full((1, 1, 1), 0.25, np.float32)),
    )


def reconstructed_text(text: str, top_k: int) -> reconstruct_pb2.TextReconstruction:
    """Every `[MASK]` is guessed to be `block`; every other word was seen, the last one hidden."""
    words = text.split()
    tokens = []
    for place, word in enumerate(words):
        last = place == len(words) - 1
        token = reconstruct_pb2.TokenReconstruction(token=word, hidden=last or word == "[MASK]")
        if token.hidden:
            for rank in range(top_k or 5):
                token.candidates.add(token=f"block{rank or ''}", probability=0.5**rank / 2)
            if word != "[MASK]":
                token.error = 0.75
        tokens.append(token)
    return reconstruct_pb2.TextReconstruction(text=text.replace("[MASK]", "block"), tokens=tokens)


def reconstructed_actions(actions: tensor_pb2.Tensor) -> reconstruct_pb2.ActionReconstruction:
    """The steps as sent, but the last, which was hidden and is its negative."""
    steps = array(actions).astype(np.float32)
    filled = np.concatenate([steps[:-1], -steps[-1:]])
    error = np.full(len(steps), np.nan, np.float32)
    error[-1] = 0.125
    return reconstruct_pb2.ActionReconstruction(
        actions=tensor(filled), mask=tensor(~np.isnan(error), 7), element_error=tensor(error)
    )


def rolled_out(request: rollout_pb2.RolloutRequest) -> list[rollout_pb2.RolloutResult]:
    """Each step adds its action's first number to the last frame's vector; above 100 it fails."""
    now = image_vector(pixels(request.frames[-1]))
    candidates = np.zeros((1, request.steps, 1), np.float32)
    if request.HasField("candidates"):
        candidates = array(request.candidates).astype(np.float32)
    results = []
    for place, steps in enumerate(candidates):
        if steps[0, 0] > 100:
            results.append(rollout_pb2.RolloutResult(error=unreadable(f"candidates[{place}]")))
            continue
        latents = now + np.cumsum(steps[:, :1], axis=0)
        answer = rollout_pb2.Rollout()
        if request.return_latents:
            wanted = call_pb2.VectorOptions(kind=2, data_type=request.data_type)  # type: ignore[arg-type]
            answer.latents.CopyFrom(embedding(latents, wanted, WORLD))
        if request.HasField("goal"):
            goal = image_vector(pixels(request.goal))
            distances = ((latents - goal) ** 2).mean(axis=1).astype(np.float32)
            answer.goal_distances.CopyFrom(tensor(distances))
        if request.decode_frames:
            answer.frames.extend(raw(pixels(request.frames[-1])) for _ in steps)
        results.append(rollout_pb2.RolloutResult(rollout=answer))
    return results
