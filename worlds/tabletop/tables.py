"""LeRobot's parquet files: their column types, and writing one after another within a size limit.

Vectors are fixed-size lists, shape-(1,) features scalar columns. One episode is one row group. The
`huggingface` note in a file's schema repeats the features, as the `datasets` library leaves it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tabletop.summaries import STATISTICS


@dataclass(frozen=True, slots=True)
class Feature:
    """One recorded column."""

    dtype: str
    """`float32`, `int64`, `bool`, or `video` for uint8 pictures kept in a film."""
    shape: tuple[int, ...]
    """Of one row; (1,) is a scalar, (H, W, 3) a picture."""
    names: tuple[str, ...] | None = None
    """One per component."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which file: both numbers appear in its path."""

    chunk: int = 0
    file: int = 0

    def next(self, chunks_size: int) -> "Place":
        """The file after this one; a chunk (folder) holds `chunks_size` files."""
        if self.file + 1 < chunks_size:
            return Place(self.chunk, self.file + 1)
        return Place(self.chunk + 1, 0)

    def path(self, template: str, **names: str) -> str:
        """Fill in LeRobot's path template."""
        return template.format(chunk_index=self.chunk, file_index=self.file, **names)


def arrow_type(feature: Feature) -> pa.DataType:
    """The column type of a feature that is not a film."""
    value = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}[feature.dtype]
    return value if feature.shape == (1,) else pa.list_(value, feature.shape[0])


def data_schema(features: Mapping[str, Feature]) -> pa.Schema:
    """Columns of the data files: all features except films."""
    rows = {name: feature for name, feature in features.items() if feature.dtype != "video"}
    return pa.schema(
        [pa.field(name, arrow_type(feature)) for name, feature in rows.items()],
        metadata={"huggingface": json.dumps({"info": {"features": _described(rows)}})},
    )


def data_table(columns: Mapping[str, NDArray[Any]], schema: pa.Schema) -> pa.Table:
    """Arrays of one episode as a table; vectors [N, K] become lists of K."""
    arrays = []
    for field in schema:
        values = np.ascontiguousarray(columns[field.name])
        flat = pa.array(values.reshape(-1))
        if pa.types.is_fixed_size_list(field.type):
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, field.type.list_size))
        else:
            arrays.append(flat)
    return pa.Table.from_arrays(arrays, schema=schema)


def episode_schema(features: Mapping[str, Feature]) -> pa.Schema:
    """Columns of meta/episodes: where an episode lies in each file, and its statistics."""
    fields: list[tuple[str, pa.DataType]] = [
        ("episode_index", pa.int64()),
        ("tasks", pa.list_(pa.string())),
        ("length", pa.int64()),
        ("data/chunk_index", pa.int64()),
        ("data/file_index", pa.int64()),
        ("dataset_from_index", pa.int64()),
        ("dataset_to_index", pa.int64()),
    ]
    for name, feature in features.items():
        if feature.dtype == "video":
            fields += [
                (f"videos/{name}/chunk_index", pa.int64()),
                (f"videos/{name}/file_index", pa.int64()),
                (f"videos/{name}/from_timestamp", pa.float64()),
                (f"videos/{name}/to_timestamp", pa.float64()),
            ]
    for name, feature in features.items():
        fields += [
            (f"stats/{name}/{statistic}", _statistic_type(feature, statistic))
            for statistic in STATISTICS
        ]
    fields += [("meta/episodes/chunk_index", pa.int64()), ("meta/episodes/file_index", pa.int64())]
    return pa.schema(fields)


def task_table(tasks: list[str]) -> pa.Table:
    """meta/tasks.parquet: the sentence is the index of a pandas frame, which has no name."""
    number = {
        "name": "task_index",
        "field_name": "task_index",
        "pandas_type": "int64",
        "numpy_type": "int64",
        "metadata": None,
    }
    sentence = {
        "name": None,
        "field_name": "__index_level_0__",
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": None,
    }
    pandas = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [
            {
                "name": None,
                "field_name": None,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": {"encoding": "UTF-8"},
            }
        ],
        "columns": [number, sentence],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    schema = pa.schema(
        [("task_index", pa.int64()), ("__index_level_0__", pa.large_string())],
        metadata={"pandas": json.dumps(pandas)},
    )
    return pa.table([list(range(len(tasks))), tasks], schema=schema)


class ParquetFiles:
    """Writes row groups into one file after another."""

    def __init__(
        self, root: Path, template: str, schema: pa.Schema, limit: float, chunks_size: int
    ) -> None:
        """Open nothing yet.

        Args:
            root: folder of the data set.
            template: path below it, with {chunk_index} and {file_index}.
            schema: of every file.
            limit: bytes a file should not exceed.
            chunks_size: files per folder.
        """
        self._root, self._template, self._schema = root, template, schema
        self._limit, self._chunks_size = limit, chunks_size
        self._place = Place()
        self._sink: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None

    def place_for(self, table_size: int) -> Place:
        """The file that a row group of about that many bytes will go to."""
        if self._sink is not None and self._sink.tell() + table_size > self._limit:
            self.close()
            self._place = self._place.next(self._chunks_size)
        return self._place

    def write(self, table: pa.Table) -> None:
        """Append one row group to the file last named by `place_for`."""
        if self._writer is None:
            path = self._root / self._place.path(self._template)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = pa.OSFile(str(path), "wb")
            self._writer = pq.ParquetWriter(self._sink, self._schema, compression="snappy")
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))

    def close(self) -> None:
        """Write the footer, without which a parquet file is unreadable."""
        if self._writer is not None and self._sink is not None:
            self._writer.close()
            self._sink.close()
        self._writer = self._sink = None


def _statistic_type(feature: Feature, statistic: str) -> pa.DataType:
    if statistic == "count":
        return pa.list_(pa.int64())
    if feature.dtype == "video":
        return pa.list_(pa.list_(pa.list_(pa.float64())))
    if statistic in ("min", "max") and feature.dtype in ("int64", "bool"):
        return pa.list_({"int64": pa.int64(), "bool": pa.bool_()}[feature.dtype])
    return pa.list_(pa.float64())


def _described(features: Mapping[str, Feature]) -> dict[str, Any]:
    """Features in the words of the `datasets` library."""
    described: dict[str, Any] = {}
    for name, feature in features.items():
        value: dict[str, Any] = {"dtype": feature.dtype, "_type": "Value"}
        if feature.shape != (1,):
            value = {"feature": value, "length": feature.shape[0], "_type": "List"}
        described[name] = value
    return described
