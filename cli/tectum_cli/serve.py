"""`tectum serve`: a worker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tectum_cli.extras import errors, fail, needs
from tectum_cli.settings import given_as, read_settings

if TYPE_CHECKING:
    from tectum_server.worker.settings import WorkerSettings

__all__ = ["PREFIX", "serve", "worker_settings"]

PREFIX = "TECTUM_"
"""Of the environment's variables, one for each of the worker's settings."""


def serve(
    context: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model to load, NAME or NAME@VERSION; repeat for more; '*': all others too. "
            "The first is the default. Without any: the embedded one.",
            envvar="TECTUM_MODELS",
        ),
    ] = None,
    repository: Annotated[
        str,
        typer.Option(
            help="Where bundles are: a folder or any fsspec URL. Empty: the embedded one.",
            envvar="TECTUM_REPOSITORY",
        ),
    ] = "",
    watch: Annotated[
        float,
        typer.Option(
            envvar="TECTUM_WATCH",
            help="Look at the repository every so many seconds and serve what is the latest "
            "there; 0: never.",
            metavar="SECONDS",
            min=0,
        ),
    ] = 0.0,
    model_memory_bytes: Annotated[
        int | None,
        typer.Option(
            envvar="TECTUM_MODEL_MEMORY_BYTES",
            help="Bytes that models' weights may take together; whoever was longest unused "
            "makes room. Without: as many as they take.",
            min=1,
        ),
    ] = None,
    host: Annotated[str, typer.Option(envvar="TECTUM_HOST", help="Address to listen on.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int, typer.Option(envvar="TECTUM_PORT", help="gRPC port; 0 picks a free one.")
    ] = 50051,
    metrics_host: Annotated[
        str, typer.Option(envvar="TECTUM_METRICS_HOST", help="Address of the metrics.")
    ] = "127.0.0.1",
    metrics_port: Annotated[
        int, typer.Option(envvar="TECTUM_METRICS_PORT", help="Port of the metrics; 0: none.")
    ] = 9464,
    engines: Annotated[
        int,
        typer.Option(
            envvar="TECTUM_ENGINES",
            help="Engine processes that serve the same models; with --device cuda, one for each "
            "of so many GPUs.",
            min=1,
            max=64,
        ),
    ] = 1,
    fronts: Annotated[
        int,
        typer.Option(
            envvar="TECTUM_FRONTS",
            help="Processes that speak gRPC and read images, on one port.",
            min=1,
            max=64,
        ),
    ] = 1,
    device: Annotated[
        str, typer.Option(envvar="TECTUM_DEVICE", help="A torch device: cpu, cuda, cuda:1 …")
    ] = "cpu",
    threads: Annotated[
        int,
        typer.Option(
            envvar="TECTUM_THREADS",
            help="Torch's threads for one operator; 0: torch's own choice.",
            min=0,
        ),
    ] = 0,
    precision: Annotated[
        str,
        typer.Option(
            envvar="TECTUM_PRECISION",
            help="What trunks compute in: float32, bfloat16, int8, or auto, the fastest that "
            "reproduces the golden outputs.",
        ),
    ] = "float32",
    compiled: Annotated[
        bool,
        typer.Option(
            "--compiled", envvar="TECTUM_COMPILED", help="Compile trunks by torch.compile."
        ),
    ] = False,
    max_batch: Annotated[
        int, typer.Option(envvar="TECTUM_MAX_BATCH", help="Largest batch.", min=1)
    ] = 32,
    invariant: Annotated[
        bool,
        typer.Option(
            "--invariant",
            envvar="TECTUM_INVARIANT",
            help="Compute every item by itself: the same bits whatever else is asked.",
        ),
    ] = False,
    max_queued_items: Annotated[
        int,
        typer.Option(
            envvar="TECTUM_MAX_QUEUED_ITEMS",
            help="Items that may wait before requests are refused; BULK leaves a quarter of the "
            "places, INTERACTIVE an eighth to higher priorities.",
            min=1,
        ),
    ] = 256,
    max_block_ms: Annotated[
        str,
        typer.Option(
            envvar="TECTUM_MAX_BLOCK_MS",
            help="Longest that a batch of others may take while CONTROL comes, milliseconds; "
            "auto: a quarter of CONTROL's default deadline while its calls come; 0: any.",
            metavar="MILLISECONDS",
        ),
    ] = "auto",
    tokens: Annotated[
        Path | None,
        typer.Option(
            envvar="TECTUM_TOKENS",
            help="JSON file with the tokens that may call: "
            '{"tokens": [{"name", "sha256", "roles": ["infer", "admin"]}]}.',
        ),
    ] = None,
    allow_anonymous: Annotated[
        bool,
        typer.Option(
            envvar="TECTUM_ALLOW_ANONYMOUS",
            help="Listen beyond loopback without tokens, on a network that is private anyhow.",
        ),
    ] = False,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            envvar="TECTUM_TLS_CERTIFICATE",
            help="PEM certificate chain; with --tls-key: TLS.",
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="TECTUM_TLS_KEY", help="PEM private key.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            envvar="TECTUM_ENGINE",
            help="`process`: the model in its own process; `inline`: in this one.",
        ),
    ] = "process",
    reflection: Annotated[
        bool, typer.Option(envvar="TECTUM_REFLECTION", help="Whether gRPC reflection answers.")
    ] = True,
    log_level: Annotated[
        str, typer.Option(envvar="TECTUM_LOG_LEVEL", help="debug, info, warning or error.")
    ] = "info",
    end_with_stdin: Annotated[
        bool,
        typer.Option("--end-with-stdin", help="End when standard input does, as for SIGTERM."),
    ] = False,
) -> None:
    """Serve models over gRPC until SIGTERM or Ctrl-C, which finishes what is in flight.

    Every setting can be said by the environment too, also those without a flag, as
    TECTUM_MAX_ITEMS; docs/settings.md lists them.
    """
    settings = worker_settings(
        context,
        models=tuple(model or ()),
        repository=repository,
        watch=watch,
        model_memory_bytes=model_memory_bytes,
        host=host,
        port=port,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        engines=engines,
        fronts=fronts,
        device=device,
        threads=threads,
        precision=precision,
        compiled=compiled,
        max_batch=max_batch,
        invariant=invariant,
        max_queued_items=max_queued_items,
        max_block_ms=max_block_ms,
        tokens=tokens,
        allow_anonymous=allow_anonymous,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        engine=engine,
        reflection=reflection,
        log_level=log_level,
    )
    with needs("worker"):
        from tectum_server import lifeline
        from tectum_server.worker.serve import CannotServe
        from tectum_server.worker.serve import serve as serve_worker
    if end_with_stdin:
        lifeline.end_with_stdin()
    try:
        serve_worker(settings, lambda bound: errors.print(f"serving on {host}:{bound}"))
    except CannotServe as error:
        raise fail(str(error)) from error


def worker_settings(context: typer.Context, **values: object) -> WorkerSettings:
    """Checked settings; the embedded repository where none is named.

    What `values` do not have, the environment may: `TECTUM_` and the setting's name in capitals.
    """
    with needs("worker"):
        from tectum_core import embedded
        from tectum_server.worker.settings import WorkerSettings
    values["repository"] = values.get("repository") or str(embedded.repository())
    values["models"] = values.get("models") or (embedded.NAME,)
    settings = read_settings(context, WorkerSettings, values, PREFIX)
    _check_repository(context, settings.repository)
    return settings


def _check_repository(context: typer.Context, place: str) -> None:
    """End the command where the repository is no URL, and no folder either."""
    if "://" not in place and not Path(place).is_dir():
        where = given_as(context, "repository", PREFIX)
        raise fail(
            f"{where}: found {place}, which is no folder; allowed: a folder or an fsspec URL"
        )
