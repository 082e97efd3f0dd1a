"""`tectum gateway`: REST before a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tectum_cli.extras import fail, needs, told
from tectum_cli.settings import read_settings

__all__ = ["PREFIX", "gateway"]

PREFIX = "TECTUM_GATEWAY_"
"""Of the environment's variables, one for each of the gateway's settings."""


def gateway(
    context: typer.Context,
    worker: Annotated[
        str,
        typer.Option(
            envvar=[f"{PREFIX}WORKER_ADDRESS", "TECTUM_WORKER"], help="The worker, HOST:PORT."
        ),
    ] = "127.0.0.1:50051",
    host: Annotated[
        str, typer.Option(envvar=f"{PREFIX}HOST", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar=f"{PREFIX}PORT", help="HTTP port; 0 picks a free one.")
    ] = 8000,
    worker_roots: Annotated[
        Path | None,
        typer.Option(
            envvar=f"{PREFIX}WORKER_ROOTS", help="PEM root certificates of the worker's TLS."
        ),
    ] = None,
    worker_tls: Annotated[
        bool, typer.Option(envvar=f"{PREFIX}WORKER_TLS", help="Reach the worker by TLS.")
    ] = False,
    max_body_bytes: Annotated[
        int, typer.Option(envvar=f"{PREFIX}MAX_BODY_BYTES", help="Largest request body.", min=1)
    ] = 64 * 2**20,
    log_level: Annotated[
        str,
        typer.Option(
            envvar=[f"{PREFIX}LOG_LEVEL", "TECTUM_LOG_LEVEL"],
            help="debug, info, warning or error.",
        ),
    ] = "info",
    end_with_stdin: Annotated[
        bool,
        typer.Option("--end-with-stdin", help="End when standard input does, as for SIGTERM."),
    ] = False,
) -> None:
    """Serve REST until SIGTERM or Ctrl-C.

    It holds no model, only calls the worker.

    Every setting can be said by the environment too, also those without a flag, as
    TECTUM_GATEWAY_MAX_FILES; docs/settings.md lists them.
    """
    with needs("gateway"):
        from tectum_server import lifeline
        from tectum_server.gateway.serve import serve as serve_gateway
        from tectum_server.gateway.settings import GatewaySettings
        from tectum_server.listening import CannotListen
    flags = {
        "host": host,
        "port": port,
        "worker_address": worker,
        "worker_roots": worker_roots,
        "worker_tls": worker_tls,
        "max_body_bytes": max_body_bytes,
        "log_level": log_level,
    }
    settings = read_settings(context, GatewaySettings, flags, PREFIX)
    if end_with_stdin:
        lifeline.end_with_stdin()
    try:
        with told():
            serve_gateway(settings)
    except CannotListen as error:
        raise fail(str(error)) from error
