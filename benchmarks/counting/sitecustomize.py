"""Lets a worker's processes say how many asyncio tasks they have, for `soak.py`.

Python runs this as it begins, where PYTHONPATH has this folder. At SIGUSR2 a process writes the
number, and what the tasks run, to the file `PID` in the folder that `COUNTING` names.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path


def _tell(*_: object) -> None:
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # no loop runs here
        tasks = set()
    names = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
    lines = [f"{count} {name}" for name, count in names.most_common()]
    folder = Path(os.environ["COUNTING"])
    draft = folder / f"{os.getpid()}.draft"
    draft.write_text("\n".join([str(len(tasks)), *lines]))
    draft.rename(folder / str(os.getpid()))


if "COUNTING" in os.environ:
    signal.signal(signal.SIGUSR2, _tell)
