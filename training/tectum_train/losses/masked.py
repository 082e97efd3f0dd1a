"""Losses on what was hidden, and on it alone: patches, words, action steps.

Each is a mean over all that counts on all ranks, however unequally it is spread over them.

Letters: b samples of this rank, N patches of X numbers, L words, V vocabulary, T action steps of
A numbers, K bins of each.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tectum_train.distributed import mean_over_ranks
from tectum_train.losses.precision import wide

__all__ = ["binned_actions", "hidden_patches", "hidden_words", "squared_actions"]


def hidden_patches(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """MAE's loss: mean squared error over hidden patches.

    Args:
        predicted, target: float[b, N, X], in one unit.
        hidden: bool[b, N].

    Returns:
        This rank's share; averaged over ranks it is the mean, 0 if nothing is hidden.

    Source: MAE (arXiv:2111.06377).
    """
    return _squared(predicted, target, hidden)


def hidden_words(logits: Tensor, ids: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """BERT's loss: the cross-entropy of hidden words.

    Args:
        logits: float[b, L, V].
        ids: int64[b, L], what the words were.
        hidden: bool[b, L], m of them.

    Returns:
        This rank's share of the loss, and bool[m], whether the best guess was right; ln V for
        equal logits.

    Source: BERT (arXiv:1810.04805).
    """
    guesses, truths = wide(logits[hidden]), ids[hidden]
    loss = F.cross_entropy(guesses, truths, reduction="none")
    return mean_over_ranks(loss), guesses.argmax(dim=-1) == truths


def squared_actions(predicted: Tensor, actions: Tensor, counted: Tensor) -> Tensor:
    """Mean squared error over counted steps.

    Args:
        predicted, actions: float[b, T, A], standardised.
        counted: bool[b, T].

    Returns:
        This rank's share; 0 if nothing counts.
    """
    return _squared(predicted, actions, counted)


def binned_actions(logits: Tensor, places: Tensor, counted: Tensor) -> Tensor:
    """Mean cross-entropy over every number of counted steps.

    Args:
        logits: float[b, T, A, K].
        places: int64[b, T, A], the bin of each.
        counted: bool[b, T].

    Returns:
        This rank's share, 0 if nothing counts; ln K for equal logits.

    Source: RT-1 (arXiv:2212.06817).
    """
    guesses, truths = wide(logits[counted]), places[counted]
    loss = F.cross_entropy(guesses.flatten(0, 1), truths.flatten(), reduction="none")
    return mean_over_ranks(loss)


def _squared(said: Tensor, true: Tensor, counted: Tensor) -> Tensor:
    """Mean squared error over bool[b, n] of float[b, n, w]."""
    # Chosen, not weighted: what does not count may be anything, and has no gradient.
    error = (wide(said[counted]) - wide(true[counted])).square().mean(dim=-1)
    return mean_over_ranks(error)
