"""Who asks a command to end, and by what: Ctrl-C, an operator, a terminal that is closed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["ASKED", "ending_as_interrupts", "on_signals", "restore"]

ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_Handler = Callable[[int, FrameType | None], object]


def on_signals(handler: _Handler, *numbers: signal.Signals) -> dict[signal.Signals, Any]:
    """Handle these signals so; gives what handled them before.

    Of those that were ignored only SIGHUP stays so, which is what `nohup` is for. SIGINT is ignored
    in what a script starts with `&`, where who sends it means it all the same.
    """
    kept = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    heard = [number for number in numbers if number not in kept]
    return {number: signal.signal(number, handler) for number in heard}


def restore(before: dict[signal.Signals, Any]) -> None:
    """Handle signals as `on_signals` found them."""
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def ending_as_interrupts() -> Iterator[Callable[[], None]]:
    """Within, whoever asks for the end raises KeyboardInterrupt, as Ctrl-C does.

    Gives what raises it again: Python lets no error out of some places that a signal may come to,
    such as an object's end, so whoever goes on for long asks now and then.
    """
    asked = False

    def interrupt(*_: object) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    def heed() -> None:
        if asked:
            raise KeyboardInterrupt

    before = on_signals(interrupt, *ASKED)
    try:
        yield heed
    finally:
        restore(before)
