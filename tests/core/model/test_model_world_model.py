"""A world model: what it may read of the past, and what a rollout does with its own predictions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bundles import full_model, stack, vision, world_model
from torch import Tensor
from torch.testing import assert_close

from tectum_core.architecture import ActionConfig
from tectum_core.model import VisionOutput, WorldModel
from tectum_core.model.world_model import action_width

ACTIONS = ActionConfig(dimensions=4, max_steps=8)
LATENT = full_model().latent_action
KINDS: dict[str, dict[str, Any]] = {
    "tokens": {},
    "squares of tokens": {"grid": 2},
    "pooled": {"latents": "pooled"},
    "latent actions": {"actions": "latent", "action_steps": None},
    "no actions": {"actions": "none", "action_steps": None},
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def module(kind: str = "tokens", **changes: Any) -> WorldModel:
    """One that says that something moves, as it would after training."""
    config = world_model(**{"transformer": stack(depth=2), **KINDS[kind], **changes})
    made = WorldModel(config, vision(), ACTIONS, LATENT).eval()
    torch.nn.init.normal_(made.change.weight, std=0.3)
    return made


def latents(model: WorldModel, frames: int, batch: int = 2) -> Tensor:
    return model.normalised(torch.randn(batch, frames, model.latent_count, model.latent_width))


def actions(model: WorldModel, frames: int, batch: int = 2) -> Tensor | None:
    return torch.randn(batch, frames, model.action_width) if model.action_width else None


def rolled(model: WorldModel, seen: Tensor, done: Tensor | None, frames: int) -> Tensor:
    """A rollout, of which `done` tells every action from the first frame on."""
    known = seen.shape[1]
    if done is None:
        return model.rollout(seen, None, None, frames)
    return model.rollout(seen, done[:, : known - 1], done[:, known - 1 :], frames)


# ---------------------------------------------------------------- shapes


@EVERY
def test_every_frame_gets_a_next_one_of_its_own_shape(kind: str) -> None:
    model = module(kind)
    seen = latents(model, 3)

    found = model(seen, actions(model, 3))

    count = {"pooled": 1, "squares of tokens": 4}.get(kind, 16)
    assert found.shape == seen.shape == (2, 3, count, 32)
    assert found.dtype == torch.float32


def test_an_interval_has_the_numbers_of_its_actions() -> None:
    real, latent, none = (module(kind) for kind in ("tokens", "latent actions", "no actions"))

    assert (real.action_width, latent.action_width, none.action_width) == (16, 8, 0)
    assert action_width(world_model(action_steps=2), ACTIONS, None) == 8


@EVERY
def test_what_is_predicted_has_mean_zero_and_spread_one(kind: str) -> None:
    model = module(kind)

    found = model(latents(model, 3), actions(model, 3))

    assert_close(found.mean(dim=-1), torch.zeros(found.shape[:-1]), rtol=0, atol=1e-5)
    assert_close(found.var(dim=-1, correction=0), torch.ones(found.shape[:-1]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["tokens", "pooled"])
def test_latents_are_the_trunks_vectors_normalised(kind: str) -> None:
    model = module(kind)
    seen = VisionOutput(pooled=torch.randn(2, 32) * 5 + 3, tokens=torch.randn(2, 16, 32) * 5 + 3)

    found = model.seen(seen)

    wanted = seen.tokens if kind == "tokens" else seen.pooled[:, None]
    assert_close(
        found,
        (wanted - wanted.mean(-1, keepdim=True))
        / (wanted.var(-1, keepdim=True, correction=0) + 1e-5).sqrt(),
    )


def test_squares_of_tokens_are_averaged_before_they_are_normalised() -> None:
    model = module("squares of tokens")
    tokens = torch.randn(2, 16, 32)

    found = model.latents(tokens)

    squares = tokens.view(2, 2, 2, 2, 2, 32).mean(dim=(2, 4)).view(2, 4, 32)
    assert_close(found, model.normalised(squares))


# ---------------------------------------------------------------- what it may read


@EVERY
def test_at_first_it_says_that_nothing_moves(kind: str) -> None:
    model = module(kind)
    seen = latents(model, 2)

    model.begin_as_copy()

    found = rolled(model, seen, actions(model, 6), 5)
    assert_close(found, seen[:, -1:].expand_as(found), rtol=0, atol=1e-3)


@EVERY
def test_no_prediction_reads_a_later_frame(kind: str) -> None:
    model = module(kind)
    seen, done = latents(model, 3), actions(model, 3)
    other = seen.clone()
    other[:, 2] = latents(model, 1)[:, 0]

    before, after = model(seen, done), model(other, done)

    assert_close(before[:, :2], after[:, :2], rtol=0, atol=1e-5)
    assert not torch.allclose(before[:, 2], after[:, 2], atol=1e-3)


@pytest.mark.parametrize("kind", ["tokens", "pooled", "latent actions"])
def test_an_action_counts_from_its_own_moment_on(kind: str) -> None:
    model = module(kind)
    seen, done = latents(model, 3), torch.randn(2, 3, model.action_width)
    other = done.clone()
    other[:, 1] += 1

    before, after = model(seen, done), model(seen, other)

    assert_close(before[:, 0], after[:, 0], rtol=0, atol=1e-5)
    assert not torch.allclose(before[:, 1], after[:, 1], atol=1e-4)
    assert not torch.allclose(before[:, 2], after[:, 2], atol=1e-4)


@EVERY
def test_a_sequence_does_not_notice_its_neighbours(kind: str) -> None:
    model = module(kind)
    seen, done = latents(model, 2), actions(model, 5)

    together = rolled(model, seen, done, 4)
    alone = rolled(model, seen[:1], None if done is None else done[:1], 4)

    assert_close(together[:1], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("kind", "words"), [("tokens", "needs"), ("no actions", "reads no")])
def test_actions_are_there_exactly_if_they_are_read(kind: str, words: str) -> None:
    model = module(kind)
    wrong = None if kind == "tokens" else torch.randn(2, 2, 16)

    with pytest.raises(ValueError, match=f"this world model {words} actions"):
        model(latents(model, 2), wrong)


# ---------------------------------------------------------------- rollouts


@EVERY
@settings(max_examples=12, deadline=None)
@given(known=st.integers(1, 5), frames=st.integers(1, 5))
def test_a_rollout_is_one_step_after_another(kind: str, known: int, frames: int) -> None:
    torch.manual_seed(known * 10 + frames)
    model = module(kind)
    seen, done = latents(model, known), actions(model, known - 1 + frames)

    found = rolled(model, seen, done, frames)

    window = seen
    for step in range(frames):
        one = rolled(model, window, None if done is None else done[:, : known + step], 1)
        window = torch.cat([window, one], dim=1)
    assert found.shape[1] == frames
    assert_close(found, window[:, known:], rtol=0, atol=1e-5)


@EVERY
def test_a_rollout_looks_back_no_further_than_its_history(kind: str) -> None:
    model = module(kind, history=2)
    seen, done = latents(model, 4), actions(model, 5)
    other = seen.clone()
    other[:, :2] = latents(model, 2)

    assert torch.equal(rolled(model, seen, done, 2), rolled(model, other, done, 2))
    other[:, 2] = latents(model, 1)[:, 0]
    assert not torch.allclose(rolled(model, seen, done, 2), rolled(model, other, done, 2))


# ---------------------------------------------------------------- the decoder


@pytest.mark.parametrize("kind", ["tokens", "pooled", "squares of tokens"])
def test_a_frame_is_painted_from_its_latents(kind: str) -> None:
    model = module(kind)
    seen = latents(model, 2)

    one, other = (model.decode(seen[:, step]) for step in range(2))

    assert one.shape == (2, 3, 32, 32)
    assert not torch.allclose(one, other, atol=1e-3)


def test_without_a_decoder_nothing_is_painted() -> None:
    model = module(decoder=None)

    with pytest.raises(ValueError, match="decodes no frames"):
        model.decode(latents(model, 1)[:, 0])
