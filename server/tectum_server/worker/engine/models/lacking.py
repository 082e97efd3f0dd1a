"""What a host lacks for something to run on it: a compiler, or a module.

Only that lasts: whatever else fails may have had no memory left, and is worth another try.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator

__all__ = ["is_lacking", "what_lacks"]

_COMPILERS = {"a C++ compiler": ("CXX", "g++", "clang++"), "a C compiler": ("CC", "gcc", "clang")}
"""By what they are called here: the variable that names one, and what is looked for without."""
_SAID = {"No working C++ compiler": "a C++ compiler", "Failed to find C compiler": "a C compiler"}
"""Words of torch's and triton's."""
_MODULE = "the module "


def what_lacks(error: BaseException) -> str:
    """What is to be there for a failure to pass; empty: it may pass by itself.

    Torch wraps what went wrong in errors of its compiler's, each in its way.
    """
    for one in _chain(error):
        if isinstance(one, ImportError) and one.name:
            return f"{_MODULE}{one.name}"
        if type(one).__name__ == "TritonMissing":
            return f"{_MODULE}triton"
        for words, what in _SAID.items():
            if words in str(one):
                return what
    return ""


def is_lacking(what: str) -> bool:
    """Whether that is not there, still."""
    if what.startswith(_MODULE):
        name = what.removeprefix(_MODULE)
        try:
            return importlib.util.find_spec(name) is None
        except (ImportError, ValueError):  # of a package that is not there, or is no module
            return True
    variable, *usual = _COMPILERS.get(what, ("",))
    named = os.environ.get(variable)
    return not any(map(shutil.which, [named] if named else usual))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and all that it came of."""
    seen, waiting = set[int](), list[BaseException | None]([error])
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            inner = getattr(one, "inner_exception", None)
            waiting += [one.__context__, one.__cause__]
            waiting.append(inner if isinstance(inner, BaseException) else None)
