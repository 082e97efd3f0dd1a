"""What every part builds on: strictness, and a stack of transformer blocks."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

__all__ = ["Strict", "TransformerConfig"]


class Strict(BaseModel):
    """Frozen; a misspelt key is an error, and so is what is no number: `true` is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_one(cls, given: object) -> object:
        """Pydantic reads `true` as 1, so that `bias: true` would be a bias of 1."""
        for name, value in given.items() if isinstance(given, dict) else ():
            several = value if isinstance(value, list | tuple) else (value,)
            field = cls.model_fields.get(name)
            if field is None or not any(isinstance(one, bool) for one in several):
                continue
            if not _takes_truth(field.annotation):
                raise ValueError(f"{name}: found {str(value).lower()}, which is no number")
        return given


def _takes_truth(annotation: object) -> bool:
    """Whether a field's type has `bool` in it, or takes anything."""
    if annotation is bool or annotation is Any or isinstance(annotation, bool):
        return True
    return any(map(_takes_truth, get_args(annotation)))


class TransformerConfig(Strict):
    """A stack of pre-norm transformer blocks."""

    width: PositiveInt
    """Length of a token, D."""
    depth: Annotated[PositiveInt, Field(le=256)]
    """Number of blocks."""
    heads: PositiveInt
    """Attention heads; divides `width`."""
    hidden: PositiveInt
    """Width of the MLP's hidden layer, usually 4·D."""
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    """`quick_gelu` is x·σ(1.702x), as in the original CLIP."""
    norm_eps: PositiveFloat = 1e-6
    """Epsilon of every LayerNorm."""
    qkv_bias: bool = True
    """Whether the query, key and value projections have biases."""
    layer_scale: PositiveFloat | None = None
    """Initial value of LayerScale on both residual branches (DINOv2); None: without."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self
