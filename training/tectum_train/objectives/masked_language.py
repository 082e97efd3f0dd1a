"""Masked language modelling given the picture: fill in hidden words of the instruction.

Letters: B batch, n samples that are used, L text tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from tectum_core.architecture import ModelConfig
from tectum_core.model import PerceptionModel
from tectum_train.distributed import all_sum, mean_over_ranks
from tectum_train.losses.masked import hidden_words
from tectum_train.objectives.base import Averaged, Outcome, PartSettings
from tectum_train.objectives.batch import Batch

__all__ = ["MaskedLanguage", "MaskedLanguageConfig", "hide_tokens"]


class MaskedLanguageConfig(PartSettings):
    """Hidden words, the picture in view."""

    kind: Literal["masked_language"] = "masked_language"
    """Discriminator."""
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of an instruction's tokens that are hidden; at least one is."""
    image_share: Annotated[float, Field(ge=0, le=1)] = 0.85
    """How often the picture is shown."""

    def trains_trunk(self, _: ModelConfig) -> bool:
        """Where pictures are shown."""
        return self.image_share > 0


class MaskedLanguage(Averaged):
    """Cross-entropy on hidden tokens; 80 % [MASK], 10 % another token, 10 % left as they are.

    Source: BERT (arXiv:1810.04805); given an image: ALBEF (arXiv:2107.07651).
    """

    name = "masked_language"

    def __init__(
        self, config: MaskedLanguageConfig, model: PerceptionModel, mask_id: int, vocabulary: int
    ) -> None:
        super().__init__()
        if model.fusion is None or model.text is None:
            raise ValueError("masked_language needs model.fusion")
        self.config = config
        self.model = model
        self.mask_id = mask_id
        self.vocabulary = vocabulary

    def counted(self, batch: Batch) -> Tensor:
        """Hidden words."""
        return self._masked(batch)[1].sum()

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and how often the best guess is right.

        Without a word that could be hidden the loss is 0, and nothing is said of guesses.
        """
        fusion, text = self.model.fusion, self.model.text
        if fusion is None or text is None:
            raise ValueError("masked_language needs model.fusion")
        used = self.config.used(batch)
        ids, seen = batch.ids[:used], batch.ids_seen[:used]
        masked, hidden = self._masked(batch)
        shown = torch.rand((), generator=batch.generator).item() < self.config.image_share
        image = batch.image(self.model).tokens[:used] if shown else None
        logits = fusion.fill_text(text(masked, seen).tokens, seen, image)
        loss, right = hidden_words(logits, ids, hidden)
        metrics = dict[str, Tensor]()
        if bool(all_sum(hidden.sum())):
            metrics["accuracy"] = mean_over_ranks(right.float())
        return Outcome(loss, metrics, math.log(logits.shape[-1]))

    def _masked(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """int64[n, L] of the words as they are shown, and bool[n, L] of those that are hidden."""
        used = self.config.used(batch)
        return hide_tokens(
            batch.ids[:used], batch.content[:used], self.config.ratio, self.mask_id,
            self.vocabulary, batch.streams(self.name),
        )  # fmt: skip


def hide_tokens(
    ids: Tensor,
    content: Tensor,
    ratio: float,
    mask_id: int,
    vocabulary: int,
    streams: Iterable[Generator],
) -> tuple[Tensor, Tensor]:
    """Hide tokens the way BERT does.

    Args:
        ids: int64[n, L].
        content: bool[n, L], where tokens may be hidden.
        ratio: share of a row's content that is hidden; at least one token, if it has any.
        mask_id: what stands for a hidden token.
        vocabulary: other tokens are drawn from it.
        streams: of each row's choices, on the CPU; at least n.

    Returns:
        int64[n, L] with tokens replaced, and bool[n, L] of those that were hidden.
    """
    length = ids.shape[1]
    drawn = [
        torch.rand(3, length, generator=stream, dtype=torch.float64)
        for stream in islice(streams, len(ids))
    ]
    scores, kind, other = torch.stack(drawn, dim=1).to(ids.device)
    scores = scores.masked_fill(~content, 2.0)  # behind every content token
    wanted = (content.sum(dim=1) * ratio).round().clamp(min=1)
    rank = scores.argsort(dim=1).argsort(dim=1)
    hidden = (rank < wanted[:, None]) & content
    random = (other * vocabulary).long()
    replaced = torch.where(kind < 0.8, mask_id, torch.where(kind < 0.9, random, ids))
    return torch.where(hidden, replaced, ids), hidden
