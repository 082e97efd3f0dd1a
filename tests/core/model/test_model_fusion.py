"""Where modalities meet: what is hidden is never read, what is absent contributes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.bundles import stack
from torch import Tensor
from torch.testing import assert_close

from tectum_core.architecture import ActionConfig, FusionConfig
from tectum_core.model import Context, Fusion
from tectum_core.model.fusion import straight

VOCABULARY = 30
ACTIONS = ActionConfig(dimensions=4, state_dimensions=3, max_steps=8)


def fusion(actions: ActionConfig | None = ACTIONS) -> Fusion:
    torch.manual_seed(0)
    return Fusion(FusionConfig(transformer=stack(depth=2)), 24, 20, VOCABULARY, actions).eval()


def context() -> Context:
    return Context(
        image=torch.randn(2, 16, 24),
        text=torch.randn(2, 6, 20),
        text_seen=torch.arange(6)[None].expand(2, -1) < 4,
        state=torch.randn(2, 3),
    )


@given(
    st.lists(st.booleans(), min_size=8, max_size=8),
    st.floats(-1e6, 1e6) | st.sampled_from([float("nan"), float("inf")]),
)
def test_the_values_of_hidden_steps_are_never_read(places: list[bool], junk: float) -> None:
    hidden = torch.tensor([places, places[::-1]])
    model, around, actions = fusion(), context(), torch.randn(2, 8, 4)

    found = model.fill_actions(actions.masked_fill(hidden[:, :, None], junk), hidden, around)

    assert_close(found, model.fill_actions(actions, hidden, around), rtol=0, atol=0)


def test_the_values_of_visible_steps_are_read() -> None:
    hidden = torch.tensor([[True, False] * 4] * 2)
    model, actions = fusion(), torch.randn(2, 8, 4)
    other = torch.where(hidden[:, :, None], actions, actions + 1)

    one, two = (model.fill_actions(given, hidden, Context()) for given in (actions, other))

    assert not torch.allclose(one[hidden], two[hidden], atol=1e-4)


@given(st.lists(st.booleans(), min_size=8, max_size=8), st.integers(0, 99))
def test_hidden_steps_begin_on_the_line_that_numpy_draws(places: list[bool], seed: int) -> None:
    actions, hidden = np.random.default_rng(seed).normal(size=(8, 4)), np.array(places)
    seen = np.flatnonzero(~hidden)
    columns = [np.interp(range(8), seen, c[seen]) if len(seen) else np.zeros(8) for c in actions.T]

    found = straight(torch.from_numpy(actions)[None], torch.from_numpy(hidden)[None])

    assert_close(found[0], torch.from_numpy(np.stack(columns, axis=1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("absent", ["image", "text", "state"])
def test_each_condition_is_read_and_may_be_absent(absent: str) -> None:
    model, actions = fusion(), torch.randn(2, 8, 4)
    hidden, whole = torch.ones(2, 8, dtype=torch.bool), context()
    less = replace(whole, **{absent: None})

    with_it, without = (model.fill_actions(actions, hidden, c) for c in (whole, less))

    assert with_it.shape == without.shape == (2, 8, 4)
    assert not torch.allclose(with_it, without, atol=1e-4)


def test_with_no_condition_at_all_a_wholly_hidden_sequence_is_still_predicted() -> None:
    found = fusion().fill_actions(
        torch.zeros(2, 5, 4), torch.ones(2, 5, dtype=torch.bool), Context()
    )

    assert found.shape == (2, 5, 4)
    assert bool(torch.isfinite(found).all())
    assert_close(found[0], found[1])


def other_padding(text: Tensor, seen: Tensor) -> Tensor:
    return torch.where(seen[:, :, None], text, torch.randn_like(text))


def test_the_padding_of_a_text_is_not_read() -> None:
    model, around, image = fusion(), context(), torch.randn(2, 16, 24)
    assert around.text is not None
    assert around.text_seen is not None
    padded = other_padding(around.text, around.text_seen)
    hidden, actions = torch.ones(2, 8, dtype=torch.bool), torch.randn(2, 8, 4)
    shown = around.text_seen

    logits = model.fill_text(around.text, shown, image)

    assert logits.shape == (2, 6, VOCABULARY)
    assert_close(model.fill_text(padded, shown, image)[shown], logits[shown], rtol=0, atol=1e-5)
    assert_close(
        model.fill_actions(actions, hidden, replace(around, text=padded)),
        model.fill_actions(actions, hidden, around),
        rtol=0,
        atol=1e-5,
    )


def test_a_text_is_filled_in_with_and_without_a_picture() -> None:
    model, text, seen = fusion(), torch.randn(2, 6, 20), torch.ones(2, 6, dtype=torch.bool)

    with_it, without = (
        model.fill_text(text, seen, torch.randn(2, 16, 24)),
        model.fill_text(text, seen, None),
    )

    assert with_it.shape == without.shape == (2, 6, VOCABULARY)
    assert not torch.allclose(with_it, without, atol=1e-4)


def test_what_the_model_lacks_is_said() -> None:
    plain = fusion(None)
    stateless = fusion(ActionConfig(dimensions=4))
    hidden = torch.ones(1, 2, dtype=torch.bool)

    with pytest.raises(ValueError, match="has no action path"):
        plain.fill_actions(torch.zeros(1, 2, 4), hidden, Context())
    with pytest.raises(ValueError, match="takes no state"):
        stateless.fill_actions(torch.zeros(1, 2, 4), hidden, Context(state=torch.zeros(1, 3)))
    with pytest.raises(ValueError, match="text comes with text_seen"):
        fusion().fill_actions(torch.zeros(1, 2, 4), hidden, Context(text=torch.zeros(1, 2, 20)))
