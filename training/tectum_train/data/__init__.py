"""Where training's pictures, rows and words come from.

Reads data sets as they lie on disk into numpy arrays, and caches what is slow to read. Knows
nothing of models, objectives or the loop.
"""

from tectum_train.data.cache import FrameCache
from tectum_train.data.errors import (
    DataError,
    Inconsistent,
    MissingFile,
    UnsupportedVersion,
    VideoError,
)
from tectum_train.data.lerobot import FrameBlock, LeRobotDataset
from tectum_train.data.metadata import DatasetInfo, EpisodeInfo, Feature, VideoSpan

__all__ = [
    "DataError",
    "DatasetInfo",
    "EpisodeInfo",
    "Feature",
    "FrameBlock",
    "FrameCache",
    "Inconsistent",
    "LeRobotDataset",
    "MissingFile",
    "UnsupportedVersion",
    "VideoError",
    "VideoSpan",
]
