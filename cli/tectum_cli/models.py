"""`tectum models`: what a worker serves."""

from __future__ import annotations

from typing import Annotated

import typer

from tectum_cli.extras import console, told

__all__ = ["models"]


def models(
    name: Annotated[
        str, typer.Argument(help="A model to describe in full, its card included.")
    ] = "",
    worker: Annotated[
        str, typer.Option(envvar="TECTUM_WORKER", help="The worker, HOST:PORT.")
    ] = "127.0.0.1:50051",
    token: Annotated[
        str, typer.Option(envvar="TECTUM_TOKEN", help="Bearer token, if the worker wants one.")
    ] = "",
) -> None:
    """List a worker's models, or describe one."""
    from rich.markdown import Markdown
    from rich.table import Table

    from tectum import Client

    with told(), Client(worker, token=token or None) as client:
        if name:
            model = client.get_model(name)
            console.print(Markdown(model.card))
            return
        table = Table("model", "version", "parameters", "can", "spaces", "numerics")
        for model in client.list_models():
            table.add_row(
                f"{model.name}{' (default)' if model.default_model else ''}",
                model.version,
                f"{model.parameters:,}",
                "\n".join(sorted(capability.value for capability in model.capabilities)),
                "\n".join(
                    f"{space.kind.value} {space.space_id} ({space.dimensions})"
                    for space in model.spaces
                ),
                f"{model.numerics.precision}\n{model.numerics.engine}",
            )
        console.print(table)
