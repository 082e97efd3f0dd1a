"""BEiT: codes of hidden patches, of which the trunk sees nothing."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from tests.bundles import IMAGES
from tests.training.tiny import batch, image_tokenizer, model
from torch import Tensor

from tectum_core.model import PerceptionModel
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.image_tokenizer import FILE
from tectum_train.masking import BlockMask, draw_masks
from tectum_train.objectives import Batch
from tectum_train.objectives.batch import Reads
from tectum_train.objectives.beit import Beit, BeitConfig

PATCH, COUNT, CODES = 8, 16, 16


def settings(**changes: Any) -> BeitConfig:
    return BeitConfig.model_validate({"tokenizer": str(image_tokenizer()), **changes})


def objective(network: PerceptionModel | None = None, **changes: Any) -> Beit:
    given = network or model()
    torch.manual_seed(0)
    return Beit(settings(**changes), given)


def hidden_of(made: Batch, ratio: float = 0.4) -> Tensor:
    """The masks that the objective will draw: bool[B, N]."""
    streams = islice(made.streams("beit"), len(made))
    return draw_masks(BlockMask(), model().vision.config, ratio, made.generator, streams)


# ---------------------------------------------------------------- the loss


def test_the_loss_is_the_surprise_of_the_hidden_patches_codes() -> None:
    learnt, made = objective(), batch(4)
    hidden = hidden_of(made)
    codes = learnt.tokenizer.codes(made.earlier)[hidden].numpy()
    logits = learnt.logits(made.earlier, hidden)[hidden].detach().double().numpy()

    outcome = learnt(made)

    surprise = -log_softmax(logits, axis=1)[np.arange(len(codes)), codes]
    assert outcome.loss.item() == pytest.approx(surprise.mean(), rel=1e-5)
    right = (logits.argmax(axis=1) == codes).mean()
    assert float(outcome.metrics["accuracy"]) == pytest.approx(right)
    counts = np.bincount(codes)
    assert float(outcome.metrics["majority"]) == pytest.approx(counts.max() / counts.sum())


def test_four_tenths_are_hidden_in_blocks_unless_the_mask_says_otherwise() -> None:
    hidden: list[Tensor] = []
    three_quarters: dict[str, Any] = {"mask": {"kind": "random", "ratios": [0.75]}}
    for learnt in (objective(), objective(**three_quarters)):
        learnt.model.vision.register_forward_pre_hook(
            lambda _, __, given: hidden.append(given["replaced"].where), with_kwargs=True
        )
        learnt(batch(8))

    assert hidden[0].sum(dim=1).tolist() == [6] * 8
    assert torch.equal(hidden[0], hidden_of(batch(8)))
    assert hidden[1].sum(dim=1).tolist() == [12] * 8


def test_at_first_every_code_is_as_likely() -> None:
    outcome = objective()(batch(8))

    assert outcome.loss.item() == pytest.approx(np.log(CODES), rel=0.05)
    assert outcome.chance == pytest.approx(np.log(CODES))


def test_the_trunk_sees_nothing_of_a_hidden_patch() -> None:
    learnt, made = objective(), batch(4)
    hidden = hidden_of(made)
    covered = made.earlier.clone()
    for row, place in hidden.nonzero().tolist():
        top, left = PATCH * (place // 4), PATCH * (place % 4)
        covered[row, :, top : top + PATCH, left : left + PATCH] = 7.0

    assert torch.equal(learnt.logits(made.earlier, hidden), learnt.logits(covered, hidden))


def test_the_codes_are_those_of_whole_pictures() -> None:
    learnt, made = objective(), batch(4)

    assert torch.equal(learnt.codes(made.earlier), learnt.tokenizer.codes(made.earlier))


def test_codes_do_not_change_with_the_precision_of_the_training() -> None:
    learnt, made = objective(), batch(16)
    exact = learnt.codes(made.earlier)

    with torch.autocast("cpu", torch.bfloat16):
        rounded, careful = learnt.tokenizer.codes(made.earlier), learnt.codes(made.earlier)

    assert torch.equal(careful, exact)
    assert not torch.equal(rounded, exact)


def test_the_tokenizer_is_frozen_and_the_trunk_the_mask_and_the_head_are_not() -> None:
    learnt = objective()

    learnt(batch(8)).loss.backward()

    assert learnt.mask_token.grad is not None
    assert learnt.head.weight.grad is not None
    assert all(one.grad is not None for one in learnt.model.vision.transformer.parameters())
    assert all(one.grad is None for one in learnt.tokenizer.parameters())


def test_a_mask_by_change_reads_the_later_frame_too() -> None:
    changes: dict[str, Any] = {"mask": {"kind": "importance", "source": "change"}}

    assert settings(**changes).reads == Reads.LATER
    assert settings().reads == Reads.FRAME
    assert torch.isfinite(objective(**changes)(batch(4)).loss)


def test_only_its_share_of_the_batch_is_used() -> None:
    one, other = batch(8), batch(8)
    other.earlier[4:] += 1.0
    network = model()

    losses = [objective(network, fraction=0.5)(made).loss for made in (one, other)]

    assert torch.equal(losses[0], losses[1])


# ---------------------------------------------------------------- which tokenizer


def test_the_tokenizers_file_is_what_it_learns_from() -> None:
    assert settings().files == (str(image_tokenizer() / FILE),)


def test_a_tokenizer_that_is_not_there_is_refused_and_how_to_make_it_is_said() -> None:
    with pytest.raises(ValueError, match=r"nowhere/.* is not there.* image-tokenizer-small"):
        objective(tokenizer="/nowhere")


def test_a_tokenizer_of_other_patches_is_refused() -> None:
    other = str(image_tokenizer(patch_size=4))

    with pytest.raises(ValueError, match="names patches of 4 pixels in pictures of 32; model"):
        objective(tokenizer=other)


def test_a_tokenizer_of_pictures_made_otherwise_is_refused() -> None:
    learnt, brighter = objective(), ImagePreprocessing(size=32, mean=(0.1, 0.5, 0.5))

    learnt.check(IMAGES)
    with pytest.raises(ValueError, match=r"made otherwise: mean \(0\.5, 0\.5, 0\.5\) there"):
        learnt.check(brighter)


def test_a_tube_is_no_mask_of_single_images() -> None:
    with pytest.raises(ValueError, match="tube"):
        objective(mask={"kind": "tube"})
