"""Frames and sentences: what is compared, against which negatives, and what is remembered."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import log_softmax
from tests.training.tiny import batch, model
from torch import Tensor
from torch.testing import assert_close

from tectum_core.model import PerceptionModel, TextOutput, VisionOutput
from tectum_train.engine.optimiser import optimiser_for
from tectum_train.losses.contrastive import Older, info_nce, sigmoid_pairs
from tectum_train.objectives import Batch
from tectum_train.objectives.image_text import ImageText, ImageTextConfig
from tectum_train.recipe import OptimiserConfig

SIGLIP = {"width": 16, "initial_scale": 10, "bias": -10}


def built(network: PerceptionModel | None = None, **settings: Any) -> ImageText:
    config = ImageTextConfig.model_validate(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ImageText(config, network or model())


@torch.no_grad()
def embedded(network: PerceptionModel, made: Batch) -> tuple[Tensor, Tensor]:
    """Unit vectors of frames and sentences, by the model's own parts."""
    assert network.joint is not None
    assert network.text is not None
    image = network.joint.image(network.vision(made.earlier).pooled)
    text = network.joint.text(network.text(made.ids, made.ids_seen).pooled)
    return unit(image), unit(text)


def unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=1)


def test_the_whole_objective_is_the_formula_on_cosines() -> None:
    network, made = model(), batch(8)
    made.task = torch.tensor([0, 1, 0, 2, 3, 3, 4, 5])

    outcome = built(network)(made)

    image, text = (one.double().numpy() for one in embedded(network, made))
    alike = made.task.numpy()[:, None] == made.task.numpy()[None, :]
    target = alike / alike.sum(axis=1, keepdims=True)
    logits = image @ text.T / 0.07
    both = (target * log_softmax(logits, axis=1)).sum() + (
        target * log_softmax(logits.T, axis=1)
    ).sum()
    assert outcome.loss.item() == pytest.approx(-both / 16, rel=1e-4)
    assert outcome.loss.dtype == torch.float32
    assert float(outcome.metrics["scale"]) == pytest.approx(1 / 0.07)


def test_frames_before_a_share_of_their_episode_do_not_count() -> None:
    network, made = model(), batch(8)
    late = built(network, after=0.5)

    before = late(made).loss
    made.earlier[:4] += 9.0  # progress is 0, 1/7 … 3/7 there
    made._image = {}
    after = late(made).loss

    assert torch.equal(before, after)
    assert not torch.equal(built(network)(made).loss, after)


@pytest.mark.parametrize("settings", [{}, {"negatives": {"queue": 4}}], ids=["plain", "queue"])
def test_frames_without_words_do_not_count(settings: Any) -> None:
    network, made = model(), batch(8)
    silent = torch.arange(8) >= 4
    made.content[silent] = False
    objective = built(network, **settings)

    before = objective(made).loss
    objective.after_step()
    made.earlier[4:] += 9.0
    made._image = {}

    assert torch.equal(built(network, **settings)(made).loss, before)
    if objective.images is not None:
        assert int(objective.images.filled.sum()) == 4
    made.content[:] = False
    outcome = built(network)(made)
    assert outcome.loss.item() == 0
    assert outcome.metrics.keys() == {"scale"}


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_a_batch_without_late_frames_teaches_nothing_and_ends_no_run(autocast: bool) -> None:
    network, made = model(), batch(4, progress=torch.zeros(4))

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outcome = built(network, after=0.9)(made)
    outcome.loss.backward()

    assert (outcome.loss.item(), outcome.loss.dtype) == (0, torch.float32)
    assert outcome.metrics.keys() == {"scale"}  # of no frame there is no accuracy
    for part in (network.vision, network.text, network.joint):
        assert part is not None
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        assert gradients
        assert all(torch.equal(found, torch.zeros_like(found)) for found in gradients)


def test_accuracy_counts_any_frame_of_the_same_task() -> None:
    network, made = model(), batch(6)
    objective = built(network)

    made.task = torch.zeros(6, dtype=torch.long)
    alike_ = objective(made).metrics["accuracy"]

    assert float(alike_) == 1
    assert not alike_.requires_grad


def test_after_a_step_the_scale_is_at_most_a_hundred() -> None:
    network = model()
    objective = built(network)
    assert network.joint is not None
    scale = network.joint.log_scale

    for before, after in ((9.0, math.log(100)), (2.0, 2.0), (-3.0, -3.0)):
        scale.data.fill_(before)
        objective.after_step()
        assert scale.item() == pytest.approx(after)
    assert scale.requires_grad


def test_the_scale_is_learnt() -> None:
    network = model()

    built(network)(batch()).loss.backward()

    assert network.joint is not None
    assert network.joint.log_scale.grad is not None
    assert float(network.joint.log_scale.grad) != 0


def test_at_scale_100_bfloat16_leaves_the_joint_spaces_gradient_as_it_was() -> None:
    network, one = model(), batch()
    assert network.joint is not None
    with torch.no_grad():
        network.joint.log_scale.fill_(math.log(100))
    pooled = network.vision(one.earlier).pooled.detach().bfloat16()
    words = one.text(network).pooled.detach().bfloat16()
    gradients = []
    for low in (False, True):
        given = batch()
        given._image = {network.vision: VisionOutput(pooled=pooled, tokens=pooled)}
        given._text = TextOutput(pooled=words, tokens=words)
        network.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            outcome = built(network)(given)
        outcome.loss.backward()
        gradients.append([p.grad.clone() for p in network.joint.parameters() if p.grad is not None])

    for exact, found in zip(*gradients, strict=True):
        assert_close(found, exact, rtol=1e-5, atol=1e-7)


def test_without_a_joint_space_there_is_no_such_objective() -> None:
    with pytest.raises(
        ValueError, match=r"model\.joint: found null; allowed: the space of image_text"
    ):
        built(model(joint=None))


@pytest.mark.parametrize(
    "settings",
    [{"loss": "sigmoid"}, {"negatives": {"queue": 16}}, {"negatives": {"queue": 16, "hardest": 3}}],
    ids=str,
)
def test_eight_samples_are_overfitted_whatever_they_are_told_apart_from(settings: Any) -> None:
    network = model(joint=SIGLIP if "loss" in settings else {"width": 16})
    learner = built(network, **settings)
    adam = optimiser_for(learner, OptimiserConfig(lr=3e-3, weight_decay=0.0))
    losses = []

    for _ in range(60):
        loss = learner(batch(8)).loss
        adam.zero_grad()
        loss.backward()
        adam.step()
        learner.after_step()
        losses.append(loss.item())

    assert sum(losses[-5:]) / 5 < 0.2 * losses[0]


# ---------------------------------------------------------------- truncations


@pytest.mark.parametrize(
    "settings", [{"loss": "sigmoid"}, {}, {"negatives": {"queue": 12}}], ids=str
)
def test_the_loss_is_the_mean_over_all_dimensions_and_each_first_so_many(settings: Any) -> None:
    network, made = model(joint=SIGLIP | {"truncations": [4, 8]}), batch(8)
    made.task[3] = made.task[0]
    objective = built(network, **settings)
    objective(batch(8, seed=1))
    objective.after_step()
    older = remembered(objective) if "negatives" in settings else None

    outcome = objective(made)

    losses = []
    for width in (4, 8, 16):
        image, text = (unit(one[:, :width]) for one in embedded(network, made))
        if "loss" in settings:
            pair = (image, text, torch.tensor(10.0), torch.tensor(-10.0))
            losses.append(sigmoid_pairs(*pair, made.task).loss)
            continue
        shorter = older and older._replace(
            left=unit(older.left[:, :width]), right=unit(older.right[:, :width])
        )
        losses.append(info_nce(image, text, torch.tensor(10.0), made.task, None, shorter).loss)
        hits = info_nce(image, text, torch.tensor(10.0), made.task, None, shorter).hit
        name = "accuracy" if width == 16 else f"accuracy_{width}"
        assert outcome.metrics[name].item() == pytest.approx(hits.float().mean().item())
    assert_close(outcome.loss, torch.stack(losses).mean())


def test_shorter_vectors_learn_what_all_dimensions_do() -> None:
    """Without truncations the first dimension alone cannot tell four samples apart."""
    torch.manual_seed(0)
    network = model(joint={"width": 16, "truncations": [2]})
    learner = built(network)
    adam = optimiser_for(learner, OptimiserConfig(lr=3e-3, weight_decay=0.0))

    for _ in range(150):
        outcome = learner(batch(8))
        adam.zero_grad()
        outcome.loss.backward()
        adam.step()
        learner.after_step()

    assert outcome.metrics["accuracy"] == 1
    assert outcome.metrics["accuracy_2"] == 1


# ---------------------------------------------------------------- the sigmoid


@pytest.mark.parametrize("exchange", ["ring", "gather"])
def test_the_sigmoids_loss_is_siglips_with_the_models_scale_and_bias(exchange: str) -> None:
    network, made = model(joint=SIGLIP), batch(8)
    made.task[3] = made.task[0]

    outcome = built(network, loss="sigmoid", exchange=exchange, after=0.3)(made)

    image, text = embedded(network, made)
    scale, bias = torch.tensor(10.0), torch.tensor(-10.0)
    expected, *_ = sigmoid_pairs(image, text, scale, bias, made.task, made.progress >= 0.3)
    assert_close(outcome.loss, expected)
    assert outcome.metrics["scale"].item() == pytest.approx(10)
    assert outcome.metrics["bias"] == -10


def test_the_sigmoid_learns_scale_and_bias_and_leaves_the_scale_free() -> None:
    network = model(joint=SIGLIP)
    objective = built(network, loss="sigmoid")
    assert network.joint is not None
    assert network.joint.bias is not None

    objective(batch()).loss.backward()
    network.joint.log_scale.data.fill_(5.0)
    objective.after_step()

    assert network.joint.log_scale.item() == 5.0
    for learnt in (network.joint.log_scale, network.joint.bias):
        assert learnt.grad is not None
        assert learnt.grad != 0


def test_infonce_is_blind_to_a_bias_and_does_not_move_it() -> None:
    network = model(joint=SIGLIP)

    built(network)(batch()).loss.backward()

    assert network.joint is not None
    assert network.joint.bias is not None
    assert network.joint.bias.grad is None


def test_the_sigmoid_needs_a_bias() -> None:
    with pytest.raises(ValueError, match=r"loss: sigmoid needs model\.joint\.bias"):
        built(loss="sigmoid")


@pytest.mark.parametrize("negatives", [{"queue": 4}, {"hardest": 2}])
def test_the_sigmoid_has_no_other_negatives(negatives: Any) -> None:
    with pytest.raises(ValidationError, match="belong to loss: info_nce"):
        ImageTextConfig.model_validate({"loss": "sigmoid", "negatives": negatives})


# ---------------------------------------------------------------- negatives


def remembered(objective: ImageText) -> Older:
    assert objective.images is not None
    assert objective.texts is not None
    images, texts = objective.images, objective.texts
    assert torch.equal(images.group, texts.group)
    return Older(images.vectors, texts.vectors, images.group, images.filled)


def test_the_steps_own_vectors_are_later_steps_negatives_where_the_task_differs() -> None:
    network = model()
    objective = built(network, after=0.5, negatives={"queue": 12})
    first, second = batch(8), batch(8, seed=1)
    first.task, second.task = torch.arange(8), torch.arange(4, 12)

    alone = objective(first).loss
    before = remembered(objective)
    objective.after_step()
    kept = remembered(objective)
    loss = objective(second).loss

    image, text = embedded(network, first)
    late = first.progress >= 0.5
    assert not before.counted.any()
    assert kept.counted.tolist() == [True] * 4 + [False] * 8
    assert_close(kept.left[:4], image[late])
    assert_close(kept.right[:4], text[late])
    assert kept.group[:4].tolist() == [4, 5, 6, 7]
    scale, late = torch.tensor(1 / 0.07), second.progress >= 0.5
    assert_close(alone, built(network, after=0.5)(first).loss)  # of what is not there, no trace
    pair = embedded(network, second)
    expected, *_ = info_nce(*pair, scale, second.task, late, kept)
    assert_close(loss, expected)
    assert loss > info_nce(*pair, scale, second.task, late)[0]


def test_what_was_not_followed_by_a_step_is_not_remembered_twice() -> None:
    objective = built(negatives={"queue": 12})

    for _ in range(3):
        objective(batch(4))
    objective.after_step()
    objective.after_step()

    assert remembered(objective).counted.sum() == 4


def test_no_gradient_reaches_what_is_remembered() -> None:
    objective = built(negatives={"queue": 8})
    objective(batch(8)).loss.backward()
    objective.after_step()

    objective(batch(8, seed=1)).loss.backward()

    assert not any(one.requires_grad for one in remembered(objective))


def test_of_the_hardest_negatives_one_is_left_to_each_frame_and_sentence() -> None:
    network, made = model(), batch(8)

    loss = built(network, negatives={"hardest": 1})(made).loss

    image, text = (one.double().numpy() for one in embedded(network, made))
    logits, costs = image @ text.T / 0.07, list[float]()
    for rows in (logits, logits.T):
        others = np.where(np.eye(8, dtype=bool), -np.inf, rows).max(axis=1)
        costs += np.logaddexp(0, others - np.diagonal(rows)).tolist()
    assert loss.item() == pytest.approx(np.mean(costs), rel=1e-4)
