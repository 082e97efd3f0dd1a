"""`tectum models`: what a worker serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from tectum_cli.extras import console, told
from tectum_cli.reaching import ADDRESS, Address, ByTls, Roots, Token, tls_by

if TYPE_CHECKING:
    from tectum import Model, WorldModelInput

__all__ = ["models"]


def models(
    name: Annotated[
        str,
        typer.Argument(help="A model to describe in full, its card included.", metavar="NAME"),
    ] = "",
    worker: Address = ADDRESS,
    token: Token = "",
    by_tls: ByTls = False,
    roots: Roots = None,
) -> None:
    """List a worker's models, or describe one."""
    from rich.markdown import Markdown

    from tectum import Client

    with told(), Client(worker, token=token or None, tls=tls_by(by_tls, roots)) as client:
        if name:
            model = client.get_model(name)
            console.print(Padding(_described(model), (0, 0, 1, 0)), highlight=False)
            console.print(Markdown(model.card))
            return
        for model in client.list_models():
            default = " (default)" if model.default_model else ""
            console.print(f"[bold]{escape(model.name)}[/bold]{default}", highlight=False)
            console.print(Padding(_described(model), (0, 0, 1, 2)), highlight=False)


def _described(model: Model) -> Table:
    """Two columns, which a narrow terminal folds and never cuts: ids are there to be copied."""
    from tectum import ModelState

    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    if model.state is not ModelState.READY:
        table.add_row("state", escape(f"{model.state.value} {model.failure}".rstrip()))
    table.add_row("version", model.version)
    if model.rejection is not None:
        table.add_row("rejected", escape(f"{model.rejection.version} {model.rejection.why}"))
    table.add_row("parameters", f"{model.parameters:,}")
    table.add_row("numerics", f"{model.numerics.precision}, {model.numerics.engine}")
    if model.golden.outputs:
        fidelity = f"cosine {model.golden.min_cosine:.6f} or closer, {model.golden.outputs} outputs"
        table.add_row("golden", fidelity)
    table.add_row("can", ", ".join(sorted(one.value for one in model.capabilities)))
    if model.input.text is not None:
        table.add_row("texts", f"up to {model.input.text.max_tokens} tokens; the rest is cut off")
    if model.input.world_model is not None:
        table.add_row("rollouts", _rollouts(model.input.world_model))
    spaces = [f"{one.kind.value} {one.space_id} ({one.dimensions})" for one in model.spaces]
    table.add_row("spaces", "\n".join(spaces))
    return table


def _rollouts(world: WorldModelInput) -> str:
    """What a world model is asked with, in one line."""
    acted, each = "no actions", world.action_steps
    if each:
        kind = "latent action" if world.actions.value == "latent" else "action"
        acted = f"{each} {kind}{'s' * (each > 1)} of {world.action_dimensions} numbers"
    return (
        f"from 1 to {world.history} frames, {world.interval:g} s apart, with {acted} between two; "
        f"1 to {world.max_steps} frames ahead"
    )
