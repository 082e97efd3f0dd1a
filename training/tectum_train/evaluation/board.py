"""Measures as TensorBoard shows them: beside a run's curves, by what is measured.

What was measured before of the same run is dropped: a finished run may be measured again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from tectum_train.evaluation.measuring.measure import Measure

__all__ = ["OWN", "write_board"]

OWN = "measured"
"""The model's own number, among those of its controls."""


def write_board(folder: Path, step: int, measures: Sequence[Measure]) -> None:
    """Scalars `part/measure/whose`, and a chart of each measure with its controls.

    Args:
        folder: of a run; they go to tensorboard/evaluation in it.
        step: after which they were measured.
        measures: with finite or other numbers.
    """
    board = folder / "tensorboard" / "evaluation"
    shutil.rmtree(board, ignore_errors=True)
    layout = dict[str, dict[str, list[str | list[str]]]]()
    with SummaryWriter(str(board)) as writer:
        for one in measures:
            numbers = {OWN: one.value, **one.controls}
            tags = {f"{one.part}/{one.name}/{whose}": value for whose, value in numbers.items()}
            for tag, value in tags.items():
                writer.add_scalar(tag, value, step)
            # Tags are looked up as regular expressions.
            chart: list[str | list[str]] = ["Multiline", [f"^{re.escape(tag)}$" for tag in tags]]
            layout.setdefault(one.part, {})[one.name] = chart
        writer.add_custom_scalars(layout)
