"""All commands under one name; each lives in a module of its own and imports what it needs late."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

from tectum_cli import (
    bench,
    demo,
    embed,
    evaluate,
    gateway,
    health,
    models,
    publish,
    serve,
    train,
    up,
)

__all__ = ["app"]


class _Command(TyperCommand):
    """A command whose help has neither Python's types nor braces, which are for alternatives."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                parameter.display_type_rich = _untyped  # type: ignore[method-assign]
            elif isinstance(parameter, TyperOption) and not parameter.is_flag:
                # Where none is given, the flag's last word is one: --gateway-port PORT.
                last = parameter.opts[0].rpartition("-")[2]
                parameter.metavar = parameter.metavar or last.upper()

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What comes behind the command's name in its usage."""
        return [re.sub("[{}]", "", piece) for piece in super().collect_usage_pieces(ctx)]


def _untyped(ctx: Any) -> None:
    """An argument's type: its name and its help say what it is."""


app = typer.Typer(
    help="Pretrain compact vision-language-action representations, and serve them to robots.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Rich's boxes leave a terminal of 80 columns too little room for what options mean.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up", cls=_Command)(up.up)
app.command("serve", cls=_Command, short_help="Serve models over gRPC until SIGTERM or Ctrl-C.")(
    serve.serve
)
app.command("gateway", cls=_Command)(gateway.gateway)
app.command("demo", cls=_Command)(demo.demo)
app.command("models", cls=_Command)(models.models)
app.command("health", cls=_Command)(health.health)
app.command("embed", cls=_Command)(embed.embed)
app.command("bench", cls=_Command)(bench.bench)
app.command("train", cls=_Command)(train.train)
app.command("eval", cls=_Command)(evaluate.evaluate)
app.command("publish", cls=_Command)(publish.publish)


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
