"""Processes that a supervisor starts, hears and ends; knows nothing of what they do.

Each is told its settings in one line of JSON on standard input, which stays open for as long as
the supervisor lives, and says in such lines on standard output what it has come to (`supervised`
is the other end).
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tectum_server.worker.pulse import Pulse

__all__ = ["KILL_AFTER", "end", "end_if_lost", "hear", "spawn"]

_log = logging.getLogger(__name__)
KILL_AFTER = 5.0
"""Seconds that a process has to end when it is told to."""
_TOLD_OF_DROPPED = 200
"""Bytes of a line that was too long, for the log."""
_LONGEST_LINE = 2**20
"""Bytes: the names of some ten thousand models."""


async def spawn(
    module: str, told: Mapping[str, Any], environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Run a module in a process of its own.

    Args:
        module: what `python -m` runs.
        told: its settings.
        environment: all of its environment's variables.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=dict(environment),
        limit=_LONGEST_LINE,
        # A terminal's Ctrl-C is for this process, which ends its children in order.
        start_new_session=True,
    )
    if process.stdin is None:
        raise AssertionError("stdin was asked for")
    process.stdin.write((json.dumps(told) + "\n").encode())
    with suppress(ConnectionError):  # it has ended already, and its end says so
        await process.stdin.drain()
    if process.stdin.is_closing():
        with suppress(ConnectionError):  # why it closes is asked, or asyncio logs it
            await process.stdin.wait_closed()
    return process


async def end(process: asyncio.subprocess.Process, patience: float) -> None:
    """SIGTERM, and after so many seconds SIGKILL for who does not listen."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(patience):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def end_if_lost(
    process: asyncio.subprocess.Process, name: str, pulse: Pulse, turn: float
) -> None:
    """Kill a process of which nothing is heard any more: it would not listen to SIGTERM either.

    Args:
        process, name: which, and what it is called in the log.
        pulse: what is heard of it; a turn of this one's passes in so many seconds.
        turn: seconds.
    """
    while not pulse.lost:
        await asyncio.sleep(turn)
        pulse.turn()
    _log.error("the %s is silent, and is ended", name)
    with suppress(ProcessLookupError):
        process.kill()


async def hear(process: asyncio.subprocess.Process) -> dict[str, object]:
    """The next thing the process says; nothing if it has ended."""
    if process.stdout is None:
        raise AssertionError("stdout was asked for")
    while line := await _next_line(process.stdout):
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        # A library's, no word of ours.
        _log.debug("a child wrote", extra={"line": line.decode(errors="replace")})
    return {}


async def _next_line(said: asyncio.StreamReader) -> bytes:
    """The next line that the reader has room for, the last one perhaps cut; nothing at the end.

    A longer one is a library's, no word of ours: it is read to its end and dropped.
    """
    begins, dropped = b"", 0
    while True:
        try:
            line = await said.readuntil()
        except asyncio.LimitOverrunError as error:
            part = await said.readexactly(error.consumed)
            begins, dropped = begins or part[:_TOLD_OF_DROPPED], dropped + len(part)
            continue
        except asyncio.IncompleteReadError as error:
            line = error.partial
        if not dropped:
            return line
        about = {"bytes": dropped + len(line), "begins": begins.decode(errors="replace")}
        _log.warning("a child's line was too long", extra=about)
        begins, dropped = b"", 0
