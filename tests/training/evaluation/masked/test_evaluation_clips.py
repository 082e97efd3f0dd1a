"""Masked clips: against the mean, another clip, and copying what is visible or what is not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.evaluation.scene import FPS, context, recorded
from torch import Generator, Tensor

from tectum_core.architecture import TransformerConfig, VisionConfig
from tectum_core.masks import random_mask, tube_mask
from tectum_core.model import patchify
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.data.samples import Samples
from tectum_train.evaluation.masked.clips import measure_masked_clips, nearest_visible
from tectum_train.evaluation.measuring.context import NothingToMeasure
from tectum_train.evaluation.measuring.measure import Measure

IMAGES = ImagePreprocessing(size=8, mean=(0.5,) * 3, standard_deviation=(0.5,) * 3)
SHAPE = VisionConfig(
    transformer=TransformerConfig(width=4, depth=1, heads=1, hidden=4), image_size=8, patch_size=2,
    frames=4, tubelet_frames=2, frame_interval=2 / FPS,
)  # fmt: skip
STEPS, PLACES = 2, 16
BLACK, WHITE = 0, 255
"""-1 and 1, as the model sees them."""
Rule = Callable[[Tensor, Tensor], Tensor]


class Trunk:
    """Sees tubelets as they are."""

    config = SHAPE

    def __call__(self, clips: Tensor, keep: Tensor) -> Any:
        patches = patchify(clips, 2, 2)
        places = keep[:, :, None].expand(-1, -1, patches.shape[2])
        return SimpleNamespace(tokens=patches.gather(1, places))


class Decoder:
    """Paints all tubelets by a rule, float[B, K, X] and int64[B, K] to float[B, N, X]."""

    config = SimpleNamespace(mask_ratio=0.75)

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def target(self, patches: Tensor) -> Any:
        return SimpleNamespace(values=patches)

    def __call__(self, visible: Tensor, keep: Tensor) -> Any:
        assert visible.shape[1] == STEPS * PLACES // 4
        assert torch.equal(keep[:, PLACES // 4 :], keep[:, : PLACES // 4] + PLACES)
        said = self.rule(visible, keep)
        return SimpleNamespace(values=said.expand(-1, STEPS * PLACES, -1))


def painted(rule: Rule, train: Samples, test: Samples | None = None) -> Measure:
    predictor = SimpleNamespace(
        model=SimpleNamespace(video=Trunk(), video_decoder=Decoder(rule)),
        config=SimpleNamespace(images=IMAGES),
        device=torch.device("cpu"),
    )
    (measure,) = measure_masked_clips(context(train, test or train, predictor=predictor))
    return measure


def colours(*of_frames: NDArray[np.int64]) -> Samples:
    """Episodes whose frames are each of one grey all over."""
    whole = np.concatenate(of_frames).astype(np.uint8)
    pictures = np.tile(whole[:, None, None, None], (1, 8, 8, 3))
    return recorded([len(one) for one in of_frames], {}, pictures)


def still(*levels: int, length: int = 20) -> Samples:
    return colours(*(np.full(length, level) for level in levels))


def colour_seen(share: float = 1.0) -> Rule:
    return lambda visible, _: share * visible.mean(dim=1, keepdim=True)


# ---------------------------------------------------------------- the measure


@pytest.mark.parametrize(("length", "clips"), [(20, 28), (30, 48)])  # in one batch, and in two
def test_who_reads_the_colour_off_the_visible_tubelets_has_no_error(
    length: int, clips: int
) -> None:
    found = painted(colour_seen(), still(BLACK, WHITE, length=length))

    assert found.value == pytest.approx(0)
    assert found.controls == {
        "mean tubelet": pytest.approx(1),
        "another clip's context": pytest.approx(4),
        "copying the nearest visible tubelet": pytest.approx(0),
        "copying the hidden tubelet from the neighbouring frames": pytest.approx(0),
    }
    assert found.passed is False  # copying is as good
    assert found.on == f"{clips} clips of 2 episodes"


def test_the_mean_tubelet_is_that_of_all_training_clips() -> None:
    found = painted(colour_seen(), still(WHITE, WHITE, length=30), still(BLACK, WHITE))

    # White is 2 from black: 4 in half of the clips and nothing in the others, where zero has 1.
    assert found.controls["mean tubelet"] == pytest.approx(2)


def test_each_clip_hides_places_of_its_own() -> None:
    kept = list[Tensor]()

    def rule(visible: Tensor, keep: Tensor) -> Tensor:
        kept.append(keep)
        return visible[:, :1]

    painted(rule, still(BLACK, WHITE))

    assert len(kept[0].unique(dim=0)) > 20


def test_clips_lie_within_their_episodes_with_the_trunks_interval() -> None:
    # Of twenty frames, fourteen begin four that are two apart; the last ones would be white.
    short = colours(np.where(np.arange(7) == 6, WHITE, 128), np.full(7, 128))

    found = painted(colour_seen(), short)

    assert found.on == "2 clips of 2 episodes"
    assert found.controls["copying the hidden tubelet from the neighbouring frames"] > 0
    with pytest.raises(NothingToMeasure, match="goes on for 6 steps"):
        painted(colour_seen(), colours(np.full(6, 0), np.full(6, 0)))


def test_frames_that_lie_otherwise_apart_say_nothing() -> None:
    train = still(BLACK, WHITE)
    train.dataset.info.fps = 70  # type: ignore[misc]

    with pytest.raises(NothingToMeasure, match=r"at 70 frames a second none are 0\.025 s apart"):
        painted(colour_seen(), train)


def test_a_model_without_a_clip_decoder_has_nothing_to_measure() -> None:
    predictor = SimpleNamespace(
        model=SimpleNamespace(video=Trunk(), video_decoder=None), device=torch.device("cpu")
    )
    samples = still(BLACK, WHITE)

    assert measure_masked_clips(context(samples, samples, predictor=predictor)) == []


def moving() -> Samples:
    """Two episodes in which places differ from each other and nothing stays as it was."""
    drawn = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3))
    return recorded([20, 20], {}, drawn.astype(np.uint8))


def test_of_noise_no_copy_is_better_than_zero_and_nothing_passes() -> None:
    found = painted(colour_seen(), moving())

    for name in (
        "copying the nearest visible tubelet",
        "copying the hidden tubelet from the neighbouring frames",
    ):
        assert found.controls[name] == pytest.approx(2, rel=0.2)
    assert found.passed is False


def test_what_stands_still_is_copied_from_the_neighbour_and_not_from_what_is_visible() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8, 3)).astype(np.uint8)
    frames = np.concatenate([one.repeat(20, axis=0) for one in picture])

    found = painted(colour_seen(0.0), recorded([20, 20], {}, frames))

    assert found.controls["copying the hidden tubelet from the neighbouring frames"] == 0
    assert found.controls["copying the nearest visible tubelet"] > 1


# ---------------------------------------------------------------- the nearest visible


@given(st.integers(1, 4), st.integers(2, 5), st.floats(0.1, 0.9), st.integers(0, 2**32))
def test_what_is_nearest_is_visible_and_a_visible_tubelet_is_its_own(
    steps: int, grid: int, ratio: float, seed: int
) -> None:
    hidden = random_mask(steps * grid**2, ratio, Generator().manual_seed(seed))[None]

    found = nearest_visible(hidden, steps, grid)[0]

    assert not bool(hidden[0, found].any())
    own = torch.arange(steps * grid**2)
    assert torch.equal(found[~hidden[0]], own[~hidden[0]])


@given(st.integers(1, 4), st.integers(2, 5), st.floats(0.1, 0.9), st.integers(0, 2**32))
def test_under_a_tube_mask_it_lies_in_the_same_step(
    steps: int, grid: int, ratio: float, seed: int
) -> None:
    frame = random_mask(grid**2, ratio, Generator().manual_seed(seed))

    found = nearest_visible(tube_mask(steps, frame)[None], steps, grid)[0]

    own = torch.arange(steps * grid**2)
    assert torch.equal(found // grid**2, own // grid**2)
    rows = found % grid**2
    assert torch.equal(rows, rows[: grid**2].repeat(steps))


def test_where_the_neighbour_frame_shows_the_place_it_is_copied_from_there() -> None:
    hidden = torch.zeros(1, 3 * 4, dtype=torch.bool)
    hidden[0, [0, 4, 5]] = True  # the first place in two steps, the second in one

    found = nearest_visible(hidden, 3, 2)[0]

    assert found.tolist() == [8, 1, 2, 3, 8, 1, 6, 7, 8, 9, 10, 11]
