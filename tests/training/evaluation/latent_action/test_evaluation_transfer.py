"""A latent action in other scenes, and codes in use: oracles pass, and cheats and sleepers fail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.training.evaluation.hand import scenes
from tests.training.evaluation.scene import context
from torch import Tensor

from tectum_core.architecture import ContinuousBottleneck, FsqBottleneck, VqBottleneck
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.evaluation.latent_action import latent_codes
from tectum_train.evaluation.latent_action.latent_codes import measure_latent_codes
from tectum_train.evaluation.latent_action.transfer import measure_transfer
from tectum_train.evaluation.measuring.context import Context
from tectum_train.evaluation.measuring.pairs import Pairs, draw_pairs

PASTED = "the pair's difference, pasted, PCA of z's width"

# ---------------------------------------------------------------- in another scene


class Dynamics:
    """Z is how a pixel changes that tells the hand's place; painted as often as told."""

    def __init__(self, painted: float, *, hidden: bool = False, width: int = 1) -> None:
        bottleneck = ContinuousBottleneck(width=width)
        self.config = SimpleNamespace(predicts_from_trunk=False, bottleneck=bottleneck)
        self.painted, self.hidden = painted, hidden

    def frames(self, pixels: Tensor) -> Tensor:
        return pixels

    def target(self, frame: Tensor, tokens: None) -> Tensor:
        return frame

    def infer(self, before: Tensor, after: Tensor, trunk: None) -> Any:
        return SimpleNamespace(vectors=(after - before)[:, None, :, 1, 1])

    def predict(self, before: Tensor, z: Tensor, tokens: None) -> Tensor:
        found = before.clone()
        place = (0, 1) if self.hidden else (1, 1)
        found[:, :, place[0], place[1]] += self.painted * z[:, 0]
        return found


def carried(dynamics: Any) -> Any:
    train, test = scenes()
    predictor = SimpleNamespace(
        model=SimpleNamespace(latent_action=dynamics),
        config=SimpleNamespace(images=ImagePreprocessing(size=2)),
        device=torch.device("cpu"),
    )
    given = context(train, test, predictor=predictor)
    (found,) = measure_transfer(given, *pairs_of(given))
    return found


def pairs_of(given: Context) -> tuple[Pairs, Pairs]:
    train = draw_pairs(given, given.train, 10_000, "training pairs")
    return train, draw_pairs(given, given.test, 10_000, "test pairs")


def test_what_moves_alike_in_every_scene_passes() -> None:
    found = carried(Dynamics(1.0))

    assert found.value > 0.99
    assert found.controls["true frames, the same probe"] > 0.99
    assert found.controls["z in its own scene"] > 0.99
    assert abs(found.controls["shuffled z"]) < 0.3
    assert found.controls[PASTED] < 0.9
    assert found.passed is True
    assert "pairs of 25 episodes" in found.on


@pytest.mark.parametrize(
    "dynamics",
    [Dynamics(0.0), Dynamics(-1.0), Dynamics(1.0, hidden=True)],
    ids=["still", "the other way", "where true frames never change"],
)
def test_what_paints_no_such_motion_fails(dynamics: Any) -> None:
    assert carried(dynamics).passed is False


def test_a_latent_as_wide_as_the_picture_is_no_better_than_its_difference_pasted() -> None:
    found = carried(Dynamics(1.0, width=12))

    assert found.controls[PASTED] == found.controls["true frames, the same probe"]
    assert found.value > 0.99
    assert found.passed is False


def test_without_latent_actions_nothing_is_carried_over() -> None:
    train, test = scenes()
    without = SimpleNamespace(model=SimpleNamespace(latent_action=None))

    given = context(train, test, predictor=without)
    assert measure_transfer(given, *pairs_of(given)) == []
    assert measure_latent_codes(given, pairs_of(given)[1]) == []


# ---------------------------------------------------------------- codes


class Says:
    """Says codes by their shares."""

    def __init__(self, bottleneck: Any, *shares: float) -> None:
        config = SimpleNamespace(bottleneck=bottleneck)
        self.model = SimpleNamespace(latent_action=SimpleNamespace(config=config))
        self.shares = np.array(shares) / sum(shares)
        self.draw = np.random.default_rng(0)

    def latent_actions(self, earlier: list[NDArray[np.uint8]], later: Any) -> Any:
        codes = self.draw.choice(len(self.shares), size=(len(earlier), 4), p=self.shares)
        return SimpleNamespace(codes=codes)


EIGHT = VqBottleneck(codes=4, codebook_size=8)


def codes_of(*shares: float, bottleneck: Any = EIGHT) -> Any:
    train, test = scenes()
    asked, twin = Says(bottleneck, *shares), Says(bottleneck, 1.0)
    given = context(train, test, predictor=asked, twin=twin)
    return measure_latent_codes(given, pairs_of(given)[1])


def test_a_codebook_of_which_half_is_said_alike_passes() -> None:
    used, varied = codes_of(1, 1, 1, 1)

    assert (used.name, used.value, used.passed) == ("latent action, codes in use of 8", 4, True)
    assert varied.value == pytest.approx(4, rel=0.02)
    assert varied.passed is True
    assert used.controls == {"random init": 1.0, "codes that so many pairs can fill": 8.0}
    assert used.on == "1000 codes of 25 episodes"


def test_codes_that_are_said_once_in_a_while_do_not_count() -> None:
    used, varied = codes_of(1, 1, 1, 0.01, 0.01, 0.01, 0.01, 0.01)

    assert (used.value, used.passed) == (3, False)
    assert varied.passed is True


def test_many_codes_of_which_one_is_said_nearly_always_are_hardly_varied() -> None:
    used, varied = codes_of(1, *[0.02] * 7)

    assert (used.passed, varied.passed) == (True, False)


def test_a_large_codebook_is_held_to_what_the_pairs_can_fill() -> None:
    used, _ = codes_of(*[1] * 60, bottleneck=FsqBottleneck(codes=4, levels=(5, 5, 5, 5)))

    assert used.controls["codes that so many pairs can fill"] == 100
    assert (used.value, used.passed) == (60, True)


def test_a_continuous_latent_has_no_codes_to_use() -> None:
    assert codes_of(1, bottleneck=ContinuousBottleneck()) == []
    assert latent_codes._in_use(torch.zeros(4)) == 0
