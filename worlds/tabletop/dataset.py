"""Reads back what `recorder` wrote, for the report and its pictures.

Knows the columns of `world.features`; no general reader of LeRobot folders. Columns are held in
memory, pictures are decoded in order, one episode at a time.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tabletop.world import CAMERA

# T frames of an episode, N rows of the set, S side of a picture


@dataclass(frozen=True, slots=True)
class Extent:
    """One episode's rows and sentence."""

    begin: int
    end: int
    family: int
    layout: int
    instruction: str


class Dataset:
    """A recorded split."""

    def __init__(self, root: Path) -> None:
        """Read everything but the pictures.

        Raises:
            FileNotFoundError: the folder is not one that the generator wrote.
        """
        self.root = root
        meta = root / "meta"
        self.world: dict[str, Any] = json.loads((meta / "world.json").read_text("utf-8"))
        self.information: dict[str, Any] = json.loads((meta / "info.json").read_text("utf-8"))
        self._episodes = pq.read_table(
            meta / "episodes",
            columns=[
                "tasks",
                "dataset_from_index",
                "dataset_to_index",
                f"videos/{CAMERA}/chunk_index",
                f"videos/{CAMERA}/file_index",
            ],
        ).to_pylist()
        rows = pq.read_table(root / "data")
        self._columns = {name: _array(rows.column(name)) for name in rows.column_names}

    def column(self, name: str) -> NDArray[Any]:
        """A column of all rows, [N] or [N, K]."""
        return self._columns[name]

    def extents(self) -> list[Extent]:
        """The episodes, in order."""
        families, layouts = self.column("task_family"), self.column("layout")
        return [
            Extent(
                begin := episode["dataset_from_index"],
                episode["dataset_to_index"],
                int(families[begin]),
                int(layouts[begin]),
                episode["tasks"][0],
            )
            for episode in self._episodes
        ]

    def films(self) -> Iterator[NDArray[np.uint8]]:
        """The pictures of each episode in order, uint8[T, S, S, 3].

        Raises:
            ValueError: a film has fewer or more pictures than its episodes have rows.
        """
        places = [
            (episode[f"videos/{CAMERA}/chunk_index"], episode[f"videos/{CAMERA}/file_index"])
            for episode in self._episodes
        ]
        extents = self.extents()
        for chunk, file in dict.fromkeys(places):
            path = self.root / self.information["video_path"].format(
                video_key=CAMERA, chunk_index=chunk, file_index=file
            )
            with av.open(str(path)) as container:
                pictures = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
                for extent, place in zip(extents, places, strict=True):
                    if place != (chunk, file):
                        continue
                    wanted = extent.end - extent.begin
                    film = [picture for _, picture in zip(range(wanted), pictures, strict=False)]
                    if len(film) != wanted:
                        raise ValueError(f"{path.name} ends within an episode")
                    yield np.stack(film)
                if next(pictures, None) is not None:
                    raise ValueError(f"{path.name} goes on after its last episode")


def _array(column: pa.ChunkedArray) -> NDArray[Any]:
    """[N] for scalars, [N, K] for lists."""
    chunk = column.combine_chunks()
    if pa.types.is_fixed_size_list(chunk.type):
        flat: NDArray[Any] = chunk.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(-1, chunk.type.list_size)
    values: NDArray[Any] = chunk.to_numpy(zero_copy_only=False)
    return values
