"""`tectum gateway`: REST before a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tectum_cli.extras import fail, needs

__all__ = ["gateway"]


def gateway(
    worker: Annotated[
        str, typer.Option(envvar="TECTUM_WORKER", help="The worker, HOST:PORT.")
    ] = "127.0.0.1:50051",
    host: Annotated[
        str, typer.Option(envvar="TECTUM_GATEWAY_HOST", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="TECTUM_GATEWAY_PORT", help="HTTP port; 0 picks a free one.")
    ] = 8000,
    worker_roots: Annotated[
        Path | None, typer.Option(help="PEM root certificates of the worker's TLS.")
    ] = None,
    worker_tls: Annotated[bool, typer.Option(help="Reach the worker by TLS.")] = False,
    max_body_bytes: Annotated[int, typer.Option(help="Largest request body.", min=1)] = 64 * 2**20,
    log_level: Annotated[
        str, typer.Option(envvar="TECTUM_LOG_LEVEL", help="debug, info, warning or error.")
    ] = "info",
) -> None:
    """Serve REST until SIGTERM or Ctrl-C; holds no model, only calls the worker."""
    with needs("gateway"):
        from pydantic import ValidationError

        from tectum_server.gateway.serve import PortInUse
        from tectum_server.gateway.serve import serve as serve_gateway
        from tectum_server.gateway.settings import GatewaySettings
    try:
        settings = GatewaySettings(
            host=host,
            port=port,
            worker_address=worker,
            worker_roots=worker_roots,
            worker_tls=worker_tls,
            max_body_bytes=max_body_bytes,
            log_level=log_level,
        )
    except ValidationError as error:
        found = error.errors()[0]
        raise fail(f"{'.'.join(map(str, found['loc']))}: {found['msg']}") from error
    try:
        serve_gateway(settings)
    except PortInUse as error:
        raise fail(f"{error}; choose another with --port") from error
