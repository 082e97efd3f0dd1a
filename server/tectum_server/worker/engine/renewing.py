"""Asks for newer content of what is about to run, and goes on asking until it does.

A live camera's frame may wait for long where there are many of them; what its place in the line is
computed from is settled as late as can be. Knows when to ask, and nothing of what is asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tectum_server.worker.jobs import Item, Renewal

__all__ = ["Renewed", "ask_after"]

_log = logging.getLogger(__name__)

_ASK_AT = 0.5
"""Of what a batch is expected to take: then whoever runs next is asked. Before that, answers would
be outdone by newer ones, each of which costs a decoding; costs are medians, so that it may be over
much earlier."""


def ask_after(expected_ms: float | None) -> float:
    """Seconds from a batch's beginning until whoever runs next is asked.

    Args:
        expected_ms: what the batch takes; None: nobody knows yet.
    """
    return 0.0 if expected_ms is None else _ASK_AT * expected_ms / 1000


class Renewed:
    """A job's content, kept new from its first `ask` to its `close`.

    Args:
        renewal: where newer content is from; None: there is none, and nothing is ever asked.
        take: puts newer content in the job's place; whether it could.
    """

    def __init__(self, renewal: Renewal | None, take: Callable[[tuple[Item, ...]], bool]) -> None:
        self._renewal = renewal
        self._take = take
        self._asking: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Ask for newer content from now on."""
        if self._renewal is not None and self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask(self._renewal))

    def end(self) -> None:
        """Ask no more: the job runs, or never will."""
        if self._asking is not None:
            self._asking.cancel()

    async def close(self) -> None:
        """The same, and return once nothing is under way."""
        self.end()
        if self._asking is not None:
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self, renewal: Renewal) -> None:
        try:
            taken = True
            while taken:
                taken = self._take(await renewal.newest())
                renewal.settled(taken)
        except Exception:
            _log.exception("newer content cannot be had; the job runs with what it has")
