"""Everything that reading a data set raises.

DataError                a ValueError: the folder cannot be read as it is
├── MissingFile          something its metadata names is not there
├── UnsupportedVersion   another version of the format; the message names it
├── Inconsistent         its parts contradict each other
└── VideoError           a video cannot be decoded, or its frames are not where they should be
"""

__all__ = ["DataError", "Inconsistent", "MissingFile", "UnsupportedVersion", "VideoError"]


class DataError(ValueError):
    """The data set cannot be read as it is."""


class MissingFile(DataError):
    """A file that the metadata names, or that every data set has, is not there."""


class UnsupportedVersion(DataError):
    """The data set is written in a version of its format that is not read here."""


class Inconsistent(DataError):
    """Two parts of the data set contradict each other."""


class VideoError(DataError):
    """A video is damaged, or a frame is not at its time."""
