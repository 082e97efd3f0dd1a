"""A worker without a model, on a real port: the contract's services with arithmetic answers.

It does what a test tells it to: answer late, refuse with any reason, lose the details, ask for
credentials. It keeps what it was asked, so that a test can look.
"""

# The methods have the contract's names, and the contract says what they do.
# ruff: noqa: N802

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, NoReturn, Self

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from numpy.typing import NDArray
from tests.client import fake_answers, fake_errors, fake_models, fake_streams

from tectum.v1 import (
    call_pb2,
    embed_pb2,
    latent_action_pb2,
    model_pb2,
    model_pb2_grpc,
    perception_pb2_grpc,
    reconstruct_pb2,
    rollout_pb2,
    stream_pb2,
)


@dataclass
class Seen:
    """One call as the worker saw it."""

    rpc: str
    request: Any
    metadata: dict[str, str]
    deadline: float | None
    """Seconds the caller gave it. None: no deadline."""
    peer: str
    """Who called, by connection."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the call is over, cancelled ones included."""
    cancelled: bool = False
    """Whether the caller went away while the answer was being delayed."""


@dataclass
class Orders:
    """What the worker shall do with the calls to come."""

    refusals: list[Any] = field(default_factory=list)
    """Statuses for the next calls, one each; a grpc.StatusCode is sent without details."""
    delay: float = 0.0
    """Seconds before each answer."""
    token: str | None = None
    """Credentials to insist on."""
    hold_frames: threading.Event = field(default_factory=threading.Event)
    """A stream takes no frame until this is set; set at first."""
    clock_ahead: float | None = None
    """Seconds that the worker's clock is ahead; None: it answers no probes."""
    tells_input: bool = True
    """Whether a stream that asks is told what pictures become; older workers tell nobody."""
    size_from_now: int = 0
    """What pictures become before the next frame is answered; 0: as before."""


class FakeWorker(perception_pb2_grpc.PerceptionServiceServicer):
    """The worker; a context manager that serves while it is entered."""

    def __init__(
        self,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        most_calls: int | None = None,
    ) -> None:
        self.orders = Orders()
        self.orders.hold_frames.set()
        self.seen: list[Seen] = []
        self.frames: list[stream_pb2.StreamFrame] = []
        self.probes: list[stream_pb2.ClockProbe] = []
        self.models = {"tiny": fake_models.model("tiny", default=True, card="# tiny")}
        self.health = health.HealthServicer()
        self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        self.health.set("tiny", health_pb2.HealthCheckResponse.SERVING)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=16),
            options=[
                ("grpc.max_receive_message_length", 8 << 20),
                ("grpc.so_reuseport", 0),
                # Clients may look often whether it lives.
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 50),
            ],
            maximum_concurrent_rpcs=most_calls,
        )
        perception_pb2_grpc.add_PerceptionServiceServicer_to_server(self, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(FakeModels(self), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        if credentials is None:
            self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            self.port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)

    @property
    def address(self) -> str:
        """Where to call it."""
        return f"127.0.0.1:{self.port}"

    def refuse(self, reason: int, *, times: int = 1, **details: Any) -> None:
        """Refuse the next calls with a reason and its full status."""
        self.orders.refusals += [fake_errors.status(reason, **details)] * times

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()

    # The services

    def EmbedImages(
        self, request: embed_pb2.EmbedImagesRequest, context: Any
    ) -> embed_pb2.EmbedImagesResponse:
        vectors = list[NDArray[np.float32] | None]()
        for image in request.images:
            try:
                vectors.append(fake_answers.image_vector(fake_answers.pixels(image)))
            except fake_answers.Unreadable:
                vectors.append(None)
        with self.call("EmbedImages", request, context) as seen:
            if all(vector is None for vector in vectors):
                refuse(
                    context,
                    fake_errors.status(
                        fake_errors.R.ERROR_REASON_IMAGE_UNREADABLE,
                        violations=[("images[0]", "the bytes are no picture")],
                    ),
                )
            results = fake_answers.embed(vectors, request.vector, "images")
            return embed_pb2.EmbedImagesResponse(info=info(seen, len(vectors)), results=results)

    def EmbedTexts(
        self, request: embed_pb2.EmbedTextsRequest, context: Any
    ) -> embed_pb2.EmbedTextsResponse:
        with self.call("EmbedTexts", request, context) as seen:
            vectors = [fake_answers.text_vector(text) for text in request.texts]
            results = fake_answers.embed([*vectors], request.vector, "texts")
            for text, result in zip(request.texts, results, strict=True):
                fake_answers.count_tokens(text, result)
            return embed_pb2.EmbedTextsResponse(info=info(seen, len(vectors)), results=results)

    def EmbedClips(
        self, request: embed_pb2.EmbedClipsRequest, context: Any
    ) -> embed_pb2.EmbedClipsResponse:
        with self.call("EmbedClips", request, context) as seen:
            vectors = [
                np.mean(
                    [fake_answers.image_vector(fake_answers.pixels(f)) for f in clip.frames],
                    axis=0,
                )
                for clip in request.clips
            ]
            results = fake_answers.embed([*vectors], request.vector, "clips")
            return embed_pb2.EmbedClipsResponse(info=info(seen, len(vectors)), results=results)

    def ComputeSimilarity(
        self, request: embed_pb2.ComputeSimilarityRequest, context: Any
    ) -> embed_pb2.ComputeSimilarityResponse:
        with self.call("ComputeSimilarity", request, context) as seen:
            response = embed_pb2.ComputeSimilarityResponse(
                info=info(seen, len(request.left) + len(request.right)),
                space_id=fake_answers.JOINT,
            )
            sides = []
            for number, items, word in ((1, request.left, "left"), (2, request.right, "right")):
                vectors = [fake_answers.similarity_vector(item) for item in items]
                for index, vector in enumerate(vectors):
                    if vector is None:
                        response.errors.add(
                            side=embed_pb2.Side.ValueType(number),
                            index=index,
                            error=fake_answers.unreadable(f"{word}[{index}]"),
                        )
                missing = np.full(fake_answers.DIMENSIONS, np.nan, np.float32)
                sides.append(np.stack([missing if v is None else v for v in vectors]))
            cosine = sides[0] @ sides[1].T
            response.cosine.CopyFrom(fake_answers.tensor(cosine))
            response.logits.CopyFrom(fake_answers.tensor(cosine * 10))
            weights = np.exp(cosine * 10)
            rows = weights / np.nansum(weights, axis=1, keepdims=True)
            columns = weights / np.nansum(weights, axis=0, keepdims=True)
            response.right_given_left.CopyFrom(fake_answers.tensor(rows))
            response.left_given_right.CopyFrom(fake_answers.tensor(columns))
            return response

    def Reconstruct(
        self, request: reconstruct_pb2.ReconstructRequest, context: Any
    ) -> reconstruct_pb2.ReconstructResponse:
        with self.call("Reconstruct", request, context) as seen:
            response = reconstruct_pb2.ReconstructResponse(info=info(seen, 1))
            match request.WhichOneof("target"):
                case "image":
                    response.image.CopyFrom(fake_answers.reconstructed_image(request.image))
                case "clip":
                    response.clip.CopyFrom(fake_answers.reconstructed_clip(request.clip))
                case "text":
                    answer = fake_answers.reconstructed_text(request.text.text, request.top_k)
                    response.text.CopyFrom(answer)
                case "actions":
                    actions = request.actions.actions
                    response.actions.CopyFrom(fake_answers.reconstructed_actions(actions))
            return response

    def PredictLatentActions(
        self, request: latent_action_pb2.PredictLatentActionsRequest, context: Any
    ) -> latent_action_pb2.PredictLatentActionsResponse:
        with self.call("PredictLatentActions", request, context) as seen:
            frames = [fake_answers.pixels(frame.image) for frame in request.frames]
            vectors = [fake_answers.image_vector(frame) for frame in frames]
            options = call_pb2.VectorOptions(data_type=request.data_type)
            response = latent_action_pb2.PredictLatentActionsResponse(
                info=info(seen, len(frames) - 1)
            )
            for i, (earlier, later) in enumerate(itertools.pairwise(vectors)):
                action = latent_action_pb2.LatentAction(
                    latent=fake_answers.embedding(later - earlier, options, fake_answers.LATENT),
                    codes=[i, i + 1],
                    interval=request.interval
                    if request.HasField("interval")
                    else fake_errors.duration(fake_models.INTERVAL),
                )
                if request.decode_actions:
                    action.decoded_actions.CopyFrom(
                        fake_answers.tensor(np.full((2, 3), i, np.float32))
                    )
                if request.predict_frames:
                    action.predicted_frame.CopyFrom(fake_answers.raw(frames[i + 1]))
                response.results.add(latent_action=action)
            return response

    def Rollout(
        self, request: rollout_pb2.RolloutRequest, context: Any
    ) -> rollout_pb2.RolloutResponse:
        with self.call("Rollout", request, context) as seen:
            results = fake_answers.rolled_out(request)
            return rollout_pb2.RolloutResponse(info=info(seen, len(results)), results=results)

    def StreamPerception(
        self, request_iterator: Iterator[stream_pb2.StreamPerceptionRequest], context: Any
    ) -> Iterator[stream_pb2.StreamPerceptionResponse]:
        setup = next(request_iterator).setup
        with self.call("StreamPerception", setup, context) as seen:
            ahead = self.orders.clock_ahead
            told = setup.tell_input and self.orders.tells_input
            read_as = self.models["tiny"].input.image if told else None
            yield fake_streams.ready(info(seen, 0), ahead, read_as)
            self.orders.hold_frames.wait()
            earlier: stream_pb2.StreamFrame | None = None
            for message in request_iterator:
                if message.HasField("probe"):
                    self.probes.append(message.probe)
                    yield fake_streams.time_told(message.probe, ahead)
                    continue
                self.frames.append(message.frame)
                if self.orders.size_from_now:
                    yield fake_streams.read_otherwise(self.orders.size_from_now)
                    self.orders.size_from_now = 0
                if self.orders.refusals:
                    refuse(context, self.orders.refusals.pop(0))
                result = fake_streams.answered(setup, message.frame, earlier, info(seen, 1))
                yield stream_pb2.StreamPerceptionResponse(result=result)
                earlier = message.frame

    # What every call goes through

    def call(self, rpc: str, request: Any, context: Any) -> "_Call":
        """Note a call, and do with it what was ordered."""
        return _Call(self, rpc, request, context)


class _Call:
    """One call's way through the fake worker."""

    def __init__(self, worker: FakeWorker, rpc: str, request: Any, context: Any) -> None:
        remaining = context.time_remaining()
        # grpc's word for "no deadline" is a time that never comes.
        deadline = None if remaining is None or remaining > 1e8 else remaining
        metadata = dict(context.invocation_metadata())
        self.seen = Seen(rpc, request, metadata, deadline, context.peer())
        worker.seen.append(self.seen)
        self._orders, self._context = worker.orders, context
        if not context.add_callback(self.seen.ended.set):
            self.seen.ended.set()

    def __enter__(self) -> Seen:
        orders = self._orders
        bearer = f"Bearer {orders.token}"
        if orders.token is not None and self.seen.metadata.get("authorization") != bearer:
            refuse(
                self._context, fake_errors.status(fake_errors.R.ERROR_REASON_CREDENTIALS_INVALID)
            )
        if orders.delay:
            self.seen.cancelled = self.seen.ended.wait(orders.delay)
        if orders.refusals:
            refuse(self._context, orders.refusals.pop(0))
        return self.seen

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do."""


class FakeModels(model_pb2_grpc.ModelServiceServicer):
    """The worker's models, and their loading and unloading."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker

    def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Any
    ) -> model_pb2.ListModelsResponse:
        with self.worker.call("ListModels", request, context):
            return model_pb2.ListModelsResponse(models=self.worker.models.values())

    def GetModel(
        self, request: model_pb2.GetModelRequest, context: Any
    ) -> model_pb2.GetModelResponse:
        with self.worker.call("GetModel", request, context):
            return model_pb2.GetModelResponse(model=self._find(request.model or "tiny", context))

    def LoadModel(
        self, request: model_pb2.LoadModelRequest, context: Any
    ) -> model_pb2.LoadModelResponse:
        with self.worker.call("LoadModel", request, context):
            model = fake_models.model(request.name, default=request.make_default)
            self.worker.models[request.name] = model
            return model_pb2.LoadModelResponse(model=model)

    def UnloadModel(
        self, request: model_pb2.UnloadModelRequest, context: Any
    ) -> model_pb2.UnloadModelResponse:
        with self.worker.call("UnloadModel", request, context):
            self._find(request.name, context)
            del self.worker.models[request.name]
            return model_pb2.UnloadModelResponse()

    def _find(self, name: str, context: Any) -> model_pb2.Model:
        if name not in self.worker.models:
            refuse(context, fake_errors.status(fake_errors.R.ERROR_REASON_MODEL_NOT_FOUND))
        return self.worker.models[name]


def refuse(context: Any, how: Any) -> NoReturn:
    """Abort a call, with a status' details or with a bare code."""
    if isinstance(how, grpc.StatusCode):
        context.abort(how, "")
    context.abort_with_status(rpc_status.to_status(how))
    raise AssertionError("abort raises")


def info(seen: Seen, batch_size: int) -> call_pb2.ResponseInfo:
    """How an answer was made."""
    return call_pb2.ResponseInfo(
        model=seen.request.options.model or "tiny",
        version="0123abcd",
        numerics=call_pb2.Numerics(precision="float32", engine="arithmetic"),
        timings=call_pb2.Timings(
            queue=fake_errors.duration(0.001),
            compute=fake_errors.duration(0.002),
            total=fake_errors.duration(0.004),
            batch_size=batch_size,
        ),
        request_id=seen.metadata.get("x-request-id", ""),
    )


def wait_for(condition: Any, patience: float = 5.0) -> None:
    """Wait until something is so; a test fails where it does not come to be."""
    ends = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.005)
