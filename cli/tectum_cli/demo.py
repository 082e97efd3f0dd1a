"""`tectum demo`: what the embedded model makes of robot frames it has never seen.

Asks a running worker like any client would; knows the SDK and the data set, not the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tectum_cli.extras import console, fail, needs, told

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tectum import Client, Model

__all__ = ["demo", "show"]

_CHECKOUT = Path(__file__).parents[2] / "worlds" / "embedded" / "test"
_FRAMES, _LATE = 6, 0.85


def demo(
    worker: Annotated[
        str, typer.Option(envvar="TECTUM_WORKER", help="The worker, HOST:PORT.")
    ] = "127.0.0.1:50051",
    data: Annotated[
        Path | None,
        typer.Option(help="A LeRobot folder; default: the held-out episodes of this repository."),
    ] = None,
    pictures: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo-output"),
) -> None:
    """Show a running worker's model on held-out robot frames: words, pictures, latent actions."""
    show(worker, data, pictures)


@dataclass(frozen=True, slots=True)
class Episode:
    """One held-out episode."""

    instruction: str
    frames: NDArray[np.uint8]
    """[T, H, W, 3]."""
    actions: NDArray[np.float32]
    """[T, A]."""
    names: tuple[str, ...]
    """Of the actions."""
    interval: float
    """Seconds between frames."""


def show(worker: str, data: Path | None, folder: Path) -> None:
    """Run the demo against a worker."""
    from tectum import Client

    episodes = _episodes(data or _CHECKOUT)
    folder.mkdir(parents=True, exist_ok=True)
    with told(), Client(worker) as client:
        model = client.get_model()
        _rank(client, episodes)
        _reconstruct(client, episodes, folder)
        _latents(client, model, episodes[0], folder)


def _rank(client: Client, episodes: list[Episode]) -> None:
    """Which instruction goes with which frame?"""
    from rich.table import Table

    frames = [episode.frames[int(len(episode.frames) * _LATE)] for episode in episodes]
    sentences = list(dict.fromkeys(episode.instruction for episode in episodes))
    found = client.similarity(frames, sentences)
    table = Table("frame of", "1st", "2nd", "3rd", title="instructions ranked for held-out frames")
    right = 0
    for row, episode in enumerate(episodes):
        order = (-found.right_given_left[row]).argsort()[:3]
        cells = []
        for column in order:
            mark = "[green]✓[/green] " if sentences[column] == episode.instruction else ""
            share = found.right_given_left[row, column]
            cells.append(f"{mark}{sentences[column]} [dim]{share:.0%}[/dim]")
        right += sentences[order[0]] == episode.instruction
        table.add_row(episode.instruction, *cells)
    console.print(table)
    console.print(f"{right} of {len(episodes)} first, chance {1 / len(sentences):.0%}\n")


def _reconstruct(client: Client, episodes: list[Episode], folder: Path) -> None:
    """Masked | reconstructed | original, a row for each frame."""
    from tectum_cli.pictures import reconstruction_sheet

    rows = []
    for episode in episodes[:_FRAMES]:
        found = client.reconstruct_image(episode.frames[len(episode.frames) // 2])
        rows.append((found.input, found.reconstruction, found.mask))
    path = folder / "reconstructions.png"
    reconstruction_sheet(rows, path)
    console.print(f"masked | reconstructed | original: {path}")


def _latents(client: Client, model: Model, episode: Episode, folder: Path) -> None:
    """Latent actions of an episode beside what the robot really did."""
    import numpy as np
    from rich.table import Table

    from tectum_cli.pictures import latent_plot

    spec = model.input.latent_action
    if spec is None:
        console.print("this model predicts no latent actions")
        return
    stride = max(1, round(spec.interval / episode.interval))
    frames = episode.frames[::stride][: model.limits.max_items]
    found = client.predict_latent_actions(
        list(frames), interval=stride * episode.interval, decode_actions=spec.decoded_steps > 0
    )
    vectors = found.vectors
    true = np.stack(
        [
            episode.actions[step * stride : (step + 1) * stride].mean(axis=0)
            for step in range(len(vectors))
        ]
    )
    decoded = None
    if spec.decoded_steps:
        decoded = np.stack([_decoded(action) for action in found.answers()])
    table = Table(title=f"latent actions while it shall {episode.instruction!r}")
    for heading in ("step", "|z|", "z, first numbers", "decoded action", "true action"):
        table.add_column(heading)
    for step in range(0, len(vectors), max(1, len(vectors) // 12)):
        table.add_row(
            str(step * stride),
            f"{np.linalg.norm(vectors[step]):.2f}",
            _numbers(vectors[step][:4]),
            "–" if decoded is None else _numbers(decoded[step]),
            _numbers(true[step]),
        )
    console.print(table)
    path = folder / "latent-actions.png"
    latent_plot(vectors, decoded, true, episode.names, stride * episode.interval, path)
    console.print(f"latent actions: {path}\n")


def _decoded(action: Any) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = action.decoded_actions.mean(axis=0)
    return mean


def _numbers(values: NDArray[np.float32]) -> str:
    return " ".join(f"{value:+.2f}" for value in values)


def _episodes(root: Path) -> list[Episode]:
    """Every episode of a LeRobot folder."""
    with needs("train"):
        from tectum_train.data import DataError, LeRobotDataset
    try:
        dataset = LeRobotDataset(root)
        camera = dataset.cameras[0]
        names = dataset.info.features["action"].names
        return [
            Episode(
                instruction=episode.tasks[0],
                frames=dataset.read_frames(episode.index, camera),
                actions=dataset.read_columns(episode.index)["action"],
                names=tuple(names) if isinstance(names, list) else (),
                interval=1 / dataset.info.fps,
            )
            for episode in dataset.episodes
        ]
    except DataError as error:
        raise fail(f"{error}; --data names a LeRobot v3.0 folder to show the demo on") from error
