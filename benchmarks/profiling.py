"""Which of our modules a process spends its time in, as py-spy samples it (`pip install py-spy`).

A sample counts for the innermost of our own frames: what protobuf, numpy or torch do for a line is
that line's. What has no frame of ours is asyncio's and grpc's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["OTHERS", "available", "modules", "profiled"]

OTHERS = "asyncio and grpc"
_COMMAND = ("py-spy", "record", "--format=raw", "--rate=50")
"""A process stands still for each sample, so there are few; what waits is not sampled."""
_OURS = re.compile(r"\((?:\S*/)?(tectum(?:_\w+)?/\S+)\.py:\d+\)$")
_WAITS = re.compile(
    r"^Condition\.wait |^_wait \(\S*lifeline\.py|select \(selectors\.py|^_worker |^Thread\.run "
)
"""Where a thread waits, be it that its kernel says so or not; `Thread.run`: grpc's own poller."""
_ENTRIES = re.compile(r"/process$")
"""Below which everything happens: a sample that has no other frame of ours is not its."""


def available() -> bool:
    """Whether py-spy is there to ask."""
    return shutil.which("py-spy") is not None


@contextmanager
def profiled(pids: Mapping[str, int], seconds: float) -> Iterator[dict[str, Counter[str]]]:
    """Sample processes for so long from now on.

    Args:
        pids: processes by name.
        seconds: how long.

    Yields:
        By the same names, samples by module; filled when the block ends, which waits for it.
    """
    found = dict[str, Counter[str]]()
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, name) for name in pids}
        spies = [
            subprocess.Popen(
                [*_COMMAND, f"--duration={seconds:.0f}", f"--output={files[name]}", f"--pid={pid}"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name, pid in pids.items()
        ]
        try:
            yield found
            for spy in spies:
                spy.wait(seconds + 30)
        finally:
            for spy in spies:
                spy.kill()
                spy.wait()
        found.update({name: modules(file.read_text()) for name, file in files.items()})


def modules(stacks: str) -> Counter[str]:
    """Samples by the module of the innermost of our own frames, such as `front/calls`.

    Args:
        stacks: py-spy's raw format: a line a stack, outermost frame first, parted by semicolons,
            and then how often it was seen.
    """
    found = Counter[str]()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")[::-1]
        if _WAITS.search(frames[0]):
            continue
        ours = (_OURS.search(frame) for frame in frames)
        names = (match[1] for match in ours if match and not _ENTRIES.search(match[1]))
        name = next(names, OTHERS)
        found[re.sub(r"^tectum_server/worker/", "", name)] += int(count)
    return found
