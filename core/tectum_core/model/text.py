"""The text transformer: token ids to vectors. Knows no words; the tokenizer does.

Letters: B batch, L tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tectum_core.architecture import TextConfig
from tectum_core.model.initial import small_normal
from tectum_core.model.transformer import Transformer

__all__ = ["TextOutput", "TextTransformer"]


@dataclass(frozen=True, slots=True)
class TextOutput:
    """What the trunk says of a batch of texts."""

    pooled: Tensor
    """float[B, D]."""
    tokens: Tensor
    """float[B, L, D]; padding's vectors mean nothing."""


class TextTransformer(nn.Module):
    """Bidirectional or causal; padded on the right."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.embed = nn.Embedding(config.vocabulary_size, width)
        self.positions = small_normal(1, config.max_tokens, width, std=0.01)
        self.transformer = Transformer(config.transformer)
        self.final_norm = nn.LayerNorm(width, eps=config.transformer.norm_eps)
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, ids: Tensor, seen: Tensor) -> TextOutput:
        """Encode texts.

        Args:
            ids: int64[B, L], L at most max_tokens.
            seen: bool[B, L], False at padding; at least one True in each row, and no True
                after a False.

        Returns:
            Pooled and token vectors; neither depends on how far a text was padded.
        """
        x = self.embed(ids) + self.positions[:, : ids.shape[1]]
        x = self.final_norm(self.transformer(x, seen, self.config.causal))
        if self.config.pooling == "first":
            pooled = x[:, 0]
        elif self.config.pooling == "last":
            last = seen.sum(dim=1) - 1
            pooled = x[torch.arange(x.shape[0], device=x.device), last]
        else:
            weights = seen.to(x.dtype)[:, :, None]
            pooled = (x * weights).sum(dim=1) / weights.sum(dim=1)
        return TextOutput(pooled=pooled, tokens=x)
