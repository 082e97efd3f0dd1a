"""Masked and predicted actions: what may be read, and which steps count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from tests.training.tiny import batch, model
from torch import Generator, Tensor

from tectum_core.architecture import ActionBinsConfig, ActionConfig
from tectum_core.model import Context, Fusion, PerceptionModel
from tectum_core.model.fusion import straight
from tectum_train.objectives import Objective
from tectum_train.objectives.masked_action import (
    ActionPrediction,
    ActionPredictionConfig,
    MaskedAction,
    MaskedActionConfig,
)

ALWAYS = {"image_share": 1.0, "text_share": 1.0, "state_share": 1.0}


def masked(network: PerceptionModel, **changes: Any) -> MaskedAction:
    return MaskedAction(MaskedActionConfig.model_validate({**ALWAYS, **changes}), network)


def prediction(network: PerceptionModel, **changes: Any) -> ActionPrediction:
    return ActionPrediction(ActionPredictionConfig.model_validate(changes), network)


class Watched:
    """Keeps what the fusion is asked and says; may say zeros instead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hidden, self.said = torch.zeros(0), torch.zeros(0)
        self.context = Context()
        self.silent = False
        whole = Fusion.fill_actions

        def fill(fusion: Fusion, actions: Tensor, hidden: Tensor, context: Context) -> Tensor:
            self.hidden, self.context = hidden, context
            self.said = whole(fusion, actions, hidden, context)
            return 0 * self.said if self.silent else self.said

        monkeypatch.setattr(Fusion, "fill_actions", fill)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def noise(seed: int = 9) -> Tensor:
    return torch.randn(8, 8, 4, generator=Generator().manual_seed(seed))


# ---------------------------------------------------------------- both objectives


both = pytest.mark.parametrize("make", [masked, prediction])


@both
def test_padded_steps_never_count(watched: Watched, make: Any) -> None:
    watched.silent = True
    padded = torch.zeros(8, 8, dtype=torch.bool)
    padded[:, 5:] = True
    padded[3] = True
    learnt = make(model())
    given_ = batch(padded=padded)

    spoilt = batch(padded=padded, actions=given_.actions + 7 * padded[:, :, None])
    other = batch(padded=padded, actions=given_.actions + 7 * ~padded[:, :, None])

    expected = learnt(given_).loss.item()
    assert learnt(spoilt).loss.item() == expected
    assert learnt(other).loss.item() > expected


@both
def test_the_loss_is_the_mean_square_over_hidden_real_steps(watched: Watched, make: Any) -> None:
    padded = torch.arange(8)[None] >= torch.arange(1, 9)[:, None]
    made = batch(padded=padded)

    outcome = make(model())(made)

    counted = (watched.hidden & ~padded).numpy()
    wrong = watched.said.detach().double().numpy() - made.actions.double().numpy()
    expected = np.square(wrong)[counted].mean()
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-5)
    assert float(outcome.metrics["error"]) == pytest.approx(expected, rel=1e-5)
    line = straight(made.actions, watched.hidden).double().numpy() - made.actions.double().numpy()
    assert float(outcome.metrics["line"]) == pytest.approx(np.square(line)[counted].mean())


@both
def test_a_batch_in_which_nothing_counts_costs_nothing(make: Any) -> None:
    network = model()

    loss = make(network)(batch(padded=torch.ones(8, 8, dtype=torch.bool))).loss
    loss.backward()

    assert loss.item() == 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


@both
def test_hidden_actions_are_not_read(watched: Watched, make: Any) -> None:
    network = model()
    make(network)(batch())
    first, hidden = watched.said, watched.hidden

    make(network)(batch(actions=torch.where(hidden[:, :, None], noise(), batch().actions)))

    assert torch.equal(first, watched.said)


@both
def test_padding_does_not_show_the_hidden_action_that_it_repeats(
    watched: Watched, make: Any
) -> None:
    padded = torch.zeros(8, 8, dtype=torch.bool)
    padded[:, 4:] = True
    network, repeated = model(), batch().actions
    make(network)(batch(padded=padded))
    first = watched.said

    repeated[:, 4:] = repeated[:, 3:4]
    make(network)(batch(padded=padded, actions=repeated))

    assert torch.equal(first, watched.said)


@both
def test_only_its_share_of_the_batch_is_used(watched: Watched, make: Any) -> None:
    other = batch()
    other.actions = torch.cat([other.actions[:4], noise()[4:]])

    first = make(model(), fraction=0.5)(batch()).loss.item()

    assert watched.hidden.shape[0] == 4
    assert make(model(), fraction=0.5)(other).loss.item() == pytest.approx(first)


@pytest.mark.parametrize("part", ["text", "state"])
def test_a_chunk_is_predicted_with_words_and_state_or_without(watched: Watched, part: str) -> None:
    seen = []
    for share in (1.0, 0.0):
        prediction(model(), **{f"{part}_share": share})(batch())
        seen.append(getattr(watched.context, part) is not None)

    assert seen == [True, False]


@both
def test_a_model_without_states_is_given_none(watched: Watched, make: Any) -> None:
    network = model(actions={"dimensions": 4, "max_steps": 8})

    loss: Tensor = make(network)(batch(state=torch.zeros(8, 0))).loss

    assert watched.context.state is None
    assert torch.isfinite(loss)


@both
def test_without_an_action_path_there_is_no_such_objective(make: Any) -> None:
    without: list[dict[str, Any]] = [{"actions": None}, {"fusion": None, "actions": None}]
    for parts in without:
        with pytest.raises(ValueError, match=r"found null; .* model\.actions and model\.fusion"):
            make(model(latent_action=None, **parts))


# ---------------------------------------------------------------- bins


def binned(**changes: Any) -> PerceptionModel:
    bins = ActionBinsConfig.model_validate({"count": 16, "limit": 3.0, **changes})
    actions = ActionConfig(dimensions=4, state_dimensions=4, max_steps=8, bins=bins)
    return model(actions=actions.model_dump())


@both
def test_the_cross_entropy_is_that_of_the_bins_of_hidden_real_steps(
    monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    said: dict[str, Tensor] = {}
    whole = Fusion.guess_actions

    def guess(fusion: Fusion, actions: Tensor, hidden: Tensor, context: Context) -> Tensor:
        said["hidden"], said["logits"] = hidden, whole(fusion, actions, hidden, context)
        return said["logits"]

    monkeypatch.setattr(Fusion, "guess_actions", guess)
    padded = torch.arange(8)[None] >= torch.arange(1, 9)[:, None]
    made = batch(padded=padded)

    outcome = make(binned(), loss="cross_entropy")(made)

    counted = (said["hidden"] & ~padded).numpy()
    edges = np.linspace(-3, 3, 17)
    places = np.clip(np.searchsorted(edges, made.actions.numpy()) - 1, 0, 15)[counted]
    logits = said["logits"].detach().double().numpy()[counted]
    chosen = np.take_along_axis(log_softmax(logits, axis=-1), places[..., None], axis=-1)
    assert outcome.loss.item() == pytest.approx(-chosen.mean(), rel=1e-5)
    centres = (edges[1:] + edges[:-1]) / 2
    meant = (np.exp(log_softmax(logits, axis=-1)) * centres).sum(axis=-1)
    error = np.square(meant - made.actions.double().numpy()[counted]).mean()
    assert float(outcome.metrics["error"]) == pytest.approx(error, rel=1e-4)


@both
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_what_padded_steps_hold_changes_neither_loss_nor_gradient(make: Any, loss: str) -> None:
    padded = torch.arange(8)[None] >= torch.arange(1, 9)[:, None]
    found = []
    for spoilt in (0.0, 1e3, torch.nan):
        network = binned()
        actions = batch().actions.masked_fill(padded[:, :, None], spoilt)
        said = make(network, loss=loss)(batch(padded=padded, actions=actions)).loss
        said.backward()
        gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        found.append((said.item(), torch.cat(gradients)))

    for value, gradient in found[1:]:
        assert value == found[0][0]
        assert torch.equal(gradient, found[0][1])


@both
def test_at_first_every_bin_is_as_probable(make: Any) -> None:
    network = binned(count=64)
    assert network.fusion is not None
    assert network.fusion.action_head is not None
    torch.nn.init.zeros_(network.fusion.action_head.weight)

    loss = make(network, loss="cross_entropy")(batch()).loss

    assert loss.item() == pytest.approx(np.log(64), rel=0.01)


@both
def test_eight_samples_are_learnt_by_heart(make: Any) -> None:
    network = binned()
    learnt: Objective = make(network, loss="cross_entropy")
    adam = torch.optim.Adam(network.parameters(), lr=3e-3)

    for step in range(80):
        made = batch()
        made.seeds += 8 * step
        outcome = learnt(made)
        adam.zero_grad()
        outcome.loss.backward()
        adam.step()

    assert outcome.loss.item() < 0.4 * np.log(16)
    assert float(outcome.metrics["error"]) < 0.4 * float(outcome.metrics["line"])


@both
def test_a_model_without_bins_is_refused_cross_entropy_by_name(make: Any) -> None:
    with pytest.raises(ValueError, match=r"loss: found 'cross_entropy'; .*model\.actions\.bins"):
        make(model(), loss="cross_entropy")


# ---------------------------------------------------------------- masking


def test_what_is_hidden_is_one_run_of_one_of_the_ratios(watched: Watched) -> None:
    lengths = set()
    for seed in range(12):
        masked(model(), ratios=(0.25, 0.5, 0.75))(batch(seed=seed))
        for row in watched.hidden:
            places = row.nonzero().flatten()
            assert len(places) == places[-1] - places[0] + 1
            lengths.add(len(places))

    assert lengths == {2, 4, 6}


def test_visible_actions_are_read(watched: Watched) -> None:
    network = model()
    masked(network)(batch())
    first, hidden = watched.said, watched.hidden

    masked(network)(batch(actions=torch.where(hidden[:, :, None], batch().actions, noise())))

    assert not torch.allclose(first, watched.said)


@pytest.mark.parametrize("part", ["image", "text", "state"])
def test_each_condition_is_shown_as_often_as_asked(watched: Watched, part: str) -> None:
    network, shown = model(), {0.0: 0, 0.5: 0, 1.0: 0}
    for share in shown:
        for seed in range(12):
            masked(network, **{f"{part}_share": share})(batch(1, seed=seed))
            shown[share] += getattr(watched.context, part) is not None

    assert shown[0.0] == 0
    assert shown[1.0] == 12
    assert 1 < shown[0.5] < 11


def test_conditions_are_dropped_apart(watched: Watched) -> None:
    network, seen = model(), set()
    for seed in range(40):
        masked(network, image_share=0.5, text_share=0.5, state_share=0.5)(batch(1, seed=seed))
        context = watched.context
        seen.add((context.image is None, context.text is None, context.state is None))

    assert len(seen) == 8


# ---------------------------------------------------------------- prediction


def test_prediction_reads_picture_words_and_state_but_no_action(watched: Watched) -> None:
    network = model()

    prediction(network)(batch())

    assert watched.hidden.all()
    context = watched.context
    assert context.image is not None
    assert context.text is not None
    assert context.state is not None
    first = watched.said
    prediction(network)(batch(actions=noise()))
    assert torch.equal(first, watched.said)


@pytest.mark.parametrize(
    "change",
    [
        {"earlier": batch().earlier.flip(0)},
        {"ids": batch().ids.flip(0), "ids_seen": batch().ids_seen.flip(0)},
        {"state": batch().state.flip(0)},
    ],
    ids=["picture", "words", "state"],
)
def test_each_condition_changes_what_is_predicted(watched: Watched, change: dict[str, Any]) -> None:
    network = model()
    learnt: Objective = prediction(network)
    learnt(batch())
    first = watched.said

    learnt(batch(**change))

    assert not torch.allclose(first, watched.said)


# ---------------------------------------------------------------- noise


def test_noise_is_on_what_is_shown_and_never_on_what_is_to_be_told(watched: Watched) -> None:
    learnt, made = masked(model()), batch(action_noise=noise())

    outcome = learnt(made)

    hidden, said = watched.hidden, watched.said.detach()
    wrong = (said.double() - made.actions.double()).square()[hidden].mean()
    assert outcome.loss.item() == pytest.approx(float(wrong), rel=1e-5)
    line = (straight(made.shown_actions, hidden) - made.actions).square()[hidden].mean()
    assert float(outcome.metrics["line"]) == pytest.approx(float(line), rel=1e-5)
    learnt(batch())
    assert not torch.equal(watched.said, said)
    learnt(batch(actions=made.shown_actions))
    assert torch.equal(watched.said, said)


def test_noise_changes_nothing_where_every_step_is_to_be_told() -> None:
    learnt = prediction(model())

    assert learnt(batch(action_noise=noise())).loss.item() == learnt(batch()).loss.item()
