"""Processes that know each other over gloo, kept for all tests of a session.

A test sends a module's function and numpy arrays; each rank gets its part of every array's first
dimension, or all of it where the name ends in `_shared`, and what they return comes back in order.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

__all__ = ["Ranks"]

Arrays = dict[str, NDArray[Any]]


class Ranks:
    """So many processes, started when first asked."""

    def __init__(self, world: int = 2) -> None:
        self._world = world
        self._ends: list[Connection] = []
        self._processes: list[Any] = []

    def run(self, function: Callable[..., Any], **given: Any) -> list[Arrays]:
        """What each rank's `function` returns: a dictionary of arrays."""
        if not self._processes:
            self._start()
        for end in self._ends:
            end.send((function.__module__, function.__qualname__, given))
        answers: list[Any] = [
            end.recv() if end.poll(60) else "no answer in 60 s" for end in self._ends
        ]
        faults = [answer for answer in answers if isinstance(answer, str)]
        if faults:
            self.close()
        assert not faults, faults[0]
        return answers

    def close(self) -> None:
        """End them."""
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.terminate()
            process.join(10)
        self._ends, self._processes = [], []

    def _start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        for number in range(self._world):
            ours, theirs = context.Pipe()
            given = (number, self._world, port, theirs)
            process = context.Process(target=_serve, args=given, daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)


def _serve(number: int, world: int, port: int, end: Connection) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=number, world_size=world)
    while True:
        try:
            module, name, given = end.recv()
        except EOFError:
            return
        try:
            function: Any = importlib.import_module(module)
            for part in name.split("."):
                function = getattr(function, part)
            own = {key: _own(key, value, number, world) for key, value in given.items()}
            end.send(function(**own))
        except Exception:
            end.send(traceback.format_exc())


def _own(name: str, value: Any, number: int, world: int) -> Any:
    """A rank's part of an array."""
    if not isinstance(value, np.ndarray) or not value.ndim or name.endswith("_shared"):
        return value
    assert len(value) % world == 0, f"{name}: {len(value)} rows for {world} ranks"
    return np.split(value, world)[number]
