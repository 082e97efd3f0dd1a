"""How numbers are made: what float32 means in this process, and what trunks may compute in instead.

A trunk's blocks are nearly all of what a model costs. They alone run in a narrower type or
compiled, on float32 in and float32 out, and beside them in bfloat16 the one product that patches
are embedded by; other embeddings, norms about the blocks, heads, quantisers and decoders are
float32 and eager throughout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Literal

import torch
from torch import Tensor, nn

from tectum_core.model import PerceptionModel
from tectum_core.model.transformer import Transformer

__all__ = ["REFERENCE", "Numerics", "Precision", "accelerate", "exact_float32", "release"]

Precision = Literal["float32", "bfloat16", "int8"]


def exact_float32() -> None:
    """Compute float32 in float32 from now on, in the whole process.

    TensorFloat-32, which cuDNN's convolutions use unless told otherwise, keeps 10 of 23 bits:
    golden outputs would not be reproduced, and a recipe's `float32` would not be what was
    trained. Torch has one switch for all threads, so it is never turned back.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@dataclass(frozen=True, slots=True)
class Numerics:
    """What trunks compute in."""

    precision: Precision = "float32"
    compiled: bool = False
    """By torch.compile, for one example and for several."""

    def __str__(self) -> str:
        return f"{self.precision}, {'compiled' if self.compiled else 'eager'}"


REFERENCE = Numerics()
"""What every other one is held against."""


def accelerate(model: PerceptionModel, numerics: Numerics) -> PerceptionModel:
    """The model with its trunks in these numerics; `model` itself for the reference.

    Whatever else it has than narrower weights is `model`'s own, which stays as it is.

    Raises:
        ImportError: int8 without torchao.
    """
    if numerics == REFERENCE:
        return model
    own = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    fast = copy.deepcopy(model, own)
    for trunk in (fast.vision, fast.video):
        if trunk is not None:
            length = trunk.config.patches + trunk.prefix
            trunk.transformer = _Blocks(trunk.transformer, numerics, length)
            if numerics.precision == "bfloat16" and isinstance(trunk.embed, nn.Linear):
                trunk.embed = _Bfloat16Linear(trunk.embed)
    if fast.text is not None:
        length = fast.text.config.max_tokens
        fast.text.transformer = _Blocks(fast.text.transformer, numerics, length)
    return fast.eval()


def release(model: PerceptionModel) -> None:
    """Let go of what was compiled for a model that serves no more.

    It knows the model and the model it, so that both would stay until the next garbage collection.
    """
    for module in model.modules():
        if isinstance(module, _Blocks):
            module.forget_compiled()


class _Blocks(Transformer):
    """A transformer's blocks in other numerics, in place of the transformer.

    Compiled is what nearly every call is of: sequences of the whole length. Others, of pictures
    with hidden patches, come in many lengths, each of which would keep its first caller waiting
    for a compiler.
    """

    def __init__(self, reference: Transformer, numerics: Numerics, length: int) -> None:
        nn.Module.__init__(self)
        self.blocks = reference.blocks
        self._type, self._length = torch.float32, length
        if numerics.precision == "bfloat16":
            self._type = torch.bfloat16
            self.blocks = copy.deepcopy(reference.blocks).to(self._type)
        elif numerics.precision == "int8":
            self.blocks = copy.deepcopy(reference.blocks)
            _quantise(self.blocks)
        self._compiled = torch.compile(_own(self)) if numerics.compiled else None

    def forward(self, x: Tensor, seen: Tensor | None = None, causal: bool = False) -> Tensor:
        """As the reference's."""
        given = x.to(self._type)
        if self._compiled is None or x.shape[1] != self._length:
            return super().forward(given, seen, causal).to(x.dtype)
        for tensor in (given, seen):  # all sizes but one are one program
            if tensor is not None and tensor.shape[0] > 1:
                torch._dynamo.mark_dynamic(tensor, 0)  # noqa: SLF001 - its documented name
        mixed: Tensor = self._compiled(given, seen, causal)
        return mixed.to(x.dtype)

    def forget_compiled(self) -> None:
        """Be eager from now on."""
        self._compiled = None

    def block(self, level: int, x: Tensor) -> Tensor:
        """As the reference's."""
        return super().block(level, x.to(self._type)).to(x.dtype)

    def last_attention(self, x: Tensor, queries: int) -> Tensor:
        """As the reference's."""
        return super().last_attention(x.to(self._type), queries).to(x.dtype)


class _Bfloat16Linear(nn.Linear):
    """A linear layer in bfloat16, on float32 in and float32 out.

    Normalised pixels have eight bits to begin with, and what they become is read by blocks that
    keep as many.
    """

    def __init__(self, reference: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = reference.in_features, reference.out_features
        narrow = copy.deepcopy(reference).to(torch.bfloat16)
        self.weight, self.bias = narrow.weight, narrow.bias

    def forward(self, x: Tensor) -> Tensor:
        """As the reference's."""
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


def _own(blocks: Transformer) -> Callable[[Tensor, Tensor | None, bool], Tensor]:
    """`Transformer.forward` with code of its own.

    Torch keeps what it has compiled by code, eight programs of each at most: of one code for all
    models the third would be eager, and nobody be told.
    """
    shared = Transformer.forward
    own = FunctionType(shared.__code__.replace(), shared.__globals__, shared.__name__)
    own.__defaults__ = shared.__defaults__
    return MethodType(own, blocks)


def _quantise(blocks: nn.Module) -> None:
    """Weights to int8 by output channel, and what they multiply to int8 by token, as it comes.

    By token: an example's numbers must not depend on what others are in its batch.
    """
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError as error:
        raise ImportError("int8 needs torchao: pip install 'tectum[int8]'") from error
    quantize_(blocks, Int8DynamicActivationInt8WeightConfig())
