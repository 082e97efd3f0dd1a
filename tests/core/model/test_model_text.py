"""The text trunk: padding never shows, and each pooling reads the token it says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.bundles import stack
from torch import Tensor
from torch.testing import assert_close

from tectum_core.architecture import TextConfig
from tectum_core.model import TextTransformer

LONGEST = 10


def trunk(**changes: object) -> TextTransformer:
    given = {
        "transformer": stack(depth=2),
        "vocabulary_size": 20,
        "max_tokens": LONGEST,
        **changes,
    }
    torch.manual_seed(0)
    return TextTransformer(TextConfig.model_validate(given)).eval()


def padded(ids: list[int], length: int, filler: int = 0) -> tuple[Tensor, Tensor]:
    row = torch.tensor([ids + [filler] * (length - len(ids))])
    return row, torch.arange(length)[None] < len(ids)


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
@pytest.mark.parametrize("causal", [False, True])
@given(st.lists(st.integers(0, 19), min_size=1, max_size=LONGEST - 1), st.integers(0, 19))
def test_padding_changes_nothing(pooling: str, causal: bool, ids: list[int], filler: int) -> None:
    model = trunk(pooling=pooling, causal=causal)

    alone = model(*padded(ids, len(ids)))
    filled = model(*padded(ids, LONGEST, filler))

    assert_close(filled.pooled, alone.pooled, rtol=0, atol=1e-5)
    assert_close(filled.tokens[:, : len(ids)], alone.tokens, rtol=0, atol=1e-5)


def test_a_longer_neighbour_changes_nothing() -> None:
    model = trunk()
    short, short_seen = padded([3, 4], LONGEST)
    long, long_seen = padded(list(range(LONGEST)), LONGEST)

    together = model(torch.cat([short, long]), torch.cat([short_seen, long_seen]))

    assert_close(together.pooled[:1], model(short, short_seen).pooled, rtol=0, atol=1e-5)


def test_a_causal_trunk_reads_forwards_and_a_bidirectional_one_both_ways() -> None:
    ids, seen = padded([1, 2, 3, 4], 4)
    other, _ = padded([1, 2, 3, 9], 4)

    causal, free = trunk(causal=True), trunk()

    assert_close(causal(ids, seen).tokens[:, :3], causal(other, seen).tokens[:, :3])
    assert not torch.allclose(free(ids, seen).tokens[:, :3], free(other, seen).tokens[:, :3])


@pytest.mark.parametrize(("pooling", "place"), [("first", 0), ("last", 2)])
def test_pooling_takes_one_token(pooling: str, place: int) -> None:
    output = trunk(pooling=pooling)(*padded([5, 6, 7], LONGEST))

    assert torch.equal(output.pooled, output.tokens[:, place])


def test_mean_pooling_leaves_the_padding_out() -> None:
    output = trunk(pooling="mean")(*padded([5, 6, 7], LONGEST))

    assert_close(output.pooled, output.tokens[:, :3].mean(1))


def test_order_matters() -> None:
    model = trunk()

    forwards, backwards = (model(*padded(ids, 3)).pooled for ids in ([1, 2, 3], [3, 2, 1]))

    assert not torch.allclose(forwards, backwards, atol=1e-4)
