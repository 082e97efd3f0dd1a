"""How each peer is asked, as its own clients ask it: bytes that were made before, and no more.

What a call gives up after is said to who can hear it (gRPC's deadline) and ends the others'
connection; whether they then compute all the same is theirs.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Protocol

import grpc
import httpx
import numpy as np
from numpy.typing import NDArray

from tectum.v1 import call_pb2, embed_pb2, image_pb2
from tectum_cli.load.driving import Answer, Outcome
from tectum_cli.load.traffic import Question

__all__ = ["WAYS", "Caller", "asking"]

_FULL = {429, 503}
_REFUSED = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
_GIVEN_UP = Answer(Outcome.EXPIRED, "no answer by then")
_MOST = 32 * 2**20


@dataclass(frozen=True)
class Way:
    """What a peer's calls look like."""

    path: str
    """HTTP's path, or gRPC's method."""
    body: Callable[[bytes], bytes]
    """Of a JPEG file."""
    vector: Callable[[bytes], Any]
    """Of an answer."""
    kind: str = ""
    """HTTP's content type; empty: it is gRPC."""


class Caller(Protocol):
    """Makes calls; `driving.Ask`, and what an answer holds."""

    async def __call__(self, question: Question, left: float | None, /) -> Answer:
        """As driving.Ask."""

    async def vector(self, number: int) -> NDArray[np.float32]:
        """What a file's vector is, [D].

        Raises:
            OSError: it is not there yet.
            RuntimeError: it does not take what it is asked with.
        """


@asynccontextmanager
async def asking(way: Way, port: int, bodies: Sequence[bytes]) -> AsyncIterator[Caller]:
    """Who asks a server on this machine with these, in turn."""
    if way.kind:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=None) as client:
            yield _Http(client, f"http://127.0.0.1:{port}{way.path}", way, bodies)
    else:
        options = [("grpc.max_receive_message_length", _MOST)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            yield _Grpc(channel.unary_unary(way.path), way, bodies)


class _Http:
    def __init__(
        self, client: httpx.AsyncClient, url: str, way: Way, bodies: Sequence[bytes]
    ) -> None:
        self._client, self._url, self._way = client, url, way
        self._bodies, self._turn = bodies, cycle(bodies)

    async def __call__(self, _: Question, left: float | None) -> Answer:
        try:
            async with asyncio.timeout(left):
                answer = await self._post(next(self._turn))
        except TimeoutError:
            return _GIVEN_UP
        except httpx.HTTPError as error:
            return Answer(Outcome.FAILED, type(error).__name__)
        if answer.status_code == httpx.codes.OK:
            return Answer(Outcome.ANSWERED)
        refused = answer.status_code in _FULL
        return Answer(Outcome.REFUSED if refused else Outcome.FAILED, str(answer.status_code))

    async def vector(self, number: int) -> NDArray[np.float32]:
        try:
            answer = await self._post(self._bodies[number])
            if answer.is_client_error:  # which no waiting mends
                raise RuntimeError(f"{answer.status_code}: {answer.text[:200]}")
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise OSError(str(error)) from error
        return np.array(self._way.vector(answer.content), np.float32)

    async def _post(self, body: bytes) -> httpx.Response:
        kind = {"content-type": self._way.kind}
        return await self._client.post(self._url, content=body, headers=kind)


class _Grpc:
    def __init__(self, method: Any, way: Way, bodies: Sequence[bytes]) -> None:
        self._method, self._way = method, way
        self._bodies, self._turn = bodies, cycle(bodies)

    async def __call__(self, _: Question, left: float | None) -> Answer:
        try:
            await self._method(next(self._turn), timeout=left)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                return _GIVEN_UP
            refused = error.code() in _REFUSED
            return Answer(Outcome.REFUSED if refused else Outcome.FAILED, error.code().name)
        return Answer(Outcome.ANSWERED)

    async def vector(self, number: int) -> NDArray[np.float32]:
        try:
            answer = await self._method(self._bodies[number], timeout=60)
        except grpc.aio.AioRpcError as error:
            raise OSError(str(error.code())) from error
        return np.array(self._way.vector(answer), np.float32)


def _as_json(make: Callable[[str], dict[str, Any]]) -> Callable[[bytes], bytes]:
    return lambda file: json.dumps(make(base64.b64encode(file).decode())).encode()


def _embedding(answer: bytes) -> Any:
    return json.loads(answer)["embedding"]


def _ours(file: bytes) -> bytes:
    asked = embed_pb2.EmbedImagesRequest(images=[image_pb2.Image(encoded=file)])
    asked.vector.kind = call_pb2.VECTOR_KIND_JOINT
    return asked.SerializeToString()


def _our_vector(answer: bytes) -> NDArray[np.float32]:
    (result,) = embed_pb2.EmbedImagesResponse.FromString(answer).results
    return np.frombuffer(result.embedding.values.data, np.float32)


def _tritons_vector(answer: bytes) -> NDArray[np.float32]:
    """Its last field: four bytes for each number, after their length."""
    for width in range(64, 4096, 64):
        size = 4 * width
        if answer[-size - 3 : -size] == bytes([0x32, size & 127 | 128, size >> 7]):
            return np.frombuffer(answer[-size:], np.float32)
    raise ValueError("no vector in Triton's answer")


WAYS = {
    "tectum": Way("/tectum.v1.PerceptionService/EmbedImages", _ours, _our_vector),
    "triton": Way("/inference.GRPCInferenceService/ModelInfer", bytes, _tritons_vector),
    "mosec": Way("/inference", bytes, _embedding, "application/octet-stream"),
    "ray": Way("/", bytes, _embedding, "application/octet-stream"),
    "litserve": Way(
        "/predict", _as_json(lambda text: {"image": text}), _embedding, "application/json"
    ),
    "infinity": Way(
        "/embeddings",
        _as_json(
            lambda text: {
                "model": "tower",
                "input": [f"data:image/jpeg;base64,{text}"],
                "modality": "image",
            }
        ),
        lambda answer: json.loads(answer)["data"][0]["embedding"],
        "application/json",
    ),
}
"""By name. Triton's bodies are made by its own client (`peer/triton_requests.py`)."""
