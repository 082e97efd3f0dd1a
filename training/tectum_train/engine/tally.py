"""What a run's steps said since the last record, as means: no step's word is lost.

Knows names and numbers; no run, no file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tectum_train.distributed import means

__all__ = ["Tally"]


class Tally:
    """Running sums of scalars, each over the steps that told it.

    Objectives that take turns tell theirs in some steps only, and so does what is reported now and
    then. Sums stay on the device, which nobody waits for until they are taken.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, told: Mapping[str, Tensor]) -> None:
        """Hear what a step says: scalars by name."""
        for name, value in told.items():
            own = value.detach()
            own = own if own.is_floating_point() else own.float()
            # A copy of the first one too: it may be a parameter, which goes on changing.
            self._sums[name] = self._sums[name] + own if name in self._sums else own.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def taken(self, device: str | torch.device) -> dict[str, float]:
        """Each one's mean over steps, and over the ranks that have it; then begin anew.

        All ranks must ask at the same time; the device is what they compute on.
        """
        own = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means(own, device)
