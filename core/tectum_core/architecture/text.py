"""The text trunk, and the space that texts share with images."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from tectum_core.architecture.transformer import Strict, TransformerConfig

__all__ = ["JointConfig", "TextConfig"]


class TextConfig(Strict):
    """A text transformer over the bundle's tokenizer."""

    transformer: TransformerConfig
    """The trunk."""
    vocabulary_size: PositiveInt
    """Entries of the tokenizer."""
    max_tokens: Annotated[PositiveInt, Field(le=8192)] = 32
    """Longest sequence, special tokens included; longer texts are cut."""
    causal: bool = False
    """Whether a token sees only those before it (CLIP); masked language needs False."""
    pooling: Literal["first", "last", "mean"] = "mean"
    """`last` is the last token that is not padding, the end-of-text token in CLIP."""


class JointConfig(Strict):
    """The space that images and texts share."""

    width: PositiveInt = 128
    """Length of a joint vector."""
    initial_scale: PositiveFloat = 1 / 0.07
    """Logit scale before training."""
    bias: float | None = None
    """Logit bias before training (SigLIP); None: without."""
    truncations: tuple[PositiveInt, ...] = ()
    """Shorter lengths that are meaningful too, ascending: the first so many dimensions are trained
    beside all of them (arXiv:2205.13147), and can be asked for alone."""

    @model_validator(mode="after")
    def _truncations_are_shorter_and_ascend(self) -> Self:
        found = self.truncations
        if sorted({*found, self.width}) != [*found, self.width]:
            raise ValueError(
                f"truncations: found {list(found)}; allowed: ascending lengths, each once and "
                f"below width {self.width}"
            )
        return self
