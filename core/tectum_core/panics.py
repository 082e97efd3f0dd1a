"""Panics of libraries that are written in Rust.

pyo3 raises them past `except Exception`, by a class that cannot be imported: what has to see to
every fault catches BaseException, and lets by what is none.
"""

from __future__ import annotations

from asyncio import CancelledError
from typing import Final

__all__ = ["NO_FAULTS"]

NO_FAULTS: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, CancelledError)
"""What ends a process, a task or a generator on purpose, and is no fault of what it meets there."""
