"""How a command reaches a worker: where it is, what it is shown, and by TLS or in the clear."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = ["ADDRESS", "Address", "ByTls", "Roots", "Token", "tls_by"]

ADDRESS = "127.0.0.1:50051"
"""Where a worker is unless it is said."""
Address: TypeAlias = Annotated[
    str,
    typer.Option(envvar="TECTUM_WORKER", help="The worker, HOST:PORT.", metavar="ADDRESS"),
]
Token: TypeAlias = Annotated[
    str,
    typer.Option(envvar="TECTUM_TOKEN", help="Bearer token, if one is wanted.", metavar="TEXT"),
]
ByTls: TypeAlias = Annotated[
    bool, typer.Option("--tls", envvar="TECTUM_WORKER_TLS", help="Reach the worker by TLS.")
]
Roots: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        envvar="TECTUM_WORKER_ROOTS",
        help="PEM root certificates of the worker's TLS; with it, --tls need not be said.",
        metavar="FILE",
    ),
]


def tls_by(by_tls: bool, roots: Path | None) -> bool | Path:
    """What the SDK is told: these roots, those that come with gRPC, or no TLS."""
    return roots if roots is not None else by_tls
