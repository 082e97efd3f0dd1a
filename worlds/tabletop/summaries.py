"""Statistics of recorded columns, as LeRobot keeps them per episode and per data set.

Numeric columns are summarised exactly. Pictures are counted into a histogram per channel, which is
exact as well, for a byte has 256 values, and costs no memory.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# N rows, K components of a vector, T frames of H×W pixels, C channels

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STATISTICS = ("min", "max", "mean", "std", "count", *QUANTILES)

Summary = dict[str, Any]
"""One value per name in STATISTICS, as nested lists; `count` is always [N]."""


def summarise(values: NDArray[Any]) -> Summary:
    """Summarise a column.

    Args:
        values: any numeric type or bool, [N] or [N, K]; N ≥ 1.

    Returns:
        Lists of K numbers (1 for a scalar column), minimum and maximum in the column's own type.
    """
    rows = values.reshape(len(values), -1)
    numbers = rows.astype(np.float64)
    summary = {
        "min": rows.min(axis=0).tolist(),
        "max": rows.max(axis=0).tolist(),
        "mean": numbers.mean(axis=0).tolist(),
        "std": numbers.std(axis=0).tolist(),
        "count": [len(rows)],
    }
    levels = np.quantile(numbers, list(QUANTILES.values()), axis=0)
    return summary | dict(zip(QUANTILES, levels.tolist(), strict=True))


class PictureCounts:
    """How often each level occurs in each channel."""

    def __init__(self, channels: int) -> None:
        """Count nothing yet.

        Args:
            channels: C.
        """
        self.counts = np.zeros((channels, 256), np.int64)
        """int64[C, 256]."""
        self.frames = 0
        """How many pictures were counted."""

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Count uint8[T, H, W, C]."""
        for channel, counts in enumerate(self.counts):
            counts += np.bincount(frames[..., channel].ravel(), minlength=256)
        self.frames += len(frames)

    def merge(self, other: "PictureCounts") -> None:
        """Add another's counts."""
        self.counts += other.counts
        self.frames += other.frames

    def summary(self) -> Summary:
        """Levels scaled to [0, 1], nested C×1×1; `count` is the number of frames."""
        levels = np.arange(256) / 255
        weights = self.counts / self.counts.sum(axis=1, keepdims=True)
        mean = weights @ levels
        spread = np.sqrt(np.maximum(weights @ levels**2 - mean**2, 0))
        reached = np.cumsum(weights, axis=1)
        last = [np.flatnonzero(counts)[-1] for counts in self.counts]
        columns = {
            "min": levels[(self.counts > 0).argmax(axis=1)],
            "max": levels[last],
            "mean": mean,
            "std": spread,
        }
        summary: Summary = {name: _nested(column) for name, column in columns.items()}
        summary["count"] = [self.frames]
        for name, part in QUANTILES.items():
            # The rounding of a sum of weights must not push a level one too far.
            summary[name] = _nested(levels[(reached >= part - 1e-12).argmax(axis=1)])
        return summary


def _nested(values: NDArray[np.float64]) -> list[list[list[float]]]:
    """float[C] → C×1×1."""
    nested: list[list[list[float]]] = values[:, None, None].tolist()
    return nested
