"""All commands under one name; each lives in a module of its own and imports what it needs late."""

from __future__ import annotations

from typing import Annotated

import typer

from tectum_cli import (
    bench,
    demo,
    embed,
    evaluate,
    gateway,
    health,
    models,
    serve,
    train,
    up,
)

__all__ = ["app"]

app = typer.Typer(
    help="Pretrain compact vision-language-action representations, and serve them to robots.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Rich's boxes leave a terminal of 80 columns too little room for what options mean.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("serve", short_help="Serve models over gRPC until SIGTERM or Ctrl-C.")(serve.serve)
app.command("gateway")(gateway.gateway)
app.command("demo")(demo.demo)
app.command("models")(models.models)
app.command("health")(health.health)
app.command("embed")(embed.embed)
app.command("bench")(bench.bench)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """Pretrain compact vision-language-action representations, and serve them to robots."""
    if show:
        from tectum import __version__

        typer.echo(f"tectum {__version__}")
        raise typer.Exit
