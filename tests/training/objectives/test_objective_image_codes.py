"""Image codes: pixels painted from codes, and a codebook that follows after each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.bundles import IMAGES
from tests.training.tiny import batch, code_shape, model

from tectum_core.model import patchify
from tectum_train.image_tokenizer import FILE, read_image_tokenizer
from tectum_train.objectives.image_codes import ImageCodes, ImageCodesConfig

PATCH, CODES = 8, 16


def objective(seed: int = 0, **changes: Any) -> ImageCodes:
    network = model(seed)
    torch.manual_seed(seed)
    return ImageCodes(ImageCodesConfig.model_validate({**code_shape(), **changes}), network)


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("weight", [0.0, 0.25, 2.0])
def test_the_loss_is_the_pixels_error_and_the_weighted_commitment(weight: float) -> None:
    learnt, made = objective(commitment=weight), batch(4)
    tokenizer = learnt.tokenizer
    vectors = tokenizer.encode(made.earlier).detach().double()
    codes = torch.cdist(vectors, tokenizer.codebook.vectors.double()).argmin(dim=-1)
    quantised = tokenizer.codebook.vectors[codes]

    outcome = learnt(made)

    true = patchify(made.earlier, PATCH).double()
    pixels = (tokenizer.decode(quantised).double() - true).square().mean().item()
    kept = (vectors - quantised).square().mean().item()
    assert outcome.loss.item() == pytest.approx(pixels + weight * kept, rel=1e-5)
    assert float(outcome.metrics["pixels"]) == pytest.approx(pixels, rel=1e-5)
    assert float(outcome.metrics["commitment"]) == pytest.approx(kept, rel=1e-5)
    mean = (true - true.mean(dim=0)).square().mean().item()
    assert float(outcome.metrics["relative"]) == pytest.approx(pixels / mean, rel=1e-5)


def test_the_trunk_hears_of_the_pixels_through_the_codes_and_of_the_commitment() -> None:
    gradients = {}
    for weight in (0.0, 0.25):
        learnt = objective(commitment=weight)
        learnt(batch(4)).loss.backward()
        gradients[weight] = learnt.tokenizer.to_code.weight.grad

    assert gradients[0.0] is not None
    assert gradients[0.25] is not None
    assert bool(gradients[0.0].any())
    assert not torch.equal(gradients[0.0], gradients[0.25])


def test_usage_and_perplexity_are_the_batchs() -> None:
    learnt = objective()
    learnt.tokenizer.codebook.vectors.fill_(1e3)
    learnt.tokenizer.codebook.vectors[5] = 0.0  # everybody's nearest

    metrics = learnt(batch(4)).metrics

    assert float(metrics["usage"]) == pytest.approx(1 / CODES)
    assert float(metrics["perplexity"]) == pytest.approx(1)


# ---------------------------------------------------------------- the codebook


def test_the_codebook_follows_after_the_step_and_not_before() -> None:
    learnt = objective()
    before = learnt.tokenizer.codebook.vectors.clone()

    one, two = (learnt(batch(8)).loss.item() for _ in range(2))
    assert torch.equal(learnt.tokenizer.codebook.vectors, before)
    learnt.after_step()

    assert one == two
    assert not torch.equal(learnt.tokenizer.codebook.vectors, before)
    assert int(learnt.tokenizer.codebook.steps) == 1


def test_a_step_without_a_batch_leaves_the_codebook_as_it_is() -> None:
    learnt = objective()
    learnt(batch(8))
    learnt.after_step()
    before = learnt.tokenizer.codebook.vectors.clone()

    learnt.after_step()

    assert torch.equal(learnt.tokenizer.codebook.vectors, before)
    assert int(learnt.tokenizer.codebook.steps) == 1


def test_parts_of_a_batch_move_the_codebook_as_the_whole_does() -> None:
    whole, parts = objective(), objective()

    whole(batch(8))
    for start in (0, 1):
        parts(batch(8).part(start, 8, 2))
    for learnt in (whole, parts):
        learnt.after_step()

    torch.testing.assert_close(whole.tokenizer.codebook.vectors, parts.tokenizer.codebook.vectors)


def test_most_codes_are_in_use_soon() -> None:
    learnt = objective(decay=0.9)
    for seed in range(5):
        learnt(batch(16, seed=seed))
        learnt.after_step()

    metrics = learnt(batch(16, seed=9)).metrics

    assert float(metrics["usage"]) > 0.7
    assert float(metrics["perplexity"]) > CODES / 3


@pytest.mark.parametrize("below", [0.0, 1.0])
def test_redrawing_cannot_be_switched_off(below: float) -> None:
    with pytest.raises(ValidationError, match="restart_below"):
        ImageCodesConfig.model_validate(code_shape(restart_below=below))


# ---------------------------------------------------------------- what it leaves


def test_a_finished_run_leaves_its_tokenizer(tmp_path: Path) -> None:
    learnt, pixels = objective(), batch(4).earlier
    learnt(batch(8))
    learnt.after_step()

    learnt.leave(tmp_path, IMAGES)

    read, config = read_image_tokenizer(tmp_path / FILE)
    assert torch.equal(read.codes(pixels), learnt.tokenizer.codes(pixels))
    assert config.shape == learnt.config.shape


def test_only_its_share_of_the_batch_is_used() -> None:
    one, other = batch(8), batch(8)
    other.earlier[4:] += 1.0

    losses = [objective(fraction=0.5)(made).loss for made in (one, other)]

    assert torch.equal(losses[0], losses[1])
