"""Masked images: against what needs no understanding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.training.evaluation.scene import context, recorded
from torch import Tensor

from tectum_core.preprocess import ImagePreprocessing
from tectum_train.data.samples import Samples
from tectum_train.evaluation.masked.images import measure_masked_images, measure_told_images
from tectum_train.evaluation.measuring.context import NothingToMeasure
from tectum_train.evaluation.measuring.measure import Measure

SENTENCES = ("push the red block", "push the blue block")
PATCHES, VALUES = 16, 2 * 2 * 3
IMAGES = ImagePreprocessing(size=8, mean=(0.5,) * 3, standard_deviation=(0.5,) * 3)
BLACK, WHITE = 0, 255
"""-1 and 1, as the model sees them."""


# ---------------------------------------------------------------- images


class Trunk:
    """Sees patches as they are."""

    config = SimpleNamespace(patch_size=2, patches=PATCHES)

    def __call__(self, pixels: Tensor, keep: Tensor) -> Any:
        patches = pixels.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3)
        places = keep[:, :, None].expand(-1, -1, VALUES)
        return SimpleNamespace(tokens=patches.flatten(1, 2).gather(1, places))


class Decoder:
    """Paints all patches by a rule, float[B, K, V] and int64[B, K] to float[B, N, V]."""

    config = SimpleNamespace(mask_ratio=0.75)

    def __init__(self, rule: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.rule = rule

    def target(self, patches: Tensor) -> Any:
        return SimpleNamespace(values=patches)

    def __call__(self, visible: Tensor, keep: Tensor) -> Any:
        assert visible.shape[1] == PATCHES // 4
        return SimpleNamespace(values=self.rule(visible, keep).expand(-1, PATCHES, -1))


def pictures(*colours: int) -> Samples:
    """Episodes of twenty frames, each of one colour all over."""
    frames = np.repeat(np.array(colours, np.uint8), 20)[:, None, None, None]
    return recorded([20] * len(colours), {}, np.tile(frames, (1, 8, 8, 3)))


def noise(seed: int) -> Samples:
    """Two episodes in which no pixel says anything of another."""
    drawn = np.random.default_rng(seed).integers(0, 256, (40, 8, 8, 3))
    return recorded([20, 20], {}, drawn.astype(np.uint8))


def painted(
    rule: Callable[[Tensor, Tensor], Tensor], train: Samples, test: Samples | None = None
) -> Measure:
    predictor = SimpleNamespace(
        model=SimpleNamespace(vision=Trunk(), pixel_decoder=Decoder(rule)),
        config=SimpleNamespace(images=IMAGES),
        device=torch.device("cpu"),
    )
    (measure,) = measure_masked_images(context(train, test or train, predictor=predictor))
    return measure


def share_of_what_is_seen(share: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda visible, _: share * visible.mean(dim=1, keepdim=True)


def test_who_reads_the_colour_off_the_visible_patches_has_no_error() -> None:
    found = painted(share_of_what_is_seen(1.0), pictures(BLACK, WHITE))

    assert found.value == pytest.approx(0)
    # As far from the truth as white from black: the context was always another episode's.
    assert found.controls == {
        "mean patch": pytest.approx(1), "another image's context": pytest.approx(4),
    }  # fmt: skip
    assert found.passed is True
    assert found.on == "40 frames of 2 episodes"


@pytest.mark.parametrize(("share", "passed"), [(0.2, True), (0.15, False)])
def test_the_gate_is_at_seven_tenths_of_predicting_zero(share: float, passed: bool) -> None:
    found = painted(share_of_what_is_seen(share), pictures(BLACK, WHITE))

    assert found.value == pytest.approx((1 - share) ** 2)
    assert found.controls["another image's context"] == pytest.approx((1 + share) ** 2)
    assert found.passed is passed


def test_only_hidden_patches_count() -> None:
    def copied(visible: Tensor, keep: Tensor) -> Tensor:
        places = keep[:, :, None].expand(-1, -1, VALUES)
        return visible.new_zeros(len(visible), PATCHES, VALUES).scatter(1, places, visible)

    found = painted(copied, noise(0))

    # What is seen is right, what is hidden is zero.
    assert found.value == pytest.approx(1)
    assert found.controls["another image's context"] == pytest.approx(1)
    assert found.passed is False


def test_who_needs_no_context_does_not_pass() -> None:
    found = painted(
        lambda visible, _: torch.ones(len(visible), 1, VALUES),
        pictures(BLACK, WHITE),
        pictures(WHITE, WHITE),
    )

    assert found.value == pytest.approx(0)
    assert found.controls["mean patch"] == pytest.approx(1)
    assert found.controls["another image's context"] == pytest.approx(0)
    assert found.passed is False


def test_the_mean_patch_is_the_training_sets_and_does_not_pass() -> None:
    train, test = pictures(WHITE, WHITE, WHITE, BLACK), pictures(WHITE, WHITE)

    found = painted(lambda visible, _: torch.full((len(visible), 1, VALUES), 0.5), train, test)

    assert found.value == pytest.approx(0.25)
    assert found.controls["mean patch"] == pytest.approx(0.25)
    assert found.passed is False


# ---------------------------------------------------------------- images, told what is done


class Told:
    """Paints a picture's family exactly if told its sentence; each episode has noise of its own."""

    def __init__(self, listens: bool = True) -> None:
        self.listens = listens
        self.asked: list[tuple[NDArray[np.uint8], Tensor, str | None]] = []
        decoder = SimpleNamespace(mask_ratio=0.75)
        model = SimpleNamespace(vision=SimpleNamespace(patches=PATCHES), pixel_decoder=decoder)
        self.config = SimpleNamespace(model=model)

    def fill_images(
        self, images: Sequence[NDArray[np.uint8]], hidden: Tensor, texts: Sequence[str] | None
    ) -> Any:
        error = np.full(hidden.shape, np.nan, np.float32)
        for row, image in enumerate(images):
            text = None if texts is None else texts[row]
            self.asked.append((image, hidden[row], text))
            right = text == SENTENCES[image[0, 0, 0]]
            heard = 0.5 if text is None or not self.listens else 1.0 - right
            error[row, hidden[row].numpy()] = heard + 0.01 * image[0, 1, 0]
        return SimpleNamespace(error=error)


def scenes(*families: int) -> Samples:
    """Episodes of ten frames; a picture says its family, and the number of its episode."""
    frames = np.zeros((10 * len(families), 2, 2, 3), np.uint8)
    frames[:, 0, 0, 0] = family = np.repeat(families, 10)
    frames[:, 0, 1, 0] = np.repeat(np.arange(len(families)), 10)
    columns = {"task_family": family, "task_index": family}
    return recorded([10] * len(families), columns, frames, SENTENCES)


def told(teller: Told, samples: Samples) -> Measure:
    (measure,) = measure_told_images(context(samples, samples, predictor=teller))
    return measure


def test_who_listens_paints_better_with_the_true_instruction_and_worse_with_anothers() -> None:
    found = told(Told(), scenes(0, 1, 0, 1))

    assert found.value == pytest.approx(0.015)  # the episodes' noise, on average
    assert found.controls == {
        "shuffled instruction": pytest.approx(1.015),
        "no instruction": pytest.approx(0.515),
    }
    assert found.errors == dict.fromkeys(found.controls, pytest.approx(0, abs=1e-6))
    assert found.passed is True
    assert found.on == "40 frames of 4 episodes"


def test_who_does_not_listen_fails() -> None:
    found = told(Told(listens=False), scenes(0, 1, 0, 1))

    assert found.value == found.controls["shuffled instruction"]
    assert found.passed is False


class Misled(Told):
    """Has learnt nothing of true instructions, and is misled by others."""

    def fill_images(self, images: Sequence[Any], hidden: Tensor, texts: Any) -> Any:
        wrong = [] if texts is None else [
            text != SENTENCES[image[0, 0, 0]] for image, text in zip(images, texts, strict=True)
        ]  # fmt: skip
        filled = super().fill_images(images, hidden, None)
        filled.error += np.array(wrong or [False] * len(images))[:, None]
        return filled


def test_whom_the_true_instruction_tells_no_more_than_none_fails() -> None:
    found = told(Misled(), scenes(0, 1, 0, 1))

    assert found.value == found.controls["no instruction"]
    assert found.controls["shuffled instruction"] == pytest.approx(found.value + 1)
    assert found.passed is False


def test_the_same_patches_are_hidden_whatever_is_told() -> None:
    teller = Told()
    told(teller, scenes(0, 1))

    true, other, none = teller.asked[:20], teller.asked[20:40], teller.asked[40:]
    assert len(none) == 20
    for first, second, third in zip(true, other, none, strict=True):
        assert torch.equal(first[1], second[1])
        assert torch.equal(first[1], third[1])
        assert int(first[1].sum()) == 12
        family = first[0][0, 0, 0]
        assert (first[2], second[2], third[2]) == (SENTENCES[family], SENTENCES[1 - family], None)


class Moody(Told):
    """Listens in the first episode and does the opposite in the others."""

    def fill_images(self, images: Sequence[Any], hidden: Tensor, texts: Any) -> Any:
        filled = super().fill_images(images, hidden, texts)
        number = np.array([image[0, 1, 0] for image in images])[:, None]
        return SimpleNamespace(error=np.where(number == 0, filled.error, 1 - 0.5 * filled.error))


def test_what_differs_from_sentence_to_sentence_is_counted_by_sentences() -> None:
    found = told(Moody(), scenes(0, 1, 0, 1))

    gains = np.array([1.0 - 0.5, -0.5 - 0.5]) / 2  # of two episodes each
    assert found.controls["shuffled instruction"] - found.value == pytest.approx(gains.mean())
    spread = found.errors["shuffled instruction"]
    assert spread == pytest.approx(2 * gains.std(ddof=1) / 2**0.5)
    assert found.passed is False


def test_instructions_of_one_task_cannot_be_judged() -> None:
    with pytest.raises(NothingToMeasure, match="no other to shuffle with"):
        told(Told(), scenes(0, 0))
