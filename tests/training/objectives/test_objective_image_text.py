"""InfoNCE with several positives, against the formula in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.tiny import batch, model
from torch import Tensor
from torch.testing import assert_close

from tectum_core.model import TextOutput, VisionOutput
from tectum_core.model.perception import Joint
from tectum_train.objectives.image_text import ImageText, ImageTextConfig, multi_positive_info_nce

SENTENCES = st.lists(st.integers(0, 4), min_size=1, max_size=9)
SCALE = st.sampled_from([0.1, 1.0, 14.0, 100.0])


def drawn(size: int, scale: float, seed: int) -> NDArray[np.float32]:
    cosines = np.random.default_rng(seed).uniform(-1, 1, (size, size))
    return (scale * cosines).astype(np.float32)


def alike(sentences: list[int]) -> NDArray[np.bool_]:
    return np.equal.outer(sentences, sentences)


def loss_of(logits: NDArray[np.float32], sentences: list[int]) -> float:
    return float(multi_positive_info_nce(torch.from_numpy(logits), positives(sentences)))


def positives(sentences: list[int]) -> Tensor:
    return torch.from_numpy(alike(sentences))


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float64)


def by_hand(logits: NDArray[np.float64], sentences: list[int]) -> float:
    """L_out of SupCon, both ways: the mean over a row's positives of -log p."""
    total = 0.0
    for scores in (logits, logits.T):
        probabilities = log_softmax(scores)
        for row, sentence in enumerate(sentences):
            right = [column for column, other in enumerate(sentences) if other == sentence]
            total -= probabilities[row, right].mean() / len(sentences) / 2
    return total


# ---------------------------------------------------------------- the formula


@given(SENTENCES, SCALE, st.integers(0, 999))
def test_the_loss_is_the_formulas(sentences: list[int], scale: float, seed: int) -> None:
    logits = drawn(len(sentences), scale, seed)

    assert loss_of(logits, sentences) == pytest.approx(
        by_hand(logits.astype(np.float64), sentences), rel=2e-5, abs=1e-6
    )


@given(SENTENCES, SCALE, st.integers(0, 999))
def test_the_gradient_is_the_formulas(sentences: list[int], scale: float, seed: int) -> None:
    logits = drawn(len(sentences), scale, seed)
    leaf = torch.from_numpy(logits).requires_grad_()

    multi_positive_info_nce(leaf, positives(sentences)).backward()

    # d/dx of cross-entropy: softmax less target, a mean over rows, half of either direction.
    target = alike(sentences) / alike(sentences).sum(axis=1, keepdims=True)
    wide = logits.astype(np.float64)
    rows, columns = np.exp(log_softmax(wide)), np.exp(log_softmax(wide.T))
    expected = ((rows - target) + (columns - target).T) / (2 * len(sentences))
    assert leaf.grad is not None
    assert np.allclose(leaf.grad.numpy(), expected, atol=1e-6)


def test_the_gradient_agrees_with_finite_differences() -> None:
    sentences = [0, 1, 0, 2]
    wide = drawn(4, 3.0, 1).astype(np.float64)
    leaf = torch.from_numpy(wide.astype(np.float32)).requires_grad_()

    multi_positive_info_nce(leaf, positives(sentences)).backward()

    assert leaf.grad is not None
    for place in np.ndindex(4, 4):
        step = np.zeros((4, 4))
        step[place] = 1e-5
        slope = (by_hand(wide + step, sentences) - by_hand(wide - step, sentences)) / 2e-5
        assert float(leaf.grad[place]) == pytest.approx(slope, abs=1e-6)


@given(st.integers(1, 64), st.floats(-50, 50))
def test_equal_logits_and_distinct_sentences_cost_ln_b(size: int, level: float) -> None:
    logits = np.full((size, size), level, np.float32)

    assert loss_of(logits, list(range(size))) == pytest.approx(math.log(size), abs=1e-5)


@given(SENTENCES, st.integers(0, 999), st.randoms(use_true_random=False))
def test_the_order_of_the_batch_does_not_matter(
    sentences: list[int], seed: int, random: object
) -> None:
    logits = drawn(len(sentences), 14.0, seed)
    order = np.random.default_rng(seed).permutation(len(sentences))

    shuffled = loss_of(logits[order][:, order], [sentences[i] for i in order])

    assert shuffled == pytest.approx(loss_of(logits, sentences), rel=1e-5, abs=1e-6)


@given(SENTENCES, st.integers(0, 999))
def test_images_and_sentences_are_treated_alike(sentences: list[int], seed: int) -> None:
    logits = drawn(len(sentences), 14.0, seed)

    turned = loss_of(np.ascontiguousarray(logits.T), sentences)

    assert turned == pytest.approx(loss_of(logits, sentences), rel=1e-5, abs=1e-6)


def test_frames_of_one_sentence_are_not_pushed_apart() -> None:
    leaf = torch.zeros(4, 4, requires_grad=True)

    multi_positive_info_nce(leaf, positives([7, 7, 8, 9])).backward()

    assert leaf.grad is not None
    assert leaf.grad[0, 1] < 0  # the loss falls as the other frame's equal sentence comes closer
    assert leaf.grad[0, 2] > 0


def test_large_logits_do_not_overflow() -> None:
    logits = 100 * (2 * torch.eye(5) - 1)

    assert multi_positive_info_nce(logits, torch.eye(5, dtype=torch.bool)) < 1e-6
    assert float(multi_positive_info_nce(-logits, torch.eye(5, dtype=torch.bool))) == pytest.approx(
        200 + math.log(4), rel=1e-5
    )


# ---------------------------------------------------------------- the objective


def test_the_whole_objective_is_the_formula_on_cosines() -> None:
    network, made = model(), batch(8)
    made.task = torch.tensor([0, 1, 0, 2, 3, 3, 4, 5])

    outcome = ImageText(ImageTextConfig(), network)(made)

    with torch.no_grad():
        assert network.joint is not None
        assert network.text is not None
        image = network.joint.image(network.vision(made.earlier).pooled).double().numpy()
        text = network.joint.text(network.text(made.ids, made.ids_seen).pooled).double().numpy()
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    expected = by_hand(image @ text.T / 0.07, made.task.tolist())
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-4)
    assert outcome.loss.dtype == torch.float32
    assert float(outcome.metrics["scale"]) == pytest.approx(1 / 0.07)


def test_frames_before_a_share_of_their_episode_do_not_count() -> None:
    network, made = model(), batch(8)
    late = ImageText(ImageTextConfig(after=0.5), network)

    before = late(made).loss
    made.earlier[:4] += 9.0  # progress is 0, 1/7 … 3/7 there
    made._image = None
    after = late(made).loss

    assert torch.equal(before, after)
    assert not torch.equal(ImageText(ImageTextConfig(), network)(made).loss, after)


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_a_batch_without_late_frames_teaches_nothing_and_ends_no_run(autocast: bool) -> None:
    network, made = model(), batch(4, progress=torch.zeros(4))

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outcome = ImageText(ImageTextConfig(after=0.9), network)(made)
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
    objective = ImageText(ImageTextConfig(), network)

    made.task = torch.zeros(6, dtype=torch.long)
    alike_ = objective(made).metrics["accuracy"]

    assert float(alike_) == 1
    assert not alike_.requires_grad


def test_after_a_step_the_scale_is_at_most_a_hundred() -> None:
    network = model()
    objective = ImageText(ImageTextConfig(), network)
    assert network.joint is not None
    scale = network.joint.log_scale

    for before, after in ((9.0, math.log(100)), (2.0, 2.0), (-3.0, -3.0)):
        scale.data.fill_(before)
        objective.after_step()
        assert scale.item() == pytest.approx(after)
    assert scale.requires_grad


def test_the_scale_is_learnt() -> None:
    network = model()

    ImageText(ImageTextConfig(), network)(batch()).loss.backward()

    assert network.joint is not None
    assert network.joint.log_scale.grad is not None
    assert float(network.joint.log_scale.grad) != 0


def test_bfloat16_does_not_reach_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    whole = Joint.logits

    def logits(self: Joint, cosine: Tensor) -> Tensor:
        seen.append(cosine)
        found = whole(self, cosine)
        seen.append(found)
        return found

    monkeypatch.setattr(Joint, "logits", logits)
    with torch.autocast("cpu", torch.bfloat16):
        outcome = ImageText(ImageTextConfig(), model())(batch())

    assert outcome.loss.dtype == torch.float32
    for tensor in seen:
        assert tensor.dtype == torch.float32
        # A float32 product has digits that bfloat16 could not have kept.
        assert not torch.equal(tensor, tensor.bfloat16().float())


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
        given._image = VisionOutput(pooled=pooled, tokens=pooled)
        given._text = TextOutput(pooled=words, tokens=words)
        network.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            outcome = ImageText(ImageTextConfig(), network)(given)
        outcome.loss.backward()
        gradients.append([p.grad.clone() for p in network.joint.parameters() if p.grad is not None])

    for exact, found in zip(*gradients, strict=True):
        assert_close(found, exact, rtol=1e-5, atol=1e-7)


def test_without_a_joint_space_there_is_no_such_objective() -> None:
    with pytest.raises(ValueError, match=r"image_text needs a joint space \(model\.joint\)"):
        ImageText(ImageTextConfig(), model(joint=None))
