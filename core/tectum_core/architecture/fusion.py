"""Actions, and the transformer in which all modalities meet."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from tectum_core.architecture.transformer import Strict, TransformerConfig

__all__ = ["ActionConfig", "FusionConfig"]


class ActionConfig(Strict):
    """Robot actions and state, in standardised units."""

    dimensions: PositiveInt
    """Numbers in one action, A."""
    state_dimensions: Annotated[int, Field(ge=0)] = 0
    """Numbers in the robot's state, S; 0: the model takes none."""
    max_steps: Annotated[PositiveInt, Field(le=8192)] = 16
    """Longest sequence."""
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of steps hidden by default in serving."""


class FusionConfig(Strict):
    """The transformer in which image, text and action tokens meet."""

    transformer: TransformerConfig
    """Its blocks; each modality is projected to their width."""
    text_mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of tokens hidden by default in serving."""
