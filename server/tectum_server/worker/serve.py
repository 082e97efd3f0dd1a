"""Run a worker until it is told to stop: the one way in, whatever its processes are."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from tectum_server.logs import set_up_logs
from tectum_server.worker.metrics import EngineMetrics
from tectum_server.worker.settings import WorkerSettings
from tectum_server.worker.supervisor import CannotServe, Supervisor, expose_metrics, not_finished

__all__ = ["CannotServe", "serve", "serve_inline"]


def serve(settings: WorkerSettings, on_ready: Callable[[int], None] = lambda _: None) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain.

    Args:
        settings: what to serve, where.
        on_ready: called with the gRPC port once a model serves.

    Raises:
        CannotServe: a port is taken, no model could be loaded, or draining took too long.
    """
    set_up_logs("worker", settings.log_level)
    asyncio.run(_serve(settings, on_ready))


async def _serve(settings: WorkerSettings, on_ready: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if settings.engine == "inline":
        await serve_inline(settings, stop, on_ready)
        return
    supervisor = Supervisor(settings, on_ready)
    running = loop.create_task(supervisor.run())
    stopping = loop.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    supervisor.stop()
    await running


async def serve_inline(
    settings: WorkerSettings, stop: asyncio.Event, on_ready: Callable[[int], None]
) -> None:
    """Serve in this process, on the running loop, until `stop` is set.

    Raises:
        CannotServe: a port is taken, a model could not be loaded, the engine has failed, or
            draining took too long.
    """
    # Only this way of serving puts grpc and torch into one process.
    from tectum_server.worker.engine.local import LocalEngine
    from tectum_server.worker.engine.settings import EngineSettings
    from tectum_server.worker.failure import Failure
    from tectum_server.worker.front.server import Front

    registry = CollectorRegistry()
    try:
        engine = LocalEngine(EngineSettings(**settings.for_engine()), EngineMetrics(registry))
        front = Front(settings, engine, registry)
    except (ValueError, OSError) as error:  # the repository, the device, the token file
        raise CannotServe(str(error)) from error
    given_up = 0
    failing, stopping = asyncio.create_task(engine.failed()), asyncio.create_task(stop.wait())
    try:
        expose_metrics(settings, registry)
        port = await front.start()
        await engine.start()
        on_ready(port)
        await asyncio.wait({failing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            raise CannotServe("the engine failed; the log says why")
    except (Failure, OSError) as error:
        raise CannotServe(str(error)) from error
    finally:
        failing.cancel()
        stopping.cancel()
        given_up = await front.stop()
        await engine.close()
    if given_up:
        raise not_finished(settings)
