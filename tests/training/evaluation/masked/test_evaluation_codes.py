"""Codes: a codebook's life on held-out frames, and guesses against the commonest code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.bundles import stack, vision
from tests.training.evaluation.scene import context, recorded
from torch import Tensor
from torch.nn import functional as F

from tectum_core.model import VisionTransformer, patchify
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.data.samples import Samples
from tectum_train.evaluation.masked import codes
from tectum_train.evaluation.masked.codes import measure_image_codes, measure_masked_codes
from tectum_train.image_tokenizer import CodeShape, ImageTokenizer

IMAGES = ImagePreprocessing(size=32, mean=(0.5,) * 3, standard_deviation=(0.5,) * 3)
CODES = 4
LEVELS = (0, 85, 170, 255)
"""-1, -1/3, 1/3 and 1, as the model sees them; their places are their codes."""


def greys(*levels: int) -> Samples:
    """Episodes of ten frames, each of one grey all over."""
    whole = np.repeat(np.array(levels, np.uint8), 10)[:, None, None, None]
    return recorded([10] * len(levels), {}, np.tile(whole, (1, 32, 32, 3)))


class Grey(ImageTokenizer):
    """Codes a patch by its grey; paints the code's, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        shape = CodeShape(codes=CODES, code_width=1, decoder=stack())
        super().__init__(VisionTransformer(vision()), shape)
        self.codebook.vectors.copy_(torch.tensor([[-1.0], [-1 / 3], [1 / 3], [1.0]]))
        self.factor = factor

    def encode(self, pixels: Tensor) -> Tensor:
        return patchify(pixels, 8).mean(dim=2, keepdim=True)

    def decode(self, vectors: Tensor) -> Tensor:
        return self.factor * vectors.expand(-1, -1, 192)


class Guesser:
    """Guesses the code of all that it sees, or always the same."""

    def __init__(self, always: int | None = None) -> None:
        self.tokenizer = Grey()
        self.always = always
        self.hidden: list[Tensor] = []

    def codes(self, pixels: Tensor) -> Tensor:
        return self.tokenizer.codes(pixels)

    def logits(self, pixels: Tensor, hidden: Tensor) -> Tensor:
        assert hidden.sum(dim=1).tolist() == [6] * len(pixels)
        self.hidden.append(hidden)
        codes = self.codes(pixels)
        if self.always is not None:
            codes = torch.full_like(codes, self.always)
        return F.one_hot(codes, CODES).float()


def measured(made: Any, train: Samples, test: Samples) -> Any:
    predictor = SimpleNamespace(config=SimpleNamespace(images=IMAGES), device=torch.device("cpu"))
    given = context(train, test, predictor=predictor)
    if isinstance(made, ImageTokenizer):
        return measure_image_codes(given, made)
    return measure_masked_codes(given, made)


# ---------------------------------------------------------------- the codebook


def test_a_codebook_that_names_all_greys_is_all_in_use_and_paints_them() -> None:
    used, lively, painted = measured(Grey(), greys(*LEVELS), greys(*LEVELS))

    assert (used.value, used.passed) == (1.0, True)
    assert used.on == "40 frames of 4 episodes"
    assert lively.value == pytest.approx(4)
    assert lively.controls == {"all codes alike": 4.0}
    assert painted.value == pytest.approx(0, abs=1e-6)
    assert painted.controls["another picture's codes"] > 1
    assert painted.passed is True


def test_another_pictures_codes_paint_what_they_stand_for_and_not_that_picture() -> None:
    # As the model sees them -0.69 and 0.69, which the codes -1 and 1 are nearest to.
    *_, painted = measured(Grey(), greys(40, 215), greys(40, 215))

    seen = 2 * 215 / 255 - 1
    assert painted.value == pytest.approx((1 - seen) ** 2 / seen**2, rel=1e-4)
    other = painted.controls["another picture's codes"]
    assert other == pytest.approx((1 + seen) ** 2 / seen**2, rel=1e-4)


def test_in_whichever_batches_frames_come_the_measures_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The training frame that is drawn last is of the third episode, whose grey is rare.
    given = greys(0, 0, 85, 0), greys(0, 85, 85, 255)
    whole = [*measured(Grey(0.5), *given), *measured(Guesser(), *given)]

    monkeypatch.setattr(codes, "_BATCH", 3)
    parts = [*measured(Grey(0.5), *given), *measured(Guesser(), *given)]

    for one, other in zip(whole, parts, strict=True):
        assert other.value == pytest.approx(one.value)
        assert other.controls == pytest.approx(one.controls)
        assert other.errors == pytest.approx(one.errors)


def test_frames_hide_places_of_their_own() -> None:
    guesser = Guesser()

    measured(guesser, greys(0, 85), greys(0, 85))

    assert len(torch.cat(guesser.hidden).unique(dim=0)) > 10


def test_codes_that_no_held_out_frame_has_are_not_in_use() -> None:
    used, lively, _ = measured(Grey(), greys(*LEVELS), greys(0, 0, 0, 255))

    assert (used.value, used.passed) == (0.5, False)
    assert lively.value == pytest.approx(np.exp(0.75 * np.log(4 / 3) + 0.25 * np.log(4)))


def test_painting_is_measured_against_the_training_frames_mean_patch() -> None:
    *_, painted = measured(Grey(factor=0.0), greys(0, 255), greys(0, 255))
    *_, darker = measured(Grey(factor=0.0), greys(0, 0), greys(0, 255))

    assert painted.value == pytest.approx(1)
    assert painted.controls == {"another picture's codes": pytest.approx(1)}
    assert painted.passed is False
    # Grey is 1 from black and from white; black, the mean now, 0 and 2: half as much, squared.
    assert darker.value == pytest.approx(1 / 2)


# ---------------------------------------------------------------- guesses


def test_who_reads_the_code_off_the_frame_is_right_and_of_another_frame_wrong() -> None:
    (found,) = measured(Guesser(), greys(0, 0, 85), greys(*[0, 85] * 4))

    assert found.value == 1
    assert found.controls["commonest code"] == 0.5
    assert 0.2 < found.controls["another image's context"] < 0.7  # half the others are alike
    assert found.errors["commonest code"] == pytest.approx(2 * (1 / 4 / 7) ** 0.5)
    assert found.passed is True
    assert found.on == "80 frames of 8 episodes"


@pytest.mark.parametrize(("always", "right"), [(0, 0.5), (1, 0.5), (2, 0.0)])
def test_who_always_says_the_same_is_no_better_than_the_commonest_code(
    always: int, right: float
) -> None:
    (found,) = measured(Guesser(always), greys(0, 0, 85), greys(0, 85))

    assert found.value == right
    assert found.controls["commonest code"] == 0.5
    assert found.controls["another image's context"] == right  # it says the same there too
    assert found.passed is False


def test_the_commonest_code_is_the_training_frames() -> None:
    (found,) = measured(Guesser(), greys(255, 255, 0), greys(0, 0, 85))

    assert found.controls["commonest code"] == 0
