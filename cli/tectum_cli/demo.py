"""`tectum demo`: what the embedded model makes of robot frames it has never seen.

Asks a running worker like any client would; knows the SDK and the data set, not the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tectum_cli.extras import console, fail, needs, told
from tectum_cli.reaching import ADDRESS, Address, ByTls, Roots, Token, tls_by

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tectum import Client, Model
    from tectum_train.data import EpisodeInfo, LeRobotDataset

__all__ = ["demo", "show"]

_CHECKOUT = Path(__file__).parents[2] / "worlds" / "embedded" / "test"
_FRAMES, _LATE = 6, 0.85
_SHOWN = 3
"""Numbers of a vector that a table has room for."""
_UNITS = {
    "hand_dx": "cm a step",
    "hand_dy": "cm a step",
    "hand_dz": "cm a step",
    "gripper_effort": "+1 closes",
}
"""Of the generated world's actions (worlds/README.md): a LeRobot folder names its actions only."""
_TASK = "task_family"
"""Column that says which sentences are paraphrases of each other."""


def demo(
    worker: Address = ADDRESS,
    data: Annotated[
        Path | None,
        typer.Option(help="A LeRobot folder; default: the held-out episodes of this repository."),
    ] = None,
    pictures: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo-output"),
    token: Token = "",
    by_tls: ByTls = False,
    roots: Roots = None,
) -> None:
    """Show a running worker's model on held-out robot frames.

    Which words it finds for them, how it fills in hidden parts, and latent actions beside the
    true ones.
    """
    show(worker, data, pictures, token, tls_by(by_tls, roots))


@dataclass(frozen=True, slots=True)
class Episode:
    """One held-out episode."""

    instruction: str
    task: str
    """What it comes to: paraphrases share it, where the data set says so."""
    frames: NDArray[np.uint8]
    """[T, H, W, 3]."""
    actions: NDArray[np.float32]
    """[T, A]."""
    names: tuple[str, ...]
    """Of the actions."""
    interval: float
    """Seconds between frames."""


def show(
    worker: str, data: Path | None, folder: Path, token: str = "", tls: bool | Path = False
) -> None:
    """Run the demo against a worker."""
    from tectum import Capability, Client

    if data is None and not _CHECKOUT.is_dir():
        raise fail("the demo's frames come with a checkout; give --data FOLDER")
    episodes = _episodes(data or _CHECKOUT)
    folder.mkdir(parents=True, exist_ok=True)
    with told(), Client(worker, token=token or None, tls=tls) as client:
        model = client.get_model()
        if Capability.EMBED_TEXTS in model.capabilities:
            _rank(client, episodes)
        else:
            console.print("this model reads no texts, so it finds none for the frames")
        if Capability.RECONSTRUCT_IMAGES in model.capabilities:
            _reconstruct(client, episodes, folder)
        else:
            console.print("this model reconstructs no pictures")
        _latents(client, model, episodes[0], folder)


def _rank(client: Client, episodes: list[Episode]) -> None:
    """What is being done in a frame, among all the instructions? One row for each task."""
    import numpy as np
    from rich.table import Table

    frames = [episode.frames[int(len(episode.frames) * _LATE)] for episode in episodes]
    task_of = {episode.instruction: episode.task for episode in episodes}
    sentences, tasks = list(task_of), sorted(set(task_of.values()))
    found = client.similarity(frames, sentences).right_given_left
    # A task is as likely as its sentences together.
    shares = np.stack(
        [found[:, [task_of[one] == task for one in sentences]].sum(axis=1) for task in tasks], 1
    )
    order = np.argsort(-shares, axis=1)
    true = np.array([tasks.index(episode.task) for episode in episodes])
    places = (order == true[:, None]).argmax(axis=1) + 1

    table = Table("place", "what is done", "first guess", "second guess", pad_edge=False)
    table.title = "held-out frames and what the model thinks is being done"
    table.caption = (
        f"one frame of each of {len(set(true))} tasks; place: where what is really done stands "
        f"among the model's {len(tasks)} guesses, 1 is right"
    )
    said = {task: sentence for sentence, task in reversed(task_of.items())}
    for row in np.unique(true, return_index=True)[1]:
        guesses = [
            ("[green]✓[/green] " if column == true[row] else "")
            + f"{said[tasks[column]]} [dim]{shares[row, column]:.0%}[/dim]"
            for column in order[row, :2]
        ]
        table.add_row(str(places[row]), episodes[row].instruction, *guesses)
    console.print(table)
    console.print(
        f"of all {len(episodes)} frames, one an episode, those in the table among them, "
        f"{(places == 1).sum()} have their task first and {(places <= 2).sum()} among the first "
        f"two; chance: {len(episodes) / len(tasks):.0f} and {2 * len(episodes) / len(tasks):.0f}\n",
        soft_wrap=True,
    )


def _reconstruct(client: Client, episodes: list[Episode], folder: Path) -> None:
    """Masked | reconstructed | original, a row for each frame, each behind another mask."""
    from tectum import Mask
    from tectum_cli.pictures import reconstruction_sheet

    rows = []
    for row, episode in enumerate(episodes[:_FRAMES]):
        frame = episode.frames[len(episode.frames) // 2]
        found = client.reconstruct_image(frame, Mask(seed=row))
        rows.append((found.input, found.reconstruction, found.mask))
    path = folder / "reconstructions.png"
    reconstruction_sheet(rows, path)
    console.print(f"masked | reconstructed | original: {path}")


def _latents(client: Client, model: Model, episode: Episode, folder: Path) -> None:
    """Latent actions of an episode beside what the robot really did."""
    import numpy as np
    from rich.table import Table

    from tectum import Capability
    from tectum_cli.pictures import latent_plot

    spec = model.input.latent_action
    if spec is None or Capability.PREDICT_LATENT_ACTIONS not in model.capabilities:
        console.print("this model predicts no latent actions")
        return
    decodes = Capability.DECODE_ACTIONS in model.capabilities
    stride = max(1, round(spec.interval / episode.interval))
    frames = episode.frames[::stride][: model.limits.max_items]
    found = client.predict_latent_actions(
        list(frames), interval=stride * episode.interval, decode_actions=decodes
    )
    vectors = found.vectors
    true = np.stack(
        [
            episode.actions[step * stride : (step + 1) * stride].mean(axis=0)
            for step in range(len(vectors))
        ]
    )
    decoded = None
    if decodes:
        decoded = np.stack([_decoded(action) for action in found.answers()])
    names = episode.names or tuple(f"action {number}" for number in range(true.shape[1]))
    title = f"latent actions of an episode with the instruction {episode.instruction!r}"
    table = Table(title=title, pad_edge=False)
    table.caption = f"z: its first {_SHOWN} numbers; actions: {', '.join(names[:_SHOWN])}"
    unread = [] if decoded is None else _unread(decoded, true, names)
    if unread:
        table.caption += f"; decoded no better here than by the mean: {', '.join(unread)}"
        title += f"\nleft out, decoded no better here than by the mean: {', '.join(unread)}"
    for heading in ("step", "|z|", "z", "decoded action", "true action"):
        table.add_column(heading)
    for step in range(0, len(vectors), max(1, len(vectors) // 12)):
        table.add_row(
            str(step * stride),
            f"{np.linalg.norm(vectors[step]):.1f}",
            _numbers(vectors[step]),
            "–" if decoded is None else _numbers(decoded[step]),
            _numbers(true[step]),
        )
    console.print(table)
    path = folder / "latent-actions.png"
    drawn = [place for place, name in enumerate(names) if name not in unread]
    latent_plot(
        vectors,
        None if decoded is None else decoded[:, drawn],
        true[:, drawn],
        [_labelled(names[place]) for place in drawn],
        stride * episode.interval,
        title,
        path,
    )
    console.print(f"latent actions: {path}\n")


def _unread(
    decoded: NDArray[np.float32], true: NDArray[np.float32], names: Sequence[str]
) -> list[str]:
    """The actions, of float32[T, A] by name, that their mean over these steps tells as well."""
    if decoded.shape != true.shape:  # of another robot
        return []
    errors = ((decoded - true) ** 2).mean(axis=0)
    return [
        name
        for name, error, spread in zip(names, errors, true.var(axis=0), strict=False)
        if error >= spread
    ]


def _labelled(name: str) -> str:
    """An action's name above its unit, where that is known."""
    return f"{name}\n({_UNITS[name]})" if name in _UNITS else name


def _decoded(action: Any) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = action.decoded_actions.mean(axis=0)
    return mean


def _numbers(values: NDArray[np.float32]) -> str:
    return " ".join(f"{value:+.2f}" for value in values[:_SHOWN])


def _episodes(root: Path) -> list[Episode]:
    """Every episode of a LeRobot folder."""
    with needs("train"):
        from tectum_train.data import DataError, LeRobotDataset
    try:
        dataset = LeRobotDataset(root)
        return [_episode(dataset, episode) for episode in dataset.episodes]
    except DataError as error:
        raise fail(f"{error}; --data names a LeRobot v3.0 folder to show the demo on") from error


def _episode(dataset: LeRobotDataset, found: EpisodeInfo) -> Episode:
    columns = dataset.read_columns(found.index)
    names = dataset.info.features["action"].names
    return Episode(
        instruction=found.tasks[0],
        task=str(columns[_TASK][0]) if _TASK in columns else found.tasks[0],
        frames=dataset.read_frames(found.index, dataset.cameras[0]),
        actions=columns["action"],
        names=tuple(names) if isinstance(names, list) else (),
        interval=1 / dataset.info.fps,
    )
