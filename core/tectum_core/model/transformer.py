"""The transformer blocks that every trunk and decoder is made of.

Wide enough to hold ViT, CLIP, SigLIP, DINOv2 and MAE exactly; which of them a block
is, its configuration says. Knows no modality.

Letters: B batch, N tokens, D width, H heads, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.architecture import TransformerConfig
from tectum_core.model.initial import small_normal

__all__ = ["Attention", "AttentionPool", "Block", "Transformer"]


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": _quick_gelu,
}


_WEIGHTS = 2**24
"""Attention weights of one example that are held at once."""


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.qkv_bias)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, seen: Tensor | None = None, causal: bool = False) -> Tensor:
        """Mix tokens.

        Args:
            x: float[B, N, D].
            seen: bool[B, N], True where a token may be attended to; None: all.
            causal: whether a token sees only itself and those before it.

        Returns:
            float[B, N, D].
        """
        query, key, value = self._heads(x)
        mask = None if seen is None else seen[:, None, None, :]
        if causal and mask is not None:
            length = x.shape[1]
            mask = mask & torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        causal = causal and mask is None
        mixed = _attended(query, key, value, mask, causal, learns=self.training)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def attended(self, x: Tensor, queries: int) -> Tensor:
        """How much each token is attended to, averaged over heads and queries.

        Args:
            x: float[B, N, D].
            queries: Q; the first so many tokens ask.

        Returns:
            float[B, N]; sums to 1.
        """
        query, key, _ = self._heads(x)
        total = torch.zeros(x.shape[:2], dtype=x.dtype, device=x.device)
        # All weights at once would be H·Q·N numbers for each example.
        for some in query[:, :, :queries].split(max(1, _WEIGHTS // (self.heads * x.shape[1])), 2):
            logits = some @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
            total = total + logits.softmax(dim=-1).mean(dim=1).sum(dim=1)
        return total / queries

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, N, D/H]
        return query, key, value


def _attended(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, *, learns: bool
) -> Tensor:
    """Scaled dot-product attention, float[B, H, N, D/H] each.

    On a CPU its backward pass takes several times as long in bfloat16 as in float32, so there
    what learns in bfloat16 attends in float32; also where no gradient is asked for, or what is
    made twice (a batch in pieces) would come out otherwise the second time.
    """
    attend = partial(F.scaled_dot_product_attention, attn_mask=mask, is_causal=causal)
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or not learns:
        return attend(query, key, value)
    with torch.autocast("cpu", enabled=False):
        return attend(query.float(), key.float(), value.float()).to(query.dtype)


class _Mlp(nn.Module):
    """Two linear layers with a nonlinearity between."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.width, config.hidden)
        self.contract = nn.Linear(config.hidden, config.width)
        self.activation = _ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.activation(self.expand(x)))


def _layer_scale(config: TransformerConfig) -> nn.Parameter | None:
    if config.layer_scale is None:
        return None
    return nn.Parameter(torch.full((config.width,), config.layer_scale))


class Block(nn.Module):
    """Pre-norm attention and MLP, each with its residual.

    Source: Dosovitskiy et al. 2021 (arXiv:2010.11929); LayerScale: arXiv:2103.17239.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = _Mlp(config)
        self.scale1 = _layer_scale(config)
        self.scale2 = _layer_scale(config)

    def forward(self, x: Tensor, seen: Tensor | None = None, causal: bool = False) -> Tensor:
        """float[B, N, D] to the same; `seen` and `causal` as in Attention."""
        mixed = self.attention(self.norm1(x), seen, causal)
        x = x + (mixed if self.scale1 is None else self.scale1 * mixed)
        changed = self.mlp(self.norm2(x))
        return x + (changed if self.scale2 is None else self.scale2 * changed)


class Transformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))

    def forward(self, x: Tensor, seen: Tensor | None = None, causal: bool = False) -> Tensor:
        """float[B, N, D] to the same; `seen` and `causal` as in Attention."""
        for block in self.blocks:
            x = block(x, seen, causal)
        return x

    def block(self, level: int, x: Tensor) -> Tensor:
        """What one block makes of float[B, N, D], for who puts something between blocks."""
        made: Tensor = self.blocks[level](x)
        return made

    def last_attention(self, x: Tensor, queries: int) -> Tensor:
        """`Attention.attended` in the last block, float[B, N], for tokens float[B, N, D]."""
        *first, last = self.blocks
        for block in first:
            x = block(x)
        return last.attention.attended(last.norm1(x), queries)  # type: ignore[operator, union-attr]


class AttentionPool(nn.Module):
    """One vector of all tokens: a learnt query attends, then an MLP with a residual.

    Source: the MAP head of Zhai et al. 2022 (arXiv:2106.04560), as SigLIP has it.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.query = small_normal(1, 1, config.width, std=config.width**-0.5)
        self.attention = nn.MultiheadAttention(config.width, config.heads, batch_first=True)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = _Mlp(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """float[B, N, D] to float[B, D]."""
        # What nn.MultiheadAttention computes, and with its weights, but by our own `_attended`.
        own, width = self.attention, tokens.shape[2]
        query = self.query.expand(tokens.shape[0], -1, -1)
        query = F.linear(query, own.in_proj_weight[:width], own.in_proj_bias[:width])
        both = F.linear(tokens, own.in_proj_weight[width:], own.in_proj_bias[width:])
        query, key, value = (
            part.unflatten(2, (own.num_heads, -1)).transpose(1, 2)
            for part in (query, *both.chunk(2, dim=2))
        )
        mixed = _attended(query, key, value, None, causal=False, learns=self.training)
        pooled = own.out_proj(mixed.transpose(1, 2).flatten(2))
        return (pooled + self.mlp(self.norm(pooled))).squeeze(1)
