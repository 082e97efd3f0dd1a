"""Masked words: how they are hidden, and that only they count."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from tests.training.tiny import batch, model, tokenizer
from torch import Generator, Tensor

from tectum_core.model import Fusion, PerceptionModel, TextTransformer
from tectum_core.model.text import TextOutput
from tectum_train.objectives.masked_language import (
    MaskedLanguage,
    MaskedLanguageConfig,
    hide_tokens,
)

MASK, VOCABULARY = 4, 100
ROWS = st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=6)


def seeded(seed: int) -> Iterator[Generator]:
    """A stream for each of as many rows as are asked for."""
    return (Generator().manual_seed(seed + row) for row in itertools.count())


def many(seed: int = 0, ratio: float = 0.5) -> tuple[Tensor, Tensor]:
    """What became of 60,000 tokens 7, all content; half of them hidden."""
    ids = torch.full((6000, 10), 7)
    return hide_tokens(ids, ids == 7, ratio, MASK, VOCABULARY, seeded(seed))


# ---------------------------------------------------------------- hiding


@given(ROWS, st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_each_row_hides_its_share_of_content_and_at_least_one_if_it_has_any(
    rows: list[list[bool]], ratio: float, seed: int
) -> None:
    content = torch.tensor(rows)
    ids = torch.arange(10, 10 + content.numel()).view(content.shape)

    masked, hidden = hide_tokens(ids, content, ratio, MASK, VOCABULARY, seeded(seed))

    assert not (hidden & ~content).any()
    for row, count in zip(hidden, content.sum(dim=1).tolist(), strict=True):
        assert min(count, 1) <= int(row.sum()) <= count
        assert abs(int(row.sum()) - max(min(count, 1), count * ratio)) <= 0.5 + 1e-5
    assert torch.equal(masked[~hidden], ids[~hidden])
    assert masked.dtype == ids.dtype


@given(ROWS, st.integers(0, 2**32))
def test_equal_generators_hide_equal_tokens(rows: list[list[bool]], seed: int) -> None:
    content = torch.tensor(rows)
    ids = torch.arange(content.numel()).view(content.shape)

    first = hide_tokens(ids, content, 0.4, MASK, VOCABULARY, seeded(seed))
    again = hide_tokens(ids, content, 0.4, MASK, VOCABULARY, seeded(seed))

    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_of_the_hidden_80_percent_are_masked_10_replaced_and_10_kept() -> None:
    masked, hidden = many()

    found = masked[hidden]
    counts = [int(n) for n in ((found == MASK).sum(), (found == 7).sum(), len(found))]
    counts[2] -= counts[0] + counts[1]
    # A random token is [MASK] or the token itself once in a hundred times each.
    shares = np.array([0.8 + 0.1 / VOCABULARY, 0.1 + 0.1 / VOCABULARY, 0.1 * (1 - 2 / VOCABULARY)])
    assert chisquare(counts, shares * len(found)).pvalue > 0.001


def test_what_replaces_a_token_is_any_other_alike() -> None:
    masked, hidden = many(seed=1)

    found = torch.bincount(masked[hidden], minlength=VOCABULARY)
    others = np.delete(found.numpy(), [MASK, 7])
    assert len(found) == VOCABULARY
    assert chisquare(others).pvalue > 0.001


def test_every_place_is_hidden_alike() -> None:
    _, hidden = many(seed=2, ratio=0.3)

    assert chisquare(hidden.sum(dim=0).numpy()).pvalue > 0.001
    assert hidden.sum(dim=1).unique().tolist() == [3]


def test_special_tokens_and_padding_of_real_sentences_are_never_hidden() -> None:
    made = batch(8)

    for seed in range(50):
        masked, hidden = hide_tokens(made.ids, made.content, 0.9, MASK, VOCABULARY, seeded(seed))
        assert not (hidden & ~made.content).any()
        assert torch.equal(masked[~made.content], made.ids[~made.content])


# ---------------------------------------------------------------- the objective


def objective(network: PerceptionModel, **changes: float) -> MaskedLanguage:
    config = MaskedLanguageConfig.model_validate(changes)
    words = tokenizer()
    assert words.mask_id is not None
    return MaskedLanguage(config, network, words.mask_id, words.vocabulary_size)


class Watched:
    """Keeps what the text trunk and the fusion read, and may spoil what is said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids = torch.zeros(0)
        self.image: Tensor | None = None
        self.logits = torch.zeros(0)
        self.spoil: Tensor | None = None
        read, fill = TextTransformer.forward, Fusion.fill_text

        def forward(trunk: TextTransformer, ids: Tensor, seen: Tensor) -> TextOutput:
            self.ids = ids
            return read(trunk, ids, seen)

        def fill_text(fusion: Fusion, text: Tensor, seen: Tensor, image: Tensor | None) -> Tensor:
            self.image = image
            self.logits = fill(fusion, text, seen, image)
            return self.logits if self.spoil is None else self.logits + self.spoil

        monkeypatch.setattr(TextTransformer, "forward", forward)
        monkeypatch.setattr(Fusion, "fill_text", fill_text)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_the_loss_is_the_cross_entropy_of_the_hidden_tokens(watched: Watched) -> None:
    made = batch(8)
    words = tokenizer()
    _, hidden = hide_tokens(
        made.ids,
        made.content,
        0.15,
        words.mask_id or 0,
        words.vocabulary_size,
        made.streams("masked_language"),
    )

    outcome = objective(model())(made)

    logits = watched.logits.detach().double().numpy()[hidden.numpy()]
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    truth = made.ids[hidden].numpy()
    expected = -np.log(probabilities[np.arange(len(truth)), truth]).mean()
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-5)
    right = (probabilities.argmax(axis=1) == truth).mean()
    assert float(outcome.metrics["accuracy"]) == pytest.approx(right)


def test_what_is_said_of_visible_tokens_does_not_count(watched: Watched) -> None:
    made, words = batch(8), tokenizer()
    _, hidden = hide_tokens(
        made.ids,
        made.content,
        0.15,
        words.mask_id or 0,
        words.vocabulary_size,
        made.streams("masked_language"),
    )
    before = objective(model())(batch(8)).loss.item()

    watched.spoil = torch.zeros(8, 12, 120).masked_scatter(
        ~hidden[:, :, None], torch.randn(8 * 12 * 120)
    )

    assert objective(model())(batch(8)).loss.item() == before


def test_hidden_words_are_not_shown(watched: Watched) -> None:
    made, words = batch(8), tokenizer()

    objective(model(), ratio=0.9)(made)

    changed = watched.ids != made.ids
    assert words.mask_id is not None
    assert float(watched.ids[changed].eq(words.mask_id).float().mean()) > 0.7
    assert not (changed & ~made.content).any()
    assert changed.any(dim=1).sum() >= 7


def test_the_picture_is_shown_as_often_as_asked(watched: Watched) -> None:
    network, shown = model(), {0.0: 0, 0.5: 0, 1.0: 0}
    for share in shown:
        for seed in range(12):
            objective(network, image_share=share)(batch(1, seed=seed))
            shown[share] += watched.image is not None

    assert shown[0.0] == 0
    assert shown[1.0] == 12
    assert 1 < shown[0.5] < 11


def test_another_picture_makes_another_loss() -> None:
    network = model()

    def loss(share: float, other: bool) -> float:
        turned = batch(earlier=batch().earlier.flip(0))
        outcome = objective(network, image_share=share)(turned if other else batch())
        return float(outcome.loss.item())

    assert loss(1.0, other=False) != loss(1.0, other=True)
    assert loss(0.0, other=False) == loss(0.0, other=True)


def test_only_its_share_of_the_batch_is_used() -> None:
    network, half = model(), {"fraction": 0.5, "image_share": 1.0}
    other = batch(8)
    for name in ("ids", "earlier"):
        tensor = getattr(other, name).clone()
        tensor[4:] = tensor[4:].flip(-1)
        setattr(other, name, tensor)

    assert objective(network, **half)(other).loss.item() == pytest.approx(
        objective(network, **half)(batch(8)).loss.item()
    )


def test_samples_without_words_teach_nothing() -> None:
    network, made = model(), batch(4)
    made.content[2:] = False
    fewer = replace(batch(4).part(0, 2, 1), generator=made.generator)

    hidden = objective(network).counted(made)
    made.content[:] = False
    outcome = objective(network)(made)
    outcome.loss.backward()

    assert hidden == objective(network).counted(fewer) > 0
    assert outcome.loss.item() == 0
    assert not outcome.metrics  # of no guess there is no accuracy
    assert all(not one.grad.any() for one in network.parameters() if one.grad is not None)


def test_the_smallest_share_is_one_sample() -> None:
    assert torch.isfinite(objective(model(), fraction=0.01)(batch(8)).loss)


def test_without_a_fusion_there_is_no_such_objective() -> None:
    with pytest.raises(ValueError, match=r"masked_language needs model\.fusion"):
        objective(model(fusion=None, actions=None, latent_action=None))
