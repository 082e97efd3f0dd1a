"""Many objectives at once: their weights, units, turns, and what they share.

Knows what an objective says of a batch (`Outcome`), never which objective it is.
"""

from tectum_train.tasks.many import ManyTasks
from tectum_train.tasks.settings import (
    CrossStitch,
    Distance,
    DwaWeights,
    GradNormWeights,
    TasksConfig,
)
from tectum_train.tasks.sharing import views_of

__all__ = [
    "CrossStitch",
    "Distance",
    "DwaWeights",
    "GradNormWeights",
    "ManyTasks",
    "TasksConfig",
    "views_of",
]
