"""A model's outline: every tensor's name and shape, and no memory for any.

Torch computes on its `meta` device by way of its compiler, whose import takes as long as that of
all the rest of torch. So nothing is computed there: initial values are left out, and tables
(`sincos_positions`) are made without theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from tectum_core.architecture import ModelConfig
from tectum_core.model.perception import PerceptionModel

__all__ = ["outline", "outlined"]


class _WithoutValues(TorchFunctionMode):
    """Leaves tensors as they are where `torch.nn.init` would fill them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextmanager
def outlined() -> Iterator[None]:
    """Whatever modules are built in here have shapes and no memory."""
    with torch.device("meta"), _WithoutValues():
        yield


def outline(config: ModelConfig) -> PerceptionModel:
    """Build a model's outline.

    Raises:
        RuntimeError, TypeError, ValueError, OverflowError: no such model can be built, or its sizes
            are beyond 64 bits.
    """
    with outlined():
        return PerceptionModel(config)
