"""A request of the contract as a REST caller would say it: route, JSON, headers.

Written beside the gateway, without its help, so that what both have to agree on is said twice.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from tests.bundles import png
from tests.server.worker.messages import array, pixels_of

from tectum.v1 import call_pb2, image_pb2, model_pb2, reconstruct_pb2, tensor_pb2

ROUTES = {
    "EmbedImagesRequest": "/v1/embed/images",
    "EmbedTextsRequest": "/v1/embed/texts",
    "EmbedClipsRequest": "/v1/embed/clips",
    "ComputeSimilarityRequest": "/v1/similarity",
    "ReconstructRequest": "/v1/reconstruct",
    "PredictLatentActionsRequest": "/v1/latent-actions",
    "RolloutRequest": "/v1/rollout",
}


class NotInRest(Exception):
    """REST has no words for this request."""


@dataclass
class Asked:
    """A REST request."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


def in_rest(request: Message) -> Asked:
    """The same request over REST.

    Raises:
        NotInRest: REST cannot say it.
    """
    if isinstance(request, model_pb2.GetModelRequest):
        return Asked("GET", f"/v1/models/{request.model}")
    asked = Asked("POST", ROUTES[type(request).__name__], _fields(request))
    options: call_pb2.RequestOptions = request.options  # type: ignore[attr-defined]
    if options.model:
        asked.body["model"] = options.model
    if options.priority:
        asked.headers["X-Tectum-Priority"] = _word(call_pb2.Priority, options.priority)
    if options.expected_space_ids:
        asked.headers["X-Tectum-Expected-Space"] = ",".join(options.expected_space_ids)
    return asked


def _fields(message: Message) -> dict[str, Any]:
    """Every field that is set, under REST's name and in REST's shape."""
    body: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        name = descriptor.name
        match value:
            case call_pb2.RequestOptions():
                pass
            case call_pb2.VectorOptions():
                body |= _vector(value)
            case Duration():
                body[f"{name}_ms"] = value.ToNanoseconds() / 1e6
            case reconstruct_pb2.MaskedText():
                body["text"] = value.text
            case reconstruct_pb2.MaskedActions():
                body |= _fields(value)
            case _ if name == "clips":
                body["clips"] = [{"frames": [_picture(f) for f in clip.frames]} for clip in value]
                body |= _interval_of(value)
            case _ if name == "data_type":
                body[name] = _word(tensor_pb2.DataType, value)
            case _ if name == "captured_at":
                body["captured_at_ms"] = value.ToNanoseconds() / 1e6
            case _ if descriptor.is_repeated:
                body[name] = [_value(one) for one in value]
            case _:
                body[name] = _value(value)
    return body


def _value(value: Any) -> Any:
    match value:
        case image_pb2.Image():
            return _picture(value)
        case tensor_pb2.Tensor():
            return array(value).tolist()
        case reconstruct_pb2.Mask():
            words = {
                name: _word(enum, number)
                for name, enum, number in (
                    ("kind", reconstruct_pb2.MaskKind, value.kind),
                    ("source", reconstruct_pb2.ImportanceSource, value.source),
                )
                if number
            }
            return _fields(value) | words
        case Message():
            return _fields(value)
        case _:
            return value


def _vector(options: call_pb2.VectorOptions) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if options.kind:
        body["kind"] = _word(call_pb2.VectorKind, options.kind)
    if options.data_type:
        body["data_type"] = _word(tensor_pb2.DataType, options.data_type)
    if options.dimensions:
        body["dimensions"] = options.dimensions
    return body


def _interval_of(clips: Any) -> dict[str, Any]:
    """REST asserts one interval for all clips."""
    said = [clip.frame_interval for clip in clips if clip.HasField("frame_interval")]
    return {"frame_interval_ms": said[0].ToNanoseconds() / 1e6} if said else {}


def _picture(image: image_pb2.Image) -> str:
    """Base64 of the file; pixels become one, since REST takes nothing else."""
    if image.WhichOneof("content") != "raw":
        return base64.b64encode(image.encoded).decode()
    if not image.raw.data or len(image.raw.data) != image.raw.height * image.raw.width * 3:
        raise NotInRest("a picture as raw pixels")
    return base64.b64encode(png(pixels_of(image.raw))).decode()


def _word(enum: Any, number: int) -> str:
    """An enum's word in REST; a number that no word has stays one."""
    if number not in enum.values():
        return str(number)
    prefix = "".join(f"_{c}" if c.isupper() else c for c in enum.DESCRIPTOR.name).strip("_").upper()
    return str(enum.Name(number)).removeprefix(f"{prefix}_").lower()
