"""Batches launched on a device without waiting for them: sent, computed and fetched beside others.

`device` is what of CUDA this needs, `faults` what its errors mean, `lane` a batch's way over it,
`embedding` what takes that way.
"""

from tectum_core.launching.device import Device, device_for
from tectum_core.launching.embedding import EmbeddingLane, embedding_lane
from tectum_core.launching.lane import Flight, Lane, Program, graph_sizes

__all__ = [
    "Device",
    "EmbeddingLane",
    "Flight",
    "Lane",
    "Program",
    "device_for",
    "embedding_lane",
    "graph_sizes",
]
