"""Latent actions: the camera's frame, honest controls, and an oracle that passes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.evaluation.hand import numbers, scenes, wandering
from tests.training.evaluation.scene import context
from torch import Tensor

from tectum_core.architecture import ContinuousBottleneck, VqBottleneck
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.data.samples import Samples
from tectum_train.evaluation.latent_action import latent
from tectum_train.evaluation.latent_action.latent import measure_latent_actions
from tectum_train.evaluation.measuring.context import Context, NothingToMeasure, of_others
from tectum_train.evaluation.measuring.pairs import Pairs, draw_pairs

# ---------------------------------------------------------------- the shuffled control


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=40).filter(lambda groups: len(set(groups)) > 1)
)
def test_another_is_always_of_another_group(groups: list[int]) -> None:
    array = np.array(groups)

    chosen = of_others(array, np.random.default_rng(0))

    assert not (array[chosen] == array).any()


def test_where_there_is_no_other_nothing_is_shuffled() -> None:
    with pytest.raises(NothingToMeasure, match="no other to shuffle with"):
        of_others(np.zeros(5, np.int64), np.random.default_rng(0))


def test_shuffled_pairs_end_in_other_episodes_and_keep_their_beginning() -> None:
    samples = wandering()
    pairs = draw_pairs(context(samples, samples), samples, 1000, "")

    shuffled = latent._shuffled(pairs, np.random.default_rng(3))

    ends = samples.episode[numbers(shuffled.later)]
    assert not (ends == pairs.episode).any()
    assert np.array_equal(shuffled.earlier, pairs.earlier)
    assert np.array_equal(shuffled.moved, pairs.moved)
    assert len(set(ends)) > 1


# ---------------------------------------------------------------- the measure


class Oracle:
    """Reads the hand's place out of the pixels; only their difference becomes z."""

    def __init__(self) -> None:
        config = SimpleNamespace(target="pixels", bottleneck=ContinuousBottleneck(width=3))
        self.model = SimpleNamespace(latent_action=SimpleNamespace(config=config))

    def embed_images(self, images: list[Any], vector: str) -> NDArray[np.float32]:
        """Tokens that say nothing: what matters here lies in the pixels."""
        assert vector == "tokens"
        return np.zeros((len(images), 2, 2), np.float32)

    def latent_actions(self, earlier: list[Any], later: list[Any]) -> Any:
        places = [np.stack(frames)[:, 1, 1].astype(np.float64) for frames in (earlier, later)]
        return SimpleNamespace(vectors=(places[1] - places[0]).astype(np.float32))


class Guesser(Oracle):
    """Z has nothing to do with the frames."""

    def latent_actions(self, earlier: list[Any], later: list[Any]) -> Any:
        drawn = np.random.default_rng(len(earlier)).normal(size=(len(earlier), 3))
        return SimpleNamespace(vectors=drawn.astype(np.float32))


class Foreseer(Oracle):
    """Its trunk tokens, or its z of a still pair, say where the hand will go."""

    def __init__(self, samples: tuple[Samples, ...], *, by_tokens: bool, by_still: bool) -> None:
        super().__init__()
        self.by_tokens, self.by_still = by_tokens, by_still
        self.ways = {}
        for one in samples:
            hand = one.column("state")[:, :3].astype(np.float32)
            following = np.minimum(np.arange(len(one)) + 2, len(one) - 1)
            for frame, way in zip(one.frames, hand[following] - hand, strict=True):
                self.ways[frame.tobytes()] = way

    def embed_images(self, images: list[Any], vector: str) -> NDArray[np.float32]:
        if not self.by_tokens:
            return super().embed_images(images, vector)
        return np.stack([self.ways[image.tobytes()] for image in images])[:, None]

    def latent_actions(self, earlier: list[Any], later: list[Any]) -> Any:
        still = all(np.array_equal(*pair) for pair in zip(earlier, later, strict=True))
        if still and self.by_still:
            ways = np.stack([self.ways[image.tobytes()] for image in earlier])
            return SimpleNamespace(vectors=ways)
        return super().latent_actions(earlier, later)


def measured(predictor: Oracle, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is said of a predictor that also predicts the next frame well."""
    monkeypatch.setattr(
        latent, "_prediction_error", lambda *_: {"model": 0.2, "shuffled": 1.4, "copy": 1.0}
    )
    for name in ("measure_latent_codes", "measure_transfer"):  # which have tests of their own
        monkeypatch.setattr(latent, name, lambda *_: [])
    # Short steps and a long way: where the hand is says little about where it goes.
    train, test = scenes()
    given_: Context = context(train, test, predictor=predictor, twin=Guesser())
    return measure_latent_actions(given_)


def test_an_oracle_knows_the_motion_and_its_controls_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plane, right, down, depth, frame, *few = measured(Oracle(), monkeypatch)

    assert plane.value > 0.99
    assert min(right.value, down.value, depth.value) > 0.99
    # Two steps of a data set of 80 frames a second; 25 episodes of twelve frames.
    assert plane.name == "latent action (3) over 0.025 s → hand in plane, R²"
    for measure, axis in ((right, "right"), (down, "down"), (depth, "depth")):
        assert measure.name.endswith(f"→ hand, {axis}, R²")
    assert plane.on == "250 pairs of 25 episodes"
    assert plane.controls["shuffled o_t+1, refitted"] == pytest.approx(0, abs=0.1)
    alone = [value for name, value in plane.controls.items() if name.startswith("o_t alone")]
    assert len(alone) == 3
    assert max(alone) < 0.3
    assert plane.controls["random init"] < 0.1
    # In this scene pixels tell the motion linearly, so the oracle is no better than their PCA.
    assert plane.controls["frame-difference PCA-256"] > 0.99
    assert plane.passed is False
    assert (frame.value, frame.passed) == (0.2, True)
    assert frame.name == "latent action, next frame's error ÷ copying"
    assert frame.controls == {"shuffled z": 1.4}
    assert [one.name.rpartition("→")[2] for one in few] == [
        f" hand in plane from {share} of the labels, R²" for share in ("2.5%", "10.0%", "100.0%")
    ]
    assert few[-1].value == pytest.approx(plane.value)
    for name, value in few[-1].controls.items():
        assert value == pytest.approx(plane.controls[name], abs=1e-3)


def test_tokens_that_are_predicted_are_called_so_and_judged_by_their_own_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    oracle = Oracle()
    oracle.model.latent_action.config.target = "latents"

    frame = measured(oracle, monkeypatch)[4]

    assert frame.name == "latent action, error of the next frame's trunk tokens ÷ copying"
    assert (frame.value, frame.passed) == (0.2, True)
    assert frame.gate == "below 1 and shuffled z, each by ≥ 1%"


def test_codes_are_held_to_as_many_components_as_their_vectors_have_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    oracle, coded = Oracle(), Oracle()
    coded.model.latent_action.config.bottleneck = VqBottleneck(codes=1)

    whole, one = (measured(predictor, monkeypatch)[0].controls for predictor in (oracle, coded))

    name = "frame-difference PCA, z's width"
    assert one[name] == whole[name]


@pytest.mark.parametrize(
    ("by_tokens", "by_still", "told"),
    [(True, False, "trunk tokens PCA-256"), (False, True, "z of a still pair")],
)
def test_what_the_models_own_reading_of_one_frame_tells_is_a_control(
    by_tokens: bool, by_still: bool, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreseer = Foreseer(scenes(), by_tokens=by_tokens, by_still=by_still)

    plane, *_ = measured(foreseer, monkeypatch)

    alone = {k: v for k, v in plane.controls.items() if k.startswith("o_t alone")}
    assert alone.pop(f"o_t alone, {told}") > 0.9
    assert len(alone) == 2
    assert max(alone.values()) < 0.3


def test_components_are_the_same_whether_or_not_all_fits_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples = wandering((12,) * 25, turned=False)
    pairs = draw_pairs(context(samples, samples), samples, 1000, "")

    def spread(read: Any) -> NDArray[np.float64]:
        seen, asked = latent._principal(read, pairs, pairs)
        assert np.allclose(seen, asked, atol=1e-5)
        return np.asarray(np.square(seen).sum(axis=0))

    whole = spread(latent._change)
    monkeypatch.setattr(latent, "_FLOATS", 100 * 12)
    monkeypatch.setattr(latent, "_COMPONENTS", 64)
    parts = spread(latent._change)

    assert parts.shape == whole.shape
    assert parts.sum() == pytest.approx(whole.sum(), rel=1e-3)


def test_a_guesser_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    plane, *_ = measured(Guesser(), monkeypatch)

    assert plane.value < 0.1
    assert plane.passed is False


# ---------------------------------------------------------------- the next frame


class Dynamics:
    """Z is the change, all of it; forward dynamics paints as much of it as it is told to."""

    config = SimpleNamespace(predicts_from_trunk=False)

    def __init__(self, painted: float) -> None:
        self.painted = painted

    def frames(self, pixels: Tensor) -> Tensor:
        return pixels

    def target(self, frame: Tensor, tokens: None) -> Tensor:
        return frame

    def infer(self, before: Tensor, after: Tensor, trunk: None) -> Any:
        return SimpleNamespace(vectors=after - before)

    def predict(self, before: Tensor, z: Tensor, trunk: None) -> Tensor:
        return before + self.painted * z


def next_frame(painted: float, length: int = 10) -> dict[str, float]:
    """Errors over frames that grow brighter in every other episode and darker in the rest."""
    earlier = np.full((600, 4, 4, 3), 100, np.uint8)
    episode = np.arange(600) // length
    brighter = (episode % 2 == 0)[:, None, None, None]
    later = np.where(brighter, earlier + 50, earlier - 50).astype(np.uint8)
    predictor = SimpleNamespace(
        model=SimpleNamespace(latent_action=Dynamics(painted)),
        config=SimpleNamespace(images=ImagePreprocessing(size=4)),
        device=torch.device("cpu"),
    )
    index = np.arange(600)
    pairs = Pairs(np.concatenate([earlier, later]), index, 600 + index, np.zeros((600, 3)), episode)
    strangers = of_others(episode, np.random.default_rng(0))
    return latent._prediction_error(cast("Predictor", predictor), pairs, strangers)


@pytest.mark.parametrize(
    ("painted", "error"), [(1.0, 0.0), (0.5, 0.25), (0.0, 1.0), (2.0, 1.0), (-1.0, 4.0)]
)
def test_the_next_frames_error_is_a_share_of_copying_the_earlier_one(
    painted: float, error: float
) -> None:
    found = next_frame(painted)

    assert found["model"] == pytest.approx(error, abs=1e-5)
    assert found["copy"] == 1


def test_z_of_another_episode_paints_another_change() -> None:
    found = next_frame(1.0)

    # Half of the strangers go the other way, and then the error is twice the change.
    assert found["shuffled"] == pytest.approx(4 / 2, abs=0.4)
    assert next_frame(0.0)["shuffled"] == 1


def test_a_stranger_may_be_of_any_batch() -> None:
    # Batches of one episode each: within them there is no other.
    assert next_frame(1.0, length=latent._BATCH)["shuffled"] > 1


# ---------------------------------------------------------------- what is left


def test_a_bundle_without_latent_actions_is_not_measured() -> None:
    samples = wandering()
    without = SimpleNamespace(model=SimpleNamespace(latent_action=None))

    assert measure_latent_actions(context(samples, samples, predictor=without)) == []
