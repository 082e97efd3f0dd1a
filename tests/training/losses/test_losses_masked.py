"""Losses on what was hidden, against formulas in float64 NumPy, over one rank and over two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from tests.families import Weights, mae_decoder, read, stack, vit_mae
from tests.training.ranks import Ranks
from torch.testing import assert_close

from tectum_core.architecture import PixelDecoderConfig
from tectum_core.masks import visible_indices
from tectum_core.model import PixelDecoder, VisionTransformer, patchify
from tectum_train.distributed import world_size
from tectum_train.losses.masked import (
    binned_actions,
    hidden_patches,
    hidden_words,
    squared_actions,
)

Arrays = dict[str, NDArray[Any]]
NAMES = ("patches", "words", "actions", "bins")
ROWS, SEEDS = st.integers(1, 6), st.integers(0, 2**32)
PLACES, WIDTH, CHOICES = 5, 3, 7


def inputs(name: str, rows: int, seed: int) -> Arrays:
    """What a loss reads; of the second half of the rows little is hidden."""
    draw = np.random.default_rng(seed)
    hidden = (
        draw.random((rows, PLACES)) < np.where(np.arange(rows) < (rows + 1) // 2, 0.8, 0.2)[:, None]
    )
    hidden[0, 0] = True
    shape = {"words": (CHOICES,), "bins": (WIDTH, CHOICES)}.get(name, (WIDTH,))
    said = 3 * draw.normal(size=(rows, PLACES, *shape))
    truths = {
        "words": draw.integers(0, CHOICES, (rows, PLACES)),
        "bins": draw.integers(0, CHOICES, (rows, PLACES, WIDTH)),
    }
    true = truths.get(name, draw.normal(size=(rows, PLACES, WIDTH)))
    return {"said": said, "true": true, "hidden": hidden}


def formula(name: str, said: Any, true: Any, hidden: Any) -> tuple[float, Any]:
    """Value and gradient by hand."""
    if name in ("patches", "actions"):
        count = hidden.sum() * WIDTH
        wrong = (said - true) * hidden[:, :, None]
        return float(np.square(wrong).sum() / count), 2 * wrong / count
    chosen = np.eye(CHOICES)[true]
    weight = hidden[(...,) + (None,) * (said.ndim - 2)]
    count = hidden.sum() * (1 if name == "words" else WIDTH)
    value = -(log_softmax(said, axis=-1) * chosen * weight).sum() / count
    return float(value), (softmax(said, axis=-1) - chosen) * weight / count


def loss_of(name: str, said: Any, true: Any, hidden: Any) -> Any:
    match name:
        case "patches":
            return hidden_patches(said, true, hidden)
        case "words":
            return hidden_words(said, true, hidden)[0]
        case "actions":
            return squared_actions(said, true, hidden)
        case _:
            return binned_actions(said, true, hidden)


def computed(name: str, said: Any, true: Any, hidden: Any) -> Arrays:
    """A rank's share of the loss, and the gradient averaged over ranks."""
    leaf = torch.from_numpy(said).requires_grad_()
    loss = loss_of(name, leaf, torch.from_numpy(true), torch.from_numpy(hidden))
    loss.backward()
    assert leaf.grad is not None
    return {"loss": loss.detach().numpy(), "gradient": leaf.grad.numpy() / world_size()}


@pytest.mark.parametrize("name", NAMES)
@given(rows=ROWS, seed=SEEDS)
def test_each_loss_and_its_gradient_are_the_formulas(name: str, rows: int, seed: int) -> None:
    given_ = inputs(name, rows, seed)

    found = computed(name, **given_)

    value, gradient = formula(name, **given_)
    assert np.isclose(found["loss"], value, rtol=1e-9)
    assert np.allclose(found["gradient"], gradient, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_each_over_two_ranks_is_that_of_one_however_unequally_things_are_hidden(
    ranks: Ranks, name: str
) -> None:
    given_ = inputs(name, 6, 1)
    assert given_["hidden"][:3].sum() > 2 * given_["hidden"][3:].sum()

    both = ranks.run(computed, name=name, **given_)

    alone = computed(name, **given_)
    assert np.isclose(np.mean([one["loss"] for one in both]), alone["loss"], rtol=1e-9)
    gradient = np.concatenate([one["gradient"] for one in both])
    assert np.abs(gradient - alone["gradient"]).max() <= 1e-6 * np.abs(alone["gradient"]).max()


@pytest.mark.parametrize("name", NAMES)
@given(seed=SEEDS)
def test_what_was_not_hidden_may_be_anything_and_the_order_of_a_batch_any(
    name: str, seed: int
) -> None:
    given_ = inputs(name, 4, seed)
    seen = ~given_["hidden"]
    said = given_["said"].copy()
    said[seen] = np.inf
    order = np.random.default_rng(seed).permutation(4)
    mixed = {key: value[order] for key, value in given_.items()}

    expected = computed(name, **given_)["loss"]

    assert computed(name, said, given_["true"], given_["hidden"])["loss"] == expected
    assert np.isclose(computed(name, **mixed)["loss"], expected, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_is_hidden_the_loss_and_its_gradients_are_zero(name: str) -> None:
    given_ = inputs(name, 3, 0) | {"hidden": np.zeros((3, PLACES), np.bool_)}

    found = computed(name, **given_)

    assert found["loss"] == 0
    assert not found["gradient"].any()


@pytest.mark.parametrize("name", ["words", "bins"])
def test_equal_logits_cost_the_logarithm_of_their_number(name: str) -> None:
    given_ = inputs(name, 3, 0)

    assert np.isclose(computed(name, **given_ | {"said": 0 * given_["said"]})["loss"], np.log(7))


def test_the_best_guess_is_right_or_wrong() -> None:
    logits = torch.eye(3)[None]

    _, right = hidden_words(logits, torch.tensor([[0, 2, 2]]), torch.tensor([[True, True, False]]))

    assert right.tolist() == [True, False]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_stay_finite_at_scale_100(name: str, dtype: torch.dtype) -> None:
    given_ = {key: torch.from_numpy(value) for key, value in inputs(name, 4, 0).items()}
    said = (100 * given_["said"]).to(dtype).requires_grad_()
    true = given_["true"]
    true = 100 * true.to(dtype) if true.is_floating_point() else true

    loss = loss_of(name, said, true, given_["hidden"])

    (gradient,) = torch.autograd.grad(loss, said)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert gradient.isfinite().all()


# ---------------------------------------------------------------- MAE as transformers computes it


def test_maes_loss_and_all_its_gradients_are_those_of_transformers() -> None:
    theirs, numbers = read("vit_mae_pretraining")
    settings, encoder = vit_mae(below("vit.", theirs))
    painter = PixelDecoderConfig(
        transformer=stack(width=12, hidden=20, norm_eps=1e-12),
        variance_floor=1e-6,
        text_context=True,
    )
    vision = VisionTransformer(settings)
    decoder = PixelDecoder(painter, settings, settings.transformer.width)
    vision.load_state_dict(encoder)
    # Mean and spread, which only we predict, take no part.
    lacking = decoder.load_state_dict(mae_decoder(below("decoder.", theirs)), strict=False)
    hidden = numbers["hidden"].bool()
    keep = visible_indices(hidden)

    seen = vision(numbers["pixels"], keep)
    class_seen = torch.ones(2, 1, dtype=torch.bool)
    said = decoder(seen.tokens, keep, seen.pooled[:, None], class_seen)
    target = decoder.target(patchify(numbers["pixels"], 8))
    loss = hidden_patches(said.values, target.values, hidden)
    loss.backward()

    assert lacking.missing_keys == ["statistics.weight", "statistics.bias"]
    assert_close(loss.detach(), numbers["loss"], rtol=1e-5, atol=0)
    gradients = below("gradients/", numbers)
    _, expected = vit_mae(below("vit.", gradients))
    expected.pop("positions", None)
    painted = mae_decoder(below("decoder.", gradients))
    found = {name: one.grad for name, one in vision.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    for kind in ("weight", "bias"):  # one map of theirs, read by patches and by the class token
        apart = [getattr(part, kind).grad for part in (decoder.embed, decoder.from_text)]
        whole = painted.pop(f"embed.{kind}")
        painted.pop(f"from_text.{kind}")
        assert_close(apart[0] + apart[1], whole, rtol=1e-4, atol=1e-6)
    ours = dict(decoder.named_parameters())
    assert {name.partition(".")[0] for name in ours.keys() - painted.keys()} == {
        "embed", "from_text", "statistics",
    }  # fmt: skip
    for name, gradient in painted.items():
        assert_close(ours[name].grad, gradient, rtol=1e-4, atol=1e-6, msg=name)


def below(prefix: str, tensors: Weights) -> Weights:
    """Those whose names begin so, by the rest of them."""
    return {key.removeprefix(prefix): one for key, one in tensors.items() if key.startswith(prefix)}
