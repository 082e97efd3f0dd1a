"""Ending with the process that began this one, however that one ended.

Who begins a process holds the other end of its standard input. A process that is killed
cannot end those it began, but the system closes that end for it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

__all__ = ["end_with_stdin"]


def end_with_stdin() -> None:
    """From now on, the end of standard input is a SIGTERM."""
    threading.Thread(target=_wait, name="lifeline", daemon=True).start()


def _wait() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
