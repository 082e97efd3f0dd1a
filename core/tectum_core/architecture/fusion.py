"""Actions, and the transformer in which all modalities meet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from tectum_core.architecture.transformer import Strict, TransformerConfig

__all__ = ["ActionBinsConfig", "ActionConfig", "FusionConfig"]


class ActionBinsConfig(Strict):
    """Bins in which each number of an action may lie; the model says how probable each is."""

    count: Annotated[int, Field(ge=2, le=1024)] = 256
    """Bins of each number; RT-1 (arXiv:2212.06817) has 256."""
    spacing: Literal["uniform", "quantiles"] = "uniform"
    """`uniform`: equally wide; `quantiles`: of the training data equally many in each."""
    limit: PositiveFloat = 4.0
    """Equally wide bins lie between minus and plus so many standard deviations; what is beyond is
    counted to the outermost."""


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
    bins: ActionBinsConfig | None = None
    """Bins whose probabilities are learnt, and of whose centres the mean is what is predicted;
    None: the action itself is."""


class FusionConfig(Strict):
    """The transformer in which image, text and action tokens meet."""

    transformer: TransformerConfig
    """Its blocks; each modality is projected to their width."""
    text_mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of tokens hidden by default in serving."""
