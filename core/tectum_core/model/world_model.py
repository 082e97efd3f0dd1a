"""A world model on the trunk's latents: the next frame's from those before and what is done.

A frame is the trunk's patch tokens (or their averages over squares of them), or its pooled vector,
each brought to mean 0 and spread 1 (`latents`): a unit in which errors and distances mean the same
whatever the trunk. What is done is added to each latent of the frame that it begins in: a token of
its own would first have to be looked at, which takes more training. What is predicted is the
change, so that an untrained one says that nothing moves. Attention is causal over time; a rollout
reads its own predictions as if they had been seen.

Letters: B batch, T frames of a window (H at most), M vectors of a frame as the trunk gives them (1
if pooled), N latents made of them, D their width, W the transformer's width, X numbers in one
step's action, F frames of a rollout, S the model's side, P patch side.

Source: V-JEPA 2-AC (arXiv:2506.09985), section 3; attention over space and over time by turns:
TimeSformer (arXiv:2102.05095), as Genie (arXiv:2402.15391) has it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.architecture import (
    ActionConfig,
    LatentActionConfig,
    TransformerConfig,
    VisionConfig,
    WorldModelConfig,
)
from tectum_core.model.bottleneck import latent_width
from tectum_core.model.initial import begin_at_zero, small_normal
from tectum_core.model.transformer import Block, Transformer
from tectum_core.model.vision import VisionOutput, unpatchify

__all__ = ["WorldModel", "action_width", "older_layout"]

_OLDER = "world_model.embed_action.weight"
"""Where actions were a token of their own, which one linear map made."""


def older_layout(names: Iterable[str]) -> str | None:
    """What is the matter with weights of these names, if they are of the older world model."""
    if not any(name.endswith(_OLDER) for name in names):
        return None
    return (
        f"is of an older version ({_OLDER}), whose world model read actions as tokens; this one "
        "adds them to every latent, and those weights mean nothing to it: train anew, or "
        "go on with the version that made it"
    )


def action_width(
    config: WorldModelConfig, actions: ActionConfig | None, latent: LatentActionConfig | None
) -> int:
    """Numbers in what is done between two frames, X; 0 without actions."""
    if config.actions == "real" and actions is not None and config.action_steps is not None:
        return config.action_steps * actions.dimensions
    if config.actions == "latent" and latent is not None:
        return latent_width(latent.bottleneck)
    return 0


class WorldModel(nn.Module):
    """Latents and actions in, the next latents out; and a decoder of latents beside it."""

    def __init__(
        self,
        config: WorldModelConfig,
        vision: VisionConfig,
        actions: ActionConfig | None,
        latent: LatentActionConfig | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.latent_width = vision.transformer.width
        self.trunk_grid = vision.grid if config.latents == "tokens" else 1
        self.grid = self.trunk_grid if config.grid is None else config.grid
        self.action_width = action_width(config, actions, latent)
        width, eps = config.transformer.width, config.transformer.norm_eps
        self.embed = nn.Linear(self.latent_width, width)
        self.places = small_normal(1, 1, self.grid**2, width)
        self.moments = small_normal(1, config.history, 1, width)
        self.embed_action = _acted(self.action_width, width) if self.action_width else None
        self.blocks = nn.ModuleList(
            _SpaceTime(config.transformer) for _ in range(config.transformer.depth)
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        self.change = nn.Linear(width, self.latent_width)
        self.decoder = (
            None if config.decoder is None else _LatentDecoder(config.decoder, vision, self.grid)
        )

    def begin_as_copy(self) -> None:
        """Begin by predicting no change."""
        begin_at_zero(self.change)

    @property
    def latent_count(self) -> int:
        """N."""
        return self.grid**2

    def seen(self, output: VisionOutput) -> Tensor:
        """Frames as this model knows them, from the trunk's view of them: float32[B, N, D]."""
        tokens = self.config.latents == "tokens"
        return self.latents(output.tokens if tokens else output.pooled[:, None])

    def latents(self, vectors: Tensor) -> Tensor:
        """The trunk's vectors float[..., M, D] as latents: float32[..., N, D]."""
        if self.grid < self.trunk_grid:
            side = self.trunk_grid // self.grid
            cut = vectors.unflatten(-2, (self.grid, side, self.grid, side))
            vectors = _wide(cut).mean(dim=(-4, -2)).flatten(-3, -2)
        return self.normalised(vectors)

    def normalised(self, latents: Tensor) -> Tensor:
        """Each of float[..., D] at mean 0 and spread 1, float32."""
        return F.layer_norm(_wide(latents), (self.latent_width,))

    def forward(
        self, latents: Tensor, actions: Tensor | None, carried: Tensor | None = None
    ) -> Tensor:
        """The frame after each, from it and those before it.

        Args:
            latents: float[B, T, N, D], normalised, oldest first; T is at most H.
            actions: float[B, T, X], standardised, what is done from each frame on; None without
                actions.
            carried: as `latents`: what the change is added to; None: the latents themselves. A
                trunk that learns by them gives another's, or it would learn that nothing moves.

        Returns:
            float32[B, T, N, D], normalised.

        Raises:
            ValueError: actions where there are none, or none where there are.
        """
        if (self.embed_action is None) != (actions is None):
            told = "reads no actions" if self.embed_action is None else "needs actions"
            raise ValueError(f"this world model {told}")
        x = self.embed(latents) + self.places + self.moments[:, : latents.shape[1]]
        if self.embed_action is not None and actions is not None:
            x = x + self.embed_action(actions)[:, :, None].to(x.dtype)
        for block in self.blocks:
            x = block(x)
        changed: Tensor = self.change(self.norm(x))
        return self.normalised(_wide(latents if carried is None else carried) + _wide(changed))

    def rollout(
        self, latents: Tensor, past: Tensor | None, actions: Tensor | None, frames: int
    ) -> Tensor:
        """What follows, frame by frame, each predicted from the ones before.

        Args:
            latents: float[B, T, N, D], normalised, of frames that were seen; any T ≥ 1, of which
                the last H count.
            past: float[B, T − 1, X], what was done between them; None without actions, or if T
                is 1.
            actions: float[B, F, X], what will be done; None without actions.
            frames: F.

        Returns:
            float32[B, F, N, D], normalised.
        """
        known, most = latents.shape[1], self.config.history
        both = [one for one in (past, actions) if one is not None]
        done = torch.cat(both, dim=1) if both else None
        window = [latents[:, step] for step in range(known)]
        for stop in range(known, known + frames):
            start = max(0, stop - most)
            acted = None if done is None else done[:, start:stop]
            window.append(self(torch.stack(window[start:stop], dim=1), acted)[:, -1])
        return torch.stack(window[known:], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        """Frames from latents float[B, N, D]: float[B, 3, S, S], in the model's input units.

        Raises:
            ValueError: there is no decoder.
        """
        if self.decoder is None:
            raise ValueError("this world model decodes no frames")
        painted: Tensor = self.decoder(latents)
        return painted


def _wide(values: Tensor) -> Tensor:
    """float32, or float64 if it is that already: sums of many steps are taken in it."""
    return values if values.dtype == torch.float64 else values.float()


def _acted(numbers: int, width: int) -> nn.Sequential:
    """Makes of float[..., X], what is done, float[..., W], which every latent is told."""
    return nn.Sequential(nn.Linear(numbers, width), nn.GELU(), nn.Linear(width, width))


class _SpaceTime(nn.Module):
    """A block over each frame's latents, and a causal one over each latent's moments."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.space = Block(config)
        self.time = Block(config)

    def forward(self, x: Tensor) -> Tensor:
        """float[B, T, N, W] to the same."""
        batch, moments, count, width = x.shape
        x = self.space(x.reshape(batch * moments, count, width)).view(x.shape)
        x = x.transpose(1, 2).reshape(batch * count, moments, width)
        x = self.time(x, causal=True).view(batch, count, moments, width)
        return x.transpose(1, 2)


class _LatentDecoder(nn.Module):
    """A frame from its latents, each patch painted by a token that reads the latent it lies in."""

    def __init__(self, config: TransformerConfig, vision: VisionConfig, grid: int) -> None:
        super().__init__()
        self.grid, self.side = grid, vision.grid // grid
        self.patch_size = vision.patch_size
        self.embed = nn.Linear(vision.transformer.width, config.width)
        self.places = small_normal(1, vision.patches, config.width)
        self.transformer = Transformer(config)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.paint = nn.Linear(config.width, 3 * vision.patch_size**2)

    def forward(self, latents: Tensor) -> Tensor:
        rows = self.embed(latents).unflatten(1, (self.grid, self.grid))
        each = rows.repeat_interleave(self.side, dim=1).repeat_interleave(self.side, dim=2)
        x = self.transformer(each.flatten(1, 2) + self.places)
        return unpatchify(self.paint(self.norm(x)), self.patch_size, 1, 1).squeeze(2)
