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


class PortInUse(Exception):
    """Something else listens on the gateway's address."""


def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight and return.

    Args:
        settings: What to serve, and where.

    Raises:
        PortInUse: the address is taken; nothing has been started.
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
        PortInUse: the address is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        message = f"port {port} on {host} is in use; stop what listens there or choose another port"
        raise PortInUse(message) from None
