"""Losses between moments: which of many comes next, which lie near each other, which is further on.

Of two pictures that are the same to the last pixel, neither can be told from the other, so neither
is ever the other's negative (`repeats`). All is computed as it comes or in float32, under autocast
too.

Letters: b clips or episodes of this rank, n of all ranks, T frames of a clip, K horizons, D width
of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tectum_train.distributed import all_sum, gather, mean_over_ranks, rank, world_size
from tectum_train.losses.precision import wide, without_autocast

__all__ = ["Foretold", "Negatives", "foresight", "language_reward", "repeats", "time_contrast"]

Negatives = Literal["same_episode", "in_batch", "both"]
"""Other moments of the same clip; all moments of other episodes' clips; or both."""


def repeats(frames: Tensor) -> Tensor:
    """Which frames of a clip are the same to the last pixel.

    Args:
        frames: float[b, T, …].

    Returns:
        bool[b, T, T], symmetric, True on the diagonal.
    """
    flat = frames.flatten(2)
    count = flat.shape[1]
    same = torch.eye(count, dtype=torch.bool, device=flat.device).repeat(len(flat), 1, 1)
    for apart in range(1, count):
        equal = (flat[:, apart:] == flat[:, :-apart]).all(dim=2)
        early = torch.arange(count - apart, device=flat.device)
        same[:, early, early + apart] = same[:, early + apart, early] = equal
    return same


@dataclass(frozen=True, slots=True)
class Foretold:
    """What was asked of this rank's clips, by frame t that is known last and horizon k from 1."""

    losses: Tensor
    """float[b, T, K], nats."""
    counted: Tensor
    """bool[b, T, K], whether frame t + k is one and there is something else to take it for."""
    hit: Tensor
    """bool[b, T, K], whether it is above all the others; a tie is no hit."""
    choices: Tensor
    """int64[b, T, K], among how many: chance is one over that."""


@without_autocast
def foresight(
    predicted: Tensor,
    features: Tensor,
    inside: Tensor,
    repeated: Tensor,
    episode: Tensor,
    negatives: Negatives = "both",
) -> tuple[Tensor, Foretold]:
    """CPC's loss: which of many moments is the one k frames on?

    Other clips of the same episode give no negatives: their moments may be the very same.

    Args:
        predicted: float[b, T, K, D], of frame t + k as told at frame t; place k is horizon k + 1.
        features: float[b, T, D], of the frames themselves; logits are dot products with them.
        inside: bool[b, T], False after the episode's end: such frames are nothing here.
        repeated: bool[b, T, T], which frames are the same picture.
        episode: int64[b], equal where the episode is.
        negatives: among which others.

    Returns:
        This rank's share of the loss, the mean over horizons of which there is any; ln of the
        number of choices for equal logits. And what was asked.

    Source: CPC (arXiv:1807.03748), equation 4; negatives of the same clip too: DPC
    (arXiv:1909.04656).
    """
    predicted, features = wide(predicted), wide(features)
    clips, length, horizons, _ = predicted.shape
    every = gather(features).flatten(0, 1)  # [n·T, D]
    logits = predicted @ every.t()  # [b, T, K, n·T]
    # For each frame as the target: what it may be mistaken for.
    allowed = torch.zeros(
        clips, length, world_size() * clips, length, dtype=torch.bool, device=logits.device
    )
    if negatives != "same_episode":
        allowed |= (episode[:, None] != gather(episode)[None])[:, None, :, None]
    own = rank() * clips + torch.arange(clips, device=logits.device)
    if negatives != "in_batch":
        allowed[torch.arange(clips, device=logits.device), :, own] = ~repeated
    allowed &= gather(inside)[None, None]
    ahead = torch.arange(1, horizons + 1, device=logits.device)
    wanted = torch.arange(length, device=logits.device)[:, None] + ahead  # [T, K]
    there = wanted < length
    wanted = wanted.clamp(max=length - 1)
    others = allowed.flatten(2)[:, wanted]  # [b, T, K, n·T]
    column = (own[:, None, None] * length + wanted)[..., None]  # [b, T, K, 1]
    others = others.scatter(3, column, torch.zeros_like(column, dtype=torch.bool))
    positive = logits.gather(3, column)
    logits = logits.masked_fill(~others, -torch.inf)
    losses = torch.cat([positive, logits], dim=3).logsumexp(dim=3) - positive[..., 0]
    number = others.sum(dim=3)
    counted = inside[:, wanted] & there & (number > 0)
    asked = Foretold(losses, counted, positive[..., 0] > logits.amax(dim=3), number + 1)
    each = torch.stack(
        [mean_over_ranks(losses[..., k], counted[..., k].float()) for k in range(horizons)]
    )
    some = all_sum(counted.sum(dim=(0, 1))) > 0
    return each.sum() / some.sum().clamp(min=1), asked


def time_contrast(moments: Tensor, repeated: Tensor, episode: Tensor) -> tuple[Tensor, Tensor]:
    """R3M's time contrast: of three moments in order, the middle one is nearer to either end.

    Nearer than the other end, and than the same end of other episodes. A distance has no
    direction: time reversed, the loss is the same.

    Args:
        moments: float[b, 3, D], in order.
        repeated: bool[b, 3, 3], which of them are the same picture.
        episode: int64[b], equal where the episode is.

    Returns:
        This rank's share of the loss, ln(n + 1) for equal vectors of n episodes; and bool[b],
        whether the ends are further from each other than either is from the middle (chance 1/3).

    Source: R3M (arXiv:2203.12601), time contrast; both ends as in its published training. There
    three others are drawn, here they are all there are.
    """
    moments = wide(moments)
    every = gather(moments)
    same = episode[:, None] == gather(episode)[None]
    # Its gradient is 0 where two vectors are one, unlike that of a root of a sum.
    apart = torch.linalg.vector_norm(moments[:, (0, 1, 0)] - moments[:, (1, 2, 2)], dim=2)
    losses, counted = [], []
    for end, near in ((0, 0), (2, 1)):
        others = torch.cdist(
            moments[:, end], every[:, end], compute_mode="donot_use_mm_for_euclid_dist"
        ).masked_fill(same, torch.inf)
        # As a negative the other end must be neither the middle nor this end.
        unclear = repeated[:, 0, 2] | repeated[:, 1, 2 - end]
        far = apart[:, 2].masked_fill(unclear, torch.inf)
        logits = -torch.cat([apart[:, near, None], far[:, None], others], dim=1)
        losses.append(logits.logsumexp(dim=1) - logits[:, 0])
        counted.append(~unclear | ~same.all(dim=1))
    loss = mean_over_ranks(torch.cat(losses), torch.cat(counted).float())
    return loss, (apart[:, :2] < apart[:, 2:]).all(dim=1)


def language_reward(
    later: Tensor, earlier: Tensor, others: Tensor, repeated: Tensor, task: Tensor, counted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """R3M's language reward: an instruction is further on later, and in its own episode.

    Args:
        later: float[b], how far each instruction has got between its episode's start and a moment.
        earlier: float[b], the same at an earlier moment.
        others: float[b, n], each instruction's by all ranks' episodes, as `later`.
        repeated: bool[b], whether the later moment and the earlier one are the same picture.
        task: int64[b]; episodes of the same task are no negatives, and so never a sample its own.
        counted: bool[b], False without an instruction.

    Returns:
        This rank's share of the loss, ln(n + 1) for equal scores of n tasks; bool[b], whether the
        later moment is above the earlier one; and bool[b], whether it is above all other tasks'
        episodes. A tie is not above.

    Source: R3M (arXiv:2203.12601), video-language alignment; as there, but for three others drawn.
    """
    later, earlier, others = wide(later), wide(earlier), wide(others)
    other = task[:, None] != gather(task)[None]
    before = earlier.masked_fill(repeated, -torch.inf)
    others = others.masked_fill(~other, -torch.inf)
    losses = torch.cat([later[:, None], before[:, None], others], dim=1).logsumexp(dim=1) - later
    counted = counted & (~repeated | other.any(dim=1))
    above = later > others.amax(dim=1)
    return mean_over_ranks(losses, counted.float()), later > earlier, above
