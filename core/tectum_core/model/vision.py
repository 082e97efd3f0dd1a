"""The vision transformer, on images and on clips.

Knows pixels that are already normalised, nothing of files, resizing or text.

Letters: B batch, T frames, H×W pixels, P patch side, t tubelet frames, N patch tokens,
K kept patch tokens, D width. An image is a clip of one frame wherever a shape says T.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tectum_core.architecture import VisionConfig
from tectum_core.model.stem import ConvolutionStem
from tectum_core.model.transformer import AttentionPool, Transformer

__all__ = ["VisionOutput", "VisionTransformer", "patchify", "sincos_positions", "unpatchify"]


def patchify(pixels: Tensor, patch_size: int, tubelet_frames: int = 1) -> Tensor:
    """Cut images or clips into patches: oldest first, then top to bottom, left to right.

    Args:
        pixels: float[B, 3, H, W] or float[B, 3, T, H, W], any range.
        patch_size: P, pixels; divides H and W.
        tubelet_frames: t; divides T.

    Returns:
        float[B, N, 3·t·P·P]; within a patch, channels vary slowest.

    Raises:
        ValueError: P does not divide H and W, or t does not divide T.

    Source: arXiv:2010.11929, section 3.1; tubelets: arXiv:2103.15691, section 3.2.
    """
    if pixels.dim() == 4:
        pixels = pixels.unsqueeze(2)
    batch, channels, frames, height, width = pixels.shape
    if height % patch_size or width % patch_size or frames % tubelet_frames:
        raise ValueError(
            f"{frames} frames of {height}×{width} pixels cannot be cut into patches of "
            f"{tubelet_frames} frames of {patch_size}×{patch_size}"
        )
    steps, rows, columns = frames // tubelet_frames, height // patch_size, width // patch_size
    cut = pixels.view(
        batch, channels, steps, tubelet_frames, rows, patch_size, columns, patch_size
    ).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return cut.reshape(batch, steps * rows * columns, -1)


def unpatchify(patches: Tensor, patch_size: int, tubelet_frames: int, steps: int) -> Tensor:
    """Undo `patchify`: float[B, N, 3·t·P·P] to float[B, 3, T, H, W] of square frames."""
    batch, count, _ = patches.shape
    side = round((count // steps) ** 0.5)
    cut = patches.view(batch, steps, side, side, 3, tubelet_frames, patch_size, patch_size)
    pixels = cut.permute(0, 4, 1, 5, 2, 6, 3, 7)
    return pixels.reshape(batch, 3, steps * tubelet_frames, side * patch_size, side * patch_size)


def sincos_positions(width: int, steps: int, grid: int) -> Tensor:
    """Fixed sine-cosine positions; over time, each step's table is the image's plus its own.

    Args:
        width: D, a multiple of 4.
        steps: tokens along time.
        grid: tokens along one side.

    Returns:
        float32[steps·grid², D].

    Source: MAE (arXiv:2111.06377), which follows MoCo v3's 2-D table.
    """
    if width % 4:
        raise ValueError(f"sincos positions need a width that 4 divides, not {width}")
    side = torch.arange(grid, dtype=torch.float64)
    rows, columns = torch.meshgrid(side, side, indexing="ij")
    # MAE puts the column's half first.
    image = torch.cat(
        [_sincos(width // 2, columns.reshape(-1)), _sincos(width // 2, rows.reshape(-1))], dim=1
    )
    if steps == 1:
        return image.float()
    time = _sincos(width, torch.arange(steps, dtype=torch.float64))
    return (time[:, None] + image[None]).reshape(steps * grid * grid, width).float()


def _sincos(width: int, places: Tensor) -> Tensor:
    frequencies = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = places[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@dataclass(frozen=True, slots=True)
class VisionOutput:
    """What the trunk says of a batch."""

    pooled: Tensor
    """float[B, D]."""
    tokens: Tensor
    """float[B, N, D], or float[B, K, D] if only some patches were shown; class token and
    registers left out."""


class VisionTransformer(nn.Module):
    """A ViT whose configuration spans the published families."""

    positions: Tensor

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        eps = config.transformer.norm_eps
        self.embed: nn.Linear | ConvolutionStem = (
            ConvolutionStem(config.stem, width, eps)
            if config.stem is not None
            else nn.Linear(config.patch_values, width, bias=config.patch_bias)
        )
        self.prefix = config.class_token + config.registers
        if self.prefix:
            self.prefix_tokens = nn.Parameter(torch.randn(1, self.prefix, width) * 0.02)
        if config.positions == "learnt":
            self.positions = nn.Parameter(torch.randn(1, config.patches, width) * 0.02)
        else:
            table = sincos_positions(width, config.steps, config.grid)
            self.register_buffer("positions", table[None], persistent=False)
        self.input_norm = nn.LayerNorm(width, eps=eps) if config.input_norm else nn.Identity()
        self.transformer = Transformer(config.transformer)
        self.final_norm = nn.LayerNorm(width, eps=eps) if config.final_norm else nn.Identity()
        self.pool = AttentionPool(config.transformer) if config.pooling == "attention" else None

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> VisionOutput:
        """Encode images or clips.

        Args:
            pixels: float[B, 3, H, W] or float[B, 3, T, H, W], normalised.
            keep: int64[B, K], which patches are shown, ascending; None: all. The others cost
                the transformer nothing, as in MAE.

        Returns:
            Pooled and patch vectors.
        """
        x = self.final_norm(self.transformer(self._sequence(pixels, keep)))
        prefix, tokens = x[:, : self.prefix], x[:, self.prefix :]
        if self.pool is not None:
            pooled = self.pool(x)
        elif self.config.pooling == "class":
            pooled = prefix[:, 0]
        else:
            pooled = tokens.mean(dim=1)
        return VisionOutput(pooled=pooled, tokens=tokens)

    def importance(self, pixels: Tensor) -> Tensor:
        """How much the last block attends to each patch.

        Args:
            pixels: as in forward.

        Returns:
            float[B, N]: attention from the class token, or else averaged over all queries.

        Source: attention-guided masking, arXiv:2203.12719.
        """
        x = self._sequence(pixels, None)
        queries = 1 if self.config.class_token else x.shape[1]
        return self.transformer.last_attention(x, queries)[:, self.prefix :]

    def _sequence(self, pixels: Tensor, keep: Tensor | None) -> Tensor:
        positions = self.positions
        if keep is not None:
            positions = take(positions.expand(keep.shape[0], -1, -1), keep)
        x = self._embedded(pixels, keep) + positions
        if self.prefix:
            x = torch.cat([self.prefix_tokens.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
        return self.input_norm(x)

    def _embedded(self, pixels: Tensor, keep: Tensor | None) -> Tensor:
        if isinstance(self.embed, ConvolutionStem):
            tokens: Tensor = self.embed(pixels, keep)
            return tokens if keep is None else take(tokens, keep)
        patches = patchify(pixels, self.config.patch_size, self.config.tubelet_frames)
        # Select before embedding: hidden patches are never multiplied.
        return self.embed(patches if keep is None else take(patches, keep))


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """Pick tokens: float[B, N, D] and int64[B, K] to float[B, K, D]."""
    return tokens.gather(1, indices[:, :, None].expand(-1, -1, tokens.shape[2]))
