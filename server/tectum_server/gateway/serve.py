"""Running a gateway: its socket, its signals, its end."""

import logging
import signal
import socket
import threading

import uvicorn

from tectum_server.gateway.app import create_app
from tectum_server.gateway.settings import GatewaySettings
from tectum_server.listening import cannot_listen
from tectum_server.logs import set_up_logs

LOGGER = logging.getLogger("tectum_server.gateway")
BACKLOG = 1024


def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight and return.

    Args:
        settings: What to serve, and where.

    Raises:
        CannotListen: the address is taken, or none of this machine's; nothing has been started.
    """
    listener = listen(settings.host, settings.port)
    set_up_logs("gateway", settings.log_level)
    logging.getLogger("uvicorn.error").addFilter(_without_colour)
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
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # For signals before uvicorn handles them itself; and when it has shut down, it raises its
    # signal again for whoever handled it before, which would end the process by the signal, where
    # a clean exit is wanted.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
    LOGGER.info("listening", extra=where)
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
    LOGGER.info("stopped", extra=where)


def _without_colour(record: logging.LogRecord) -> bool:
    """Take from uvicorn's records what they carry for terminals: the same message again."""
    vars(record).pop("color_message", None)
    return True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        CannotListen: the address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both
        )
    except (OSError, TypeError) as error:  # TypeErrors are those of names that are none
        said = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        why = OSError(getattr(error, "errno", None), said)
        raise cannot_listen(f"port {port} on {host}", why, "--host", "--port") from None
