"""Parquet files to numpy arrays, with errors that say what to do.

Knows columns and row groups; nothing of episodes, features or robots.
"""

# n rows

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tectum_train.data.errors import DataError, Inconsistent, MissingFile

__all__ = ["RowGroups", "read_table", "to_numpy"]


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a whole parquet file, or some of its columns.

    Raises:
        MissingFile: there is no such file.
        DataError: it is not a finished parquet file.
    """
    with _open(path) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)


class RowGroups:
    """One parquet file, read by row ranges; keeps the footer in memory but no open file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _open(path) as file:
            self._footer = file.metadata
            self.columns = frozenset(file.schema_arrow.names)
        counts = [self._footer.row_group(n).num_rows for n in range(self._footer.num_row_groups)]
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._footer.num_rows)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Read rows `start` to `stop` (exclusive), touching only the row groups they lie in."""
        first = int(np.searchsorted(self._ends, start, side="right"))
        last = int(np.searchsorted(self._ends, stop - 1, side="right"))
        before = int(self._ends[first - 1]) if first else 0
        with _open(self.path, self._footer) as file:
            groups = list(range(first, last + 1))
            table = file.read_row_groups(groups, columns=list(columns), use_threads=False)
        return table.slice(start - before, stop - start)


def to_numpy(column: "pa.ChunkedArray[Any]", name: str, row_shape: Sequence[int]) -> NDArray[Any]:
    """Turn a column into one array.

    Scalars, fixed-size lists, plain lists and lists of lists are read alike.

    Args:
        column: n rows without nulls.
        name: of the column, for errors.
        row_shape: shape of one row; (1,) means a scalar, as LeRobot writes it.

    Returns:
        [n] for scalars, else [n, *row_shape]; strings as numpy's fixed-width ones.

    Raises:
        Inconsistent: nulls, or rows that have not `row_shape`.
    """
    rows = len(column)
    values: Any = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # pyarrow keeps an empty column chunked
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    while True:
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        if values.null_count:
            raise Inconsistent(f"column {name!r} has {values.null_count} nulls; allowed are none")
        if not hasattr(values, "flatten") or pa.types.is_struct(values.type):
            break
        values = values.flatten()
    kind = values.type
    flat = values.to_numpy(zero_copy_only=False)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        flat = flat.astype(np.str_)
    shape = (rows,) if tuple(row_shape) == (1,) else (rows, *row_shape)
    # Ragged lists whose sizes happen to add up would be cut at the wrong places.
    if flat.size != int(np.prod(shape)) or _ragged(column):
        raise Inconsistent(
            f"column {name!r} holds {flat.size} values in {rows} rows; "
            f"each row should have shape {tuple(row_shape)}"
        )
    array: NDArray[Any] = np.array(flat).reshape(shape)  # a copy: arrow's memory is read-only
    return array


def _ragged(column: "pa.ChunkedArray[Any]") -> bool:
    """Whether lists of one level differ in length."""
    for chunk in column.chunks:
        values: Any = chunk
        while True:
            if isinstance(values, pa.ExtensionArray):
                values = values.storage
            if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
                if not pa.types.is_fixed_size_list(values.type):
                    break
            elif len(set(np.diff(values.offsets.to_numpy()).tolist())) > 1:
                return True
            values = values.flatten()
    return False


def _open(path: Path, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, metadata=footer)
    except FileNotFoundError as error:
        raise MissingFile(f"{path} is missing") from error
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path} is no finished parquet file ({error}); if it was being recorded, "
            "finalize() was not called"
        ) from error
