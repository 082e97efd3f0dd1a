"""An engine in a process of its own, with a fault planted in it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.server.worker.linked import IMAGE, MEMORY, Listening, job
from tests.server.worker.serving import PATIENCE

from tectum_server.worker.failure import Failure

__all__ = ["Ended", "asked_once"]

_PROGRAM = """
import sys, threading
from tectum_server.worker.engine import process
from tectum_server.worker.engine.scheduling import scheduler

{fault}
sys.exit(process.main())
"""


@dataclass(frozen=True)
class Ended:
    """What came of such an engine."""

    code: int | None
    failure: Failure
    """Of the one job that it was asked."""
    said: bytes
    """To its supervisor."""
    log: bytes


async def asked_once(fault: str, root: Path, folder: Path, **more: object) -> Ended:
    """Begin one that serves `arm`, ask it for a picture once it serves, and wait for its end.

    Args:
        fault: lines of Python that run before it begins.
        root: the repository.
        folder: for its socket.
        more: settings.
    """
    told = {
        "repository": str(root),
        "models": ["arm"],
        "asked": None,
        "max_batch": 1,
        "socket": str(folder / "socket"),
        "log_level": "info",
        **more,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM.format(fault=fault),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(told).encode() + b"\n")
    async with asyncio.timeout(PATIENCE):
        remote = Listening(folder / "socket", MEMORY, MEMORY)
        changed = asyncio.Event()
        remote.on_change(changed.set)
        remote.start()
        while not remote.models:
            await changed.wait()
            changed.clear()
        with pytest.raises(Failure) as caught:
            await remote.submit(job(IMAGE))
        said, log = await process.communicate()
        await remote.close()
    return Ended(process.returncode, caught.value, said, log)
