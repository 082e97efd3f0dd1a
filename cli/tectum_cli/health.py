"""`tectum health`: whether a worker or a gateway serves; for container health checks."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated

import typer

from tectum_cli.extras import console, fail
from tectum_cli.reaching import ADDRESS, Address, ByTls, Roots, tls_by

__all__ = ["health"]


def health(
    worker: Address = ADDRESS,
    by_tls: ByTls = False,
    roots: Roots = None,
    gateway: Annotated[
        str, typer.Option(help="Ask this gateway instead, HOST:PORT: is it ready?")
    ] = "",
    model: Annotated[str, typer.Option(help="Ask for one model; empty: the worker.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.1)] = 3.0,
) -> None:
    """Exit 0 if it serves, 1 if not."""
    if gateway:
        _ask_gateway(gateway, timeout)
    else:
        _ask_worker(worker, model, timeout, tls_by(by_tls, roots))
    console.print("serving")


def _ask_worker(worker: str, model: str, timeout: float, tls: bool | Path) -> None:
    from tectum import Client, Health, TectumError

    try:
        with Client(worker, tls=tls) as client:
            found = client.health(model, timeout=timeout)
    except TectumError as error:
        raise fail(f"{worker} does not serve: {error}") from error
    if found is not Health.SERVING:
        raise fail(f"{worker} says {found.value}")


def _ask_gateway(gateway: str, timeout: float) -> None:
    try:
        with urllib.request.urlopen(f"http://{gateway}/readyz", timeout=timeout):
            return
    except (urllib.error.URLError, OSError) as error:
        raise fail(f"{gateway} is not ready: {error}") from error
