"""Contact sheets: a few episodes of every task on one picture, to be looked at by a person."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tabletop.camera import project
from tabletop.dataset import Dataset
from tabletop.families import NAMES

EPISODES = 3
"""Per task."""
MOMENTS = (0.0, 0.5, 1.0)
"""Parts of an episode at which it is shown."""
_LABEL_WIDTH = 110


def write_sheet(dataset: Dataset, path: Path, mark_hand: bool = False) -> None:
    """Draw a row per task, EPISODES·MOMENTS pictures wide.

    Args:
        dataset: what to show.
        path: the PNG to write.
        mark_hand: put a cross where the recorded camera says that the hand appears.
    """
    rows: dict[int, list[NDArray[np.uint8]]] = {}
    for extent, film in zip(dataset.extents(), dataset.films(), strict=True):
        row = rows.setdefault(extent.family, [])
        if len(row) == EPISODES * len(MOMENTS):
            continue
        for moment in MOMENTS:
            step = round(moment * (len(film) - 1))
            picture = film[step].copy()
            if mark_hand:
                _cross(picture, *hand_pixels(dataset, extent.begin + step, 1)[0])
            row.append(picture)
    size = dataset.information["features"]["observation.images.front"]["shape"][0]
    width = _LABEL_WIDTH + size * EPISODES * len(MOMENTS)
    sheet = Image.new("RGB", (width, size * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for line, (family, row) in enumerate(sorted(rows.items())):
        pen.text((4, line * size + size // 2 - 5), NAMES[family], fill="black")
        for column, picture in enumerate(row):
            place = (_LABEL_WIDTH + column * size, line * size)
            sheet.paste(Image.fromarray(picture), place)
    sheet.save(path)


def hand_pixels(dataset: Dataset, begin: int, count: int) -> NDArray[np.float64]:
    """Where the hand appears in rows begin..begin+count of one episode, float64[count, 2]."""
    hands = dataset.column("observation.state")[begin : begin + count, :3]
    matrix = dataset.column("camera.extrinsics")[begin].reshape(4, 4)
    pixels, _ = project(hands, dataset.column("camera.intrinsics")[begin], matrix)
    return pixels


def _cross(picture: NDArray[np.uint8], u: float, v: float) -> None:
    """A magenta cross of five pixels."""
    size = len(picture)
    for across, down in (
        (0, 0),
        (-2, 0),
        (-1, 0),
        (1, 0),
        (2, 0),
        (0, -2),
        (0, -1),
        (0, 1),
        (0, 2),
    ):
        column, row = round(u) + across, round(v) + down
        if 0 <= row < size and 0 <= column < size:
            picture[row, column] = (255, 0, 255)
