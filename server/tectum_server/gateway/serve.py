"""Running a gateway: its socket, its signals, its end."""

import errno
import logging
import signal
import socket
import threading

import uvicorn

from tectum_server.gateway.app import create_app
from tectum_server.gateway.settings import GatewaySettings
from tectum_server.logs import set_up_logs

LOGGER = logging.getLogger("tectum_server.gateway")
BACKLOG = 1024


class CannotListen(Exception):
    """The gateway's address is not to be had; says why."""


class PortInUse(CannotListen):
    """Something else listens on it."""


def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight and return.

    Args:
        settings: What to serve, and where.

    Raises:
        CannotListen: the address is taken (`PortInUse`), or none of this machine's; nothing has
            been started.
    """
    listener = listen(settings.host, settings.port)
    set_up_logs("gateway", settings.log_level)
    host, port = listener.getsockname()[:2]
    where = {"host": host, "port": port, "worker": settings.worker_address}
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
    )
    # When it has shut down, uvicorn raises the signal again for whoever handled it before; that
    # would end the process by the signal, where a clean exit is wanted.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
    LOGGER.info("listening", extra=where)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()
    LOGGER.info("stopped", extra=where)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        CannotListen: the address is taken (`PortInUse`), or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both
        )
    except (OSError, TypeError) as error:  # TypeErrors are those of names that are none
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            taken = f"port {port} on {host} is in use"
            message = f"{taken}; stop what listens there or choose another port"
            raise PortInUse(message) from None
        why = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise CannotListen(f"cannot listen on port {port} of {host}: {why}") from None
