"""The vision transformer, on images and on clips.

Knows pixels that are already normalised, nothing of files, resizing or text.

Letters: B batch, T frames, H×W pixels, P patch side, t tubelet frames, N patch tokens,
K kept patch tokens, D width, g tokens along one side, r×c of a picture of another size. An image is
a clip of one frame wherever a shape says T.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.architecture import VisionConfig
from tectum_core.model.initial import small_normal
from tectum_core.model.stem import ConvolutionStem
from tectum_core.model.transformer import AttentionPool, Transformer

__all__ = [
    "Replaced",
    "VisionOutput",
    "VisionTransformer",
    "patchify",
    "resampled_positions",
    "sincos_positions",
    "unpatchify",
]


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
    if torch.get_default_device().type == "meta":  # its shape alone is asked for
        return torch.empty(steps * grid * grid, width)
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


def resampled_positions(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Positions of one grid for another one that spans the same picture.

    Args:
        positions: float[g, g, D].
        rows: r.
        columns: c.

    Returns:
        float[r, c, D], bicubic and antialiased; `positions` itself where g = r = c.

    Source: DINOv2 (arXiv:2304.07193), as its models with registers do it (arXiv:2309.16588).
    """
    if positions.shape[:2] == (rows, columns):
        return positions
    grid = positions.shape[0]
    # As two products: the kernel's own backward pass on a GPU adds up in no fixed order.
    with torch.autocast(positions.device.type, enabled=False):
        down, across = (_resampling(grid, new).to(positions) for new in (rows, columns))
        return torch.einsum("rg,ch,ghd->rcd", down, across, positions)


def _resampling(old: int, new: int) -> Tensor:
    """How much each of `new` places along a side takes of each of `old`: float64[new, old]."""
    each = torch.eye(old, dtype=torch.float64).view(1, old, 1, old)
    # Across, not down: of pictures one pixel wide torch 2.13 gets the latter wrong.
    shares = F.interpolate(each, (1, new), mode="bicubic", antialias=True, align_corners=False)
    return shares[0, :, 0].t()


@dataclass(frozen=True, slots=True)
class Replaced:
    """Patches that are not shown, and what stands in their places ([MASK] of BEiT and iBOT)."""

    where: Tensor
    """bool[B, N], however many of each picture."""
    by: Tensor
    """float[D], in place of a patch's embedding; its position is added as to any other."""


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
            self.prefix_tokens = small_normal(1, self.prefix, width)
        if config.positions == "learnt":
            self.positions = small_normal(1, config.patches, width)
        else:
            table = sincos_positions(width, config.steps, config.grid)
            self.register_buffer("positions", table[None], persistent=False)
        self.input_norm = nn.LayerNorm(width, eps=eps) if config.input_norm else nn.Identity()
        self.transformer = Transformer(config.transformer)
        self.final_norm = nn.LayerNorm(width, eps=eps) if config.final_norm else nn.Identity()
        self.pool = AttentionPool(config.transformer) if config.pooling == "attention" else None

    def forward(
        self, pixels: Tensor, keep: Tensor | None = None, replaced: Replaced | None = None
    ) -> VisionOutput:
        """Encode images or clips.

        Args:
            pixels: float[B, 3, H, W] or float[B, 3, T, H, W], normalised; P divides H and W, which
                need not be those of the configuration: positions are resampled then.
            keep: int64[B, K], which patches are shown, ascending; None: all. The others cost
                the transformer nothing, as in MAE.
            replaced: patches that are hidden behind an embedding, as in BEiT; None: none.

        Returns:
            Pooled and patch vectors.

        Raises:
            ValueError: pixels that cannot be cut into patches, clips of another length, or patches
                that are both left out and replaced.
        """
        return self.output(self.transformer(self.sequence(pixels, keep, replaced)))

    def output(self, mixed: Tensor) -> VisionOutput:
        """What the trunk says, of what its blocks have made of a `sequence`: float[B, ·, D]."""
        x = self.final_norm(mixed)
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
        x = self.sequence(pixels, None)
        queries = 1 if self.config.class_token else x.shape[1]
        return self.transformer.last_attention(x, queries)[:, self.prefix :]

    def sequence(
        self, pixels: Tensor, keep: Tensor | None, replaced: Replaced | None = None
    ) -> Tensor:
        """What goes into the first block, class token and registers first; as in `forward`."""
        if keep is not None and replaced is not None:
            raise ValueError("hidden patches are left out or replaced, not both")
        positions = self._positions_of(pixels)
        if keep is not None:
            positions = take(positions.expand(keep.shape[0], -1, -1), keep)
        x = self._embedded(pixels, keep, replaced) + positions
        if self.prefix:
            x = torch.cat([self.prefix_tokens.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
        return self.input_norm(x)

    def _positions_of(self, pixels: Tensor) -> Tensor:
        """float[1, N, D], for the grid that these pixels make."""
        rows, columns = (side // self.config.patch_size for side in pixels.shape[-2:])
        frames = pixels.shape[2] if pixels.dim() == 5 else 1
        if frames != self.config.frames:
            raise ValueError(f"this trunk reads {self.config.frames} frames, not {frames}")
        grid = self.config.grid
        if rows == columns == grid:
            return self.positions
        steps = self.positions[0].unflatten(0, (self.config.steps, grid, grid))
        return torch.stack([resampled_positions(one, rows, columns) for one in steps]).view(
            1, -1, self.positions.shape[2]
        )

    def _embedded(self, pixels: Tensor, keep: Tensor | None, replaced: Replaced | None) -> Tensor:
        if isinstance(self.embed, ConvolutionStem):
            tokens = self.embed(pixels, self._shown(pixels, keep, replaced))
            tokens = tokens if keep is None else take(tokens, keep)
        else:
            patches = patchify(pixels, self.config.patch_size, self.config.tubelet_frames)
            # Select before embedding: hidden patches are never multiplied.
            tokens = self.embed(patches if keep is None else take(patches, keep))
        if replaced is None:
            return tokens
        return torch.where(replaced.where[:, :, None], replaced.by.to(tokens.dtype), tokens)

    def _shown(
        self, pixels: Tensor, keep: Tensor | None, replaced: Replaced | None
    ) -> Tensor | None:
        """bool[B, N], which patches convolutions may see; None: all."""
        if replaced is not None:
            return ~replaced.where
        if keep is None:
            return None
        count = pixels.shape[-2] * pixels.shape[-1] // self.config.patch_size**2
        none = torch.zeros(len(keep), count, dtype=torch.bool, device=keep.device)
        return none.scatter(1, keep, True)


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """Pick tokens: float[B, N, D] and int64[B, K] to float[B, K, D]."""
    return tokens.gather(1, indices[:, :, None].expand(-1, -1, tokens.shape[2]))
