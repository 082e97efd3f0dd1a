"""World models: what the latents of the next frame will be, given those before and the actions."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from tectum_core.architecture.transformer import Strict, TransformerConfig

__all__ = ["WorldModelConfig"]


class WorldModelConfig(Strict):
    """A transformer over frames in a row, each as the trunk's latents, and what is done between."""

    transformer: TransformerConfig
    """Its blocks. `depth` counts pairs of them: one over a frame's latents, one over time."""
    latents: Literal["tokens", "pooled"] = "tokens"
    """What stands for a frame: the trunk's patch tokens, or its pooled vector."""
    grid: PositiveInt | None = None
    """Latents along a side: tokens averaged over squares of patches; None: a latent a patch."""
    history: Annotated[PositiveInt, Field(le=64)] = 4
    """Frames that it looks back on at most; a rollout moves on with what it predicted itself."""
    actions: Literal["none", "real", "latent"] = "real"
    """What is done between two frames: nothing that it knows of; the robot's own actions;
    latent actions of `latent_action`."""
    action_steps: Annotated[PositiveInt, Field(le=1024)] | None = None
    """Robot actions between two frames; with `real` alone, where it is required."""
    interval: PositiveFloat
    """Seconds between two frames."""
    max_steps: Annotated[PositiveInt, Field(le=1024)] = 16
    """Longest rollout served, frames."""
    decoder: TransformerConfig | None = None
    """Blocks of what paints a frame from its latents; None: there is no such decoder."""

    @model_validator(mode="after")
    def _real_actions_have_steps(self) -> Self:
        if (self.actions == "real") != (self.action_steps is not None):
            raise ValueError("action_steps belongs to actions 'real', which need it")
        return self

    @model_validator(mode="after")
    def _tokens_have_a_grid(self) -> Self:
        if self.grid is not None and self.latents != "tokens":
            raise ValueError("grid belongs to latents 'tokens'")
        return self
