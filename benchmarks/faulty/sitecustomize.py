"""Faults that no input of ours can bring about, for a worker that `faults.py` asks.

Python runs this as it begins, where PYTHONPATH has this folder. A picture whose first pixels are a
mark (`MARKS`) has the engine raise, run out of memory or crash as it computes it, and the front
raise or crash as it decodes it.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MARKS = {"raise": 1, "memory": 2, "crash": 3}
"""What the first four rows of a picture are filled with, by what happens to who touches it: in the
engine as it is, in the front plus 10."""
_ENGINE = "tectum_server.worker.engine.computing.running"
_FRONT = "tectum_server.worker.front.images"


def _befall(picture: Any, plus: int) -> None:
    for what, mark in MARKS.items():
        if (picture[:4] == mark + plus).all():
            if what == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if what == "memory":
                raise MemoryError("no memory left, as it was asked for")
            raise RuntimeError("a fault, as it was asked for")


def _in_engine(module: Any) -> None:
    inner = module.run_batch

    def run_batch(predictor: Any, work: Any) -> Any:
        for _, item in work:
            for array in item.arrays:
                _befall(array, 0)
        return inner(predictor, work)

    module.run_batch = run_batch


def _in_front(module: Any) -> None:
    inner = module.decode

    def decode(data: Any, **limits: Any) -> Any:
        picture = inner(data, **limits)
        _befall(picture, 10)
        return picture

    module.decode = decode


class _Finder(MetaPathFinder):
    """Wraps what is to be faulty, once it is imported."""

    def find_spec(
        self, name: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        wrap = {_ENGINE: _in_engine, _FRONT: _in_front}.get(name)
        spec = PathFinder.find_spec(name, path, target) if wrap else None
        if spec is not None and spec.loader is not None and wrap is not None:
            spec.loader = _Wrapping(spec.loader, wrap)
        return spec


class _Wrapping(Loader):
    def __init__(self, inner: Any, wrap: Any) -> None:
        self._inner, self._wrap = inner, wrap

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._inner.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        self._wrap(module)


sys.meta_path.insert(0, _Finder())
