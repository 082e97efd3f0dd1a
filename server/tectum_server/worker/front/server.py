"""A front, put together: servicers, health, reflection, the port, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from tectum.v1 import model_pb2, model_pb2_grpc, perception_pb2, perception_pb2_grpc
from tectum_server.listening import cannot_listen, check_pair, what_is_wrong
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.catalogue import Catalogue
from tectum_server.worker.front.door import living
from tectum_server.worker.front.door.access import Access
from tectum_server.worker.front.door.admission import Admission
from tectum_server.worker.front.door.guests import Bounds, Guests
from tectum_server.worker.front.door.health import Health
from tectum_server.worker.front.images import ImageReader
from tectum_server.worker.front.messages.unpacking import Unpacking
from tectum_server.worker.front.models import Models
from tectum_server.worker.front.perception import Perception
from tectum_server.worker.front.sharing import Sharing
from tectum_server.worker.front.turning import watch
from tectum_server.worker.jobs import Engine
from tectum_server.worker.metrics import FrontMetrics
from tectum_server.worker.settings import WorkerSettings
from tectum_server.worker.shared_names import beginning

__all__ = ["Front"]

_log = logging.getLogger(__name__)
_SERVICES = (
    perception_pb2.DESCRIPTOR.services_by_name["PerceptionService"],
    model_pb2.DESCRIPTOR.services_by_name["ModelService"],
)
_PERCEPTION, _MODELS = (service.full_name for service in _SERVICES)
_SERVING = health_pb2.HealthCheckResponse
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_SLACK_BYTES = 8 * 2**20
"""What grpc lets through beyond our own limit, so that we, not it, say what was too large."""
_UNASKED_BYTES = 2**18
"""Of a call's messages, so much may come before anybody reads it: any usual frame, but not much of
2,000 calls that are being refused. Left to itself, grpc lets a fast sender have 26 MiB and more; a
message that is read comes as a whole in either case."""
_SPARE_RPCS = 2048
"""Calls at once beyond what streams and the queue can hold: being refused, being sent, health. grpc
itself refuses what exceeds that, health too and without details, so it must be out of the way."""
_GUESTS = {
    f"/{_HEALTH}/Check": Bounds(places=256, patience=1.0),
    f"/{_HEALTH}/Watch": Bounds(places=64, patience=1.0),
    f"/{reflection.SERVICE_NAME}/ServerReflectionInfo": Bounds(places=16, patience=1.0),
}
"""What may be asked without credentials; it leaves most of the spare calls to who has some. Clients
send a request with its call, and a reflection stream's questions one upon the other: a second is
for packets that are sent again. Who asks more later opens a new stream."""
_GUESTS_HEARD = 8
"""Of these, so many are read from at once, for a millisecond if they are honest. It bounds what
strangers make the worker hold: `guests` reckons it out."""
_GRACE_SECONDS = 1.0
"""For calls whose request is still on its way when all others are done."""
_QUIET_SECONDS, _SETTLE_SECONDS = 0.1, 2.0
"""So long nothing new must come before the server stops, and so long this is waited for."""


class Front:
    """A gRPC server before an engine.

    Args:
        settings: the worker's.
        engine: what computes.
        registry: where metrics live.
        shared: how shared memory for frames is called in the beginning; None: as it likes.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        engine: Engine,
        registry: CollectorRegistry,
        shared: str | None = None,
    ) -> None:
        metrics = FrontMetrics(registry)
        self._late = metrics.loop_delay.observe
        self._watching: asyncio.Task[None] | None = None
        self._settings = settings
        self._sharing = Sharing(
            settings.shared_memory_bytes, settings.max_pixels, shared or beginning()
        )
        self._images = ImageReader(settings.decode_threads, settings.max_pixels, metrics)
        catalogue = Catalogue(engine, settings, metrics)
        self._calls = Calls(settings, engine, catalogue, metrics)
        self._admission = Admission(*_SERVICES, Access(settings.tokens), self._calls)
        self._catalogue = catalogue
        self._health = Health()
        self._guests = Guests(_GUESTS, _GUESTS_HEARD)
        self._known = {""}
        self._updates: set[asyncio.Task[None]] = set()
        self._telling = asyncio.Lock()
        self._ready = asyncio.Event()
        self._server = self._build()

    async def start(self, joins: bool = False) -> int:
        """Listen; gives the port.

        Args:
            joins: whether other fronts of this worker may have the port already.

        Raises:
            CannotListen: the port is taken, the host foreign, or the TLS files are none.
            OSError: a TLS file cannot be read.
        """
        settings = self._settings
        try:
            # Asked first: where it fails, grpc writes lines of its own to standard error.
            if not joins and (wrong := what_is_wrong(settings.host, settings.port)):
                raise cannot_listen(settings.address, wrong, "--host", "--port")
            port = self._bind()
        except RuntimeError as error:  # grpc's, which does not say why
            why = what_is_wrong(settings.host, settings.port) or OSError(str(error))
            raise cannot_listen(settings.address, why, "--host", "--port") from error
        await self._server.start()
        self._watching = asyncio.get_running_loop().create_task(watch(self._late))
        self._catalogue.on_change(self._tell_health)
        return port

    async def ready(self) -> None:
        """Return once a model serves."""
        await self._ready.wait()

    async def stop(self) -> int:
        """Refuse what is new, finish what is in flight, close.

        Returns:
            How many calls were not finished in time: each was told to go elsewhere.
        """
        given_up = 0
        self._calls.drain()
        await self._health.enter_graceful_shutdown()
        try:
            async with asyncio.timeout(self._settings.drain_timeout):
                await self._calls.in_flight.idle()
                await self._settle()
        except TimeoutError:
            given_up = self._calls.give_up()
            _log.error("gave up draining", extra={"in_flight": given_up})
            with suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_SECONDS):
                    await self._calls.in_flight.idle()
        await self._server.stop(grace=_GRACE_SECONDS)
        if self._watching is not None:
            self._watching.cancel()
        self._images.close()
        self._sharing.close()
        return given_up

    async def _settle(self) -> None:
        """Let grpc hand over what has arrived, to be refused: a stopping server cuts it off."""
        in_flight, seen = self._calls.in_flight, -1
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                while seen != in_flight.begun:
                    seen = in_flight.begun
                    await asyncio.sleep(_QUIET_SECONDS)
                    await in_flight.idle()

    def _build(self) -> grpc.aio.Server:
        limit = self._settings.max_message_bytes + _SLACK_BYTES
        server = grpc.aio.server(
            interceptors=[
                self._admission,
                Unpacking(_SERVICES, self._settings.max_items),
                self._guests,
            ],
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", 16 * 1024),
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", _UNASKED_BYTES),
                # Two workers on one port would share callers by chance; fronts of one do.
                ("grpc.so_reuseport", int(self._settings.fronts > 1)),
                *living.options(),
            ],
            maximum_concurrent_rpcs=(
                self._settings.max_streams + self._settings.places + _SPARE_RPCS
            ),
        )
        perception_pb2_grpc.add_PerceptionServiceServicer_to_server(
            Perception(self._calls, self._images, self._sharing), server
        )
        model_pb2_grpc.add_ModelServiceServicer_to_server(
            Models(self._calls, self._catalogue), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.reflection:
            names = (_PERCEPTION, _MODELS, _HEALTH, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        return server

    def _bind(self) -> int:
        address = self._settings.address
        key, certificate = self._settings.tls_key, self._settings.tls_certificate
        if key is None or certificate is None:
            return self._server.add_insecure_port(address)
        check_pair(certificate, key)
        pair = (key.read_bytes(), certificate.read_bytes())
        return self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))

    def _tell_health(self, models: Mapping[str, bool]) -> None:
        """Health for each model, for the services and for the worker as a whole (empty name)."""
        if self._calls.draining:
            return
        serves = any(models.values())
        services = dict.fromkeys(("", _PERCEPTION, _MODELS), serves) if models else {}
        task = asyncio.get_running_loop().create_task(self._set_health({**models, **services}))
        self._updates.add(task)
        task.add_done_callback(self._updates.discard)

    async def _set_health(self, told: Mapping[str, bool]) -> None:
        """What an engine lacks is gone; one that has no model is away, with all that it had."""
        serving, not_serving = _SERVING.SERVING, _SERVING.NOT_SERVING
        async with self._telling:  # else an older change could have the last word
            for name, serves in told.items():
                await self._health.set(name, serving if serves else not_serving)
            for name in self._known - told.keys():
                if told:
                    await self._health.forget(name)
                else:
                    await self._health.set(name, not_serving)
            self._known = set(told) or self._known
        if told.get(""):
            self._ready.set()
        else:
            self._ready.clear()
