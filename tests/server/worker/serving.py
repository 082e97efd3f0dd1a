"""Workers to call: a front before a real or a scripted engine, and what their errors say.

Every server of a test process lives on one event loop in a thread of its own; the tests call it
over a real channel, as any client does.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry

from tectum.v1 import (
    model_pb2_grpc,
    perception_pb2_grpc,
    stream_pb2,
)
from tectum_server.worker.front.server import Front
from tectum_server.worker.jobs import (
    Engine,
)
from tectum_server.worker.serve import serve_inline
from tectum_server.worker.settings import WorkerSettings

PATIENCE = 60.0
"""Seconds after which a test that waits has failed."""
_T = TypeVar("_T")


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Start work there."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do work there and wait for its result."""
        return self.begin(work).result(PATIENCE)

    def call(self, function: Callable[[], _T]) -> _T:
        """Call a function there."""

        async def work() -> _T:
            return function()

        return self.run(work())

    def close(self) -> None:
        """Stop it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Caller:
    """A client of one worker."""

    def __init__(self, port: int, token: str = "") -> None:
        self.port, self.token = port, token
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}",
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        self.perception = perception_pb2_grpc.PerceptionServiceStub(self.channel)
        self.models = model_pb2_grpc.ModelServiceStub(self.channel)
        self._health: Any = health_pb2_grpc.HealthStub(self.channel)

    def ask(self, rpc: str, request: Any, timeout: float = PATIENCE, **metadata: str) -> Any:
        """Call an rpc of either service by its name."""
        stub = self.perception if hasattr(self.perception, rpc) else self.models
        sent = [*self.metadata, *((k.replace("_", "-"), v) for k, v in metadata.items())]
        return getattr(stub, rpc)(request, timeout=timeout, metadata=sent)

    def begin(self, rpc: str, request: Any, timeout: float = PATIENCE) -> Any:
        """Call an rpc without waiting; gives grpc's future."""
        return getattr(self.perception, rpc).future(
            request, timeout=timeout, metadata=self.metadata
        )

    def refused(self, rpc: str, request: Any, **options: Any) -> Told:
        """Call an rpc that must fail, and read what it says."""
        try:
            answer = self.ask(rpc, request, **options)
        except grpc.RpcError as error:
            return Told.of(error)
        raise AssertionError(f"{rpc} was answered: {answer}")

    def health(self, service: str = "") -> str:
        """What the health service says of a model, a service, or the worker."""
        try:
            response = self._health.Check(
                health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE
            )
        except grpc.RpcError as error:
            return str(cast("grpc.Call", error).code().name)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    def health_becomes(self, wanted: str, service: str = "") -> None:
        """Watch health until it is so."""
        watching = self._health.Watch(
            health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE
        )
        for response in watching:
            if health_pb2.HealthCheckResponse.ServingStatus.Name(response.status) == wanted:
                watching.cancel()
                return
        raise AssertionError(f"health of {service!r} never became {wanted}")

    def close(self) -> None:
        """Hang up."""
        self.channel.close()


@dataclass(frozen=True)
class Told:
    """What a failed call says."""

    code: str
    reason: str
    message: str
    fields: tuple[str, ...]
    """Of BadRequest; empty: there is none."""
    retries: bool
    """Whether there is RetryInfo."""
    request_id: str
    domain: str

    @classmethod
    def of(cls, error: grpc.RpcError) -> Self:
        """Read the details."""
        call = cast("grpc.Call", error)
        status = rpc_status.from_call(call)
        if status is None:
            raise AssertionError(f"no google.rpc.Status: {call.code()} {call.details()}")
        info, bad, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        found = {
            type(kind): any(detail.Unpack(kind) for detail in status.details)
            for kind in (info, bad, retry)
        }
        return cls(
            code=call.code().name,
            reason=info.reason,
            message=status.message,
            fields=tuple(violation.field for violation in bad.field_violations),
            retries=found[type(retry)] and retry.retry_delay.ToNanoseconds() > 0,
            request_id=info.metadata["request_id"],
            domain=info.domain,
        )


class Fronted:
    """A front on the loop before any engine, and a client of it."""

    def __init__(self, loop: Loop, engine: Engine, **changes: Any) -> None:
        given = {"repository": "nowhere", "models": ("full",), "port": 0, **changes}
        self.registry = CollectorRegistry()
        self._loop = loop

        async def build() -> tuple[Front, int]:
            settings = WorkerSettings.model_validate(given)
            front = Front(settings, engine, self.registry)
            return front, await front.start()

        self.front, self.port = loop.run(build())
        self.client = Caller(self.port)

    def metric(self, name: str, **labels: str) -> float | None:
        """One number of this front's."""
        return self.registry.get_sample_value(name, labels)

    def begin_stop(self) -> Future[int]:
        """Begin to drain."""
        return self._loop.begin(self.front.stop())

    def close(self) -> None:
        """Hang up and stop."""
        self.client.close()
        self._loop.run(self.front.stop())


class Inline:
    """`serve_inline` on the loop, and a client of it."""

    def __init__(self, loop: Loop, token: str = "", **changes: Any) -> None:
        settings = WorkerSettings.model_validate({"port": 0, "metrics_port": 0, **changes})
        self._loop = loop
        self._stop = loop.call(asyncio.Event)
        ready: Future[int] = Future()
        self._serving = loop.begin(serve_inline(settings, self._stop, ready.set_result))

        def fail(ended: Future[None]) -> None:
            if not ready.done():
                ready.set_exception(ended.exception() or EOFError())

        self._serving.add_done_callback(fail)
        self.client = Caller(ready.result(PATIENCE), token)

    def close(self) -> None:
        """Hang up and stop."""
        self.client.close()
        self.stop()

    def stop(self) -> None:
        """Stop, while the client listens."""
        self._loop.call(self._stop.set)
        self._serving.result(PATIENCE)


class Camera:
    """The client's end of a stream."""

    def __init__(
        self, client: Caller, setup: stream_pb2.StreamSetup | None, **metadata: str
    ) -> None:
        self._outgoing: queue.Queue[stream_pb2.StreamPerceptionRequest | None] = queue.Queue()
        if setup is not None:
            self._outgoing.put(stream_pb2.StreamPerceptionRequest(setup=setup))
        requests = iter(self._outgoing.get, None)
        sent = [*client.metadata, *((k.replace("_", "-"), v) for k, v in metadata.items())]
        self.call: Any = client.perception.StreamPerception(
            requests, timeout=PATIENCE, metadata=tuple(sent)
        )

    def send(self, frame: stream_pb2.StreamFrame) -> None:
        """Send a frame."""
        self._outgoing.put(stream_pb2.StreamPerceptionRequest(frame=frame))

    def say(self, message: stream_pb2.StreamPerceptionRequest) -> None:
        """Send anything."""
        self._outgoing.put(message)

    def ready(self) -> stream_pb2.StreamReady:
        """The answer to the setup."""
        response: stream_pb2.StreamPerceptionResponse = next(self.call)
        if response.WhichOneof("message") != "ready":
            raise AssertionError(f"not ready: {response}")
        return response.ready

    def result(self) -> stream_pb2.FrameResult:
        """The next frame's answer."""
        response: stream_pb2.StreamPerceptionResponse = next(self.call)
        if response.WhichOneof("message") != "result":
            raise AssertionError(f"no result: {response}")
        return response.result

    def finish(self) -> list[stream_pb2.FrameResult]:
        """Send no more, and take what still comes."""
        self._outgoing.put(None)
        return [response.result for response in self.call]

    def failed(self) -> Told:
        """The stream must fail; what it says."""
        try:
            rest = list(self.call)
        except grpc.RpcError as error:
            self._outgoing.put(None)
            return Told.of(error)
        raise AssertionError(f"the stream ended well after {rest}")

    def close(self) -> None:
        """Go away without a word."""
        self.call.cancel()
        self._outgoing.put(None)


def until(condition: Callable[[], bool]) -> None:
    """Look again and again until it is so: for what no event tells of."""
    last = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > last:
            raise AssertionError("it never came to be")
        time.sleep(0.002)
