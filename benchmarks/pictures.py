"""The pictures of docs/objectives.md, drawn from runs of `make gates` and held-out frames.

    make gates ROW=mae SEED=0 …    the runs
    make pictures                  draws those that are there

Each picture needs the runs of some rows, seed 0; what is missing is said, and the others are drawn.
What frozen trunks tell is drawn of what lies in benchmarks/results/gates.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from torch import Generator, Tensor

from gates import gather
from gates_rows import named
from gates_run import Places, kept, recipe_of
from pictures_probes import draw_probes, probed
from tectum_core.masks import block_mask, hinted_mask, random_mask, tube_mask
from tectum_core.model import unpatchify
from tectum_core.predictor import Predictor
from tectum_core.preprocess import normalise, to_pixels
from tectum_train.data.samples import Samples
from tectum_train.engine.building import Run, open_samples
from tectum_train.engine.progress import say
from tectum_train.engine.run import train
from tectum_train.export import as_bundle
from tectum_train.image_tokenizer import FILE, read_image_tokenizer

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
GREY = 96
Frames = NDArray[np.uint8]
Grid = list[list[Frames]]


@dataclass(frozen=True)
class Trained:
    """A finished run, and held-out frames."""

    run: Run
    test: Samples

    @property
    def predictor(self) -> Predictor:
        """What a worker would ask."""
        return Predictor(as_bundle(self.run, self.test.instructions, {}))

    def frames(self, count: int) -> NDArray[np.int64]:
        """The middles of so many episodes of different tasks."""
        first: dict[int, int] = {}
        families = np.asarray(self.test.column("task_family")).reshape(-1)
        for index in np.flatnonzero(np.abs(self.test.progress - 0.5) < 0.02):
            first.setdefault(int(families[index]), int(index))
        return np.array(list(first.values())[:count])


def opened(row: str, console: Console) -> Trained | None:
    """Its run of seed 0; None: it is not finished."""
    recipe = recipe_of(named(row), 0, Places())
    if kept(named(row), 0, Places()) is None or not recipe.checkpoint.exists():
        say(console, f"not there: make gates ROW={row} SEED=0")
        return None
    run = train(recipe, resume=True, console=Console(quiet=True))
    return Trained(run, open_samples(recipe, "test", lambda *_: None))


def greyed(frames: Frames, hidden: NDArray[np.bool_]) -> Frames:
    """Frames [..., S, S, 3] with what is hidden [rows, columns] in grey."""
    side = frames.shape[-2] // hidden.shape[-1]
    mask = hidden.repeat(side, axis=-2).repeat(side, axis=-1)[..., None]
    return np.where(mask, np.uint8(GREY), frames)


def masks(console: Console) -> Grid | None:
    """Each kind of mask, and what the model that learnt with it fills in."""
    lines: Grid = []
    for row in ("mae", "mae-block", "mae-importance"):
        if (made := opened(row, console)) is None:
            return None
        predictor, generator = made.predictor, Generator().manual_seed(0)
        side, decoder = predictor.model.vision.config.grid, predictor.config.model.pixel_decoder
        if decoder is None:
            return None
        ratio = decoder.mask_ratio  # as each of them has learnt
        for index in made.frames(2):
            frame = made.test.frames[index]
            if row == "mae-block":
                hidden = block_mask(side, side, ratio, generator)
            elif row == "mae-importance":
                later = made.test.frames[index + 5].astype(np.float32)
                change = np.abs(later - frame).mean(axis=-1)
                patches = change.reshape(side, change.shape[0] // side, side, -1).mean(axis=(1, 3))
                scores = torch.from_numpy(patches.reshape(-1))
                hidden = hinted_mask(scores, ratio, 0.5, generator)
            else:
                hidden = random_mask(side * side, ratio, generator)
            filled = predictor.fill_images([frame], hidden[None])
            shown = greyed(filled.seen[0, 0], hidden.reshape(side, side).numpy())
            lines.append([shown, filled.filled[0, 0], filled.seen[0, 0]])
    return lines


def codes(console: Console) -> Grid | None:
    """Pictures, their codes, and what is painted from these."""
    if (made := opened("image-tokenizer", console)) is None:
        return None
    tokenizer, config = read_image_tokenizer(made.run.folder / FILE)
    side, size = config.vision.grid, config.vision.patch_size
    frames = made.test.frames[made.frames(4)]
    pixels = normalise(torch.from_numpy(frames).permute(0, 3, 1, 2), config.images)
    with torch.inference_mode():
        found = tokenizer.codes(pixels)
        patches = tokenizer.decode(tokenizer.codebook.of(found))
    painted = rows(to_pixels(unpatchify(patches, size, 1, 1).squeeze(2), config.images))
    shades = colormaps["nipy_spectral"](found.numpy() / config.shape.codes)[..., :3]
    tiles = (shades.reshape(-1, side, side, 3) * 255).astype(np.uint8)
    maps = tiles.repeat(size, axis=1).repeat(size, axis=2)
    return [list(line) for line in zip(frames, maps, painted, strict=True)]


def rows(pixels: Tensor) -> Frames:
    """uint8[B, 3, S, S] to [B, S, S, 3]."""
    return pixels.permute(0, 2, 3, 1).numpy()


def clips(console: Console) -> Grid | None:
    """A clip: what is shown of it, what is filled in, what it was."""
    if (made := opened("video-mae", console)) is None:
        return None
    predictor, generator = made.predictor, Generator().manual_seed(0)
    config, decoder = predictor.config.model.video, predictor.config.model.video_decoder
    if config is None or decoder is None:
        return None
    interval = round((config.frame_interval or 0) * made.test.dataset.info.fps)
    (start,) = made.frames(1)
    clip = made.test.frames[start + interval * np.arange(config.frames)]
    frame = random_mask(config.grid**2, decoder.mask_ratio, generator)
    hidden = tube_mask(config.steps, frame)
    filled = predictor.fill_clips([clip], hidden[None])
    shown = greyed(filled.seen[0], frame.reshape(config.grid, config.grid).numpy())
    return [list(one) for one in (shown, filled.filled[0], filled.seen[0])]


def carried(console: Console) -> Grid | None:
    """Two frames, the change that z names painted there, and painted in another scene."""
    row = "latent-action"
    if (made := opened(row, console)) is None:
        return None
    predictor, index = made.predictor, made.frames(4)
    steps = made.run.recipe.data.pair_steps[0]
    earlier, later = made.test.frames[index], made.test.frames[index + steps]
    module = predictor.model.latent_action
    if module is None:
        return None
    images = made.run.recipe.images
    pixels = [
        module.frames(normalise(torch.from_numpy(one).permute(0, 3, 1, 2), images))
        for one in (earlier, later)
    ]
    with torch.inference_mode():
        vectors = module.infer(pixels[0], pixels[1]).vectors
        here = module.predict(pixels[0], vectors)
        scene = pixels[0].roll(1, dims=0)
        there = module.predict(scene, vectors)
    shown = [rows(to_pixels(one.float(), images)) for one in (*pixels, here, scene, there)]
    return [list(line) for line in zip(*shown, strict=True)]


@dataclass(frozen=True)
class Picture:
    """One of the pictures."""

    name: str
    made: Callable[[Console], Grid | None]
    titles: tuple[str, ...] = ()
    """Of the columns."""
    lines: tuple[str, ...] = ()
    """Of the rows."""


ALL = (
    Picture(
        "masks",
        masks,
        ("shown", "filled in", "original"),
        ("random", "", "block", "", "importance", ""),
    ),
    Picture("codes", codes, ("original", "its codes", "painted from them")),
    Picture("clips", clips, (), ("shown", "filled in", "original")),
    Picture(
        "latent-actions",
        carried,
        ("earlier", "later", "earlier + z", "another scene", "that scene + z"),
    ),
)


def draw(picture: Picture, grid: Grid, folder: Path) -> Path:
    """Write it; gives where."""
    figure = Figure(figsize=(1.5 * len(grid[0]) + 0.6, 1.5 * len(grid) + 0.4), layout="constrained")
    axes = figure.subplots(len(grid), len(grid[0]), squeeze=False)
    for number, (line, frames) in enumerate(zip(axes, grid, strict=True)):
        for axis, frame in zip(line, frames, strict=True):
            axis.imshow(frame, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        if picture.lines:
            line[0].set_ylabel(picture.lines[number])
    for axis, title in zip(axes[0], picture.titles, strict=False):
        axis.set_title(title, fontsize=9)
    path = folder / f"{picture.name}.png"
    figure.savefig(path, dpi=100)
    return path


def main() -> None:
    """Draw what can be drawn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=PICTURES)
    given = parser.parse_args()
    console = Console(stderr=True)
    given.out.mkdir(parents=True, exist_ok=True)
    for picture in ALL:
        if (grid := picture.made(console)) is not None:
            say(console, str(draw(picture, grid, given.out)))
    if asked := probed(gather(Places())):
        draw_probes(asked, given.out / "probes.png")
        say(console, str(given.out / "probes.png"))


if __name__ == "__main__":
    main()
