"""The supervised ceiling: it finds what is there, and no bottleneck is in its way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.bundles import stack, vision
from tests.training.evaluation.scene import context, recorded
from tests.training.tiny import latent_action

from tectum_core.architecture import (
    ContinuousBottleneck,
    ConvolutionDynamicsConfig,
    FsqBottleneck,
    ModelConfig,
    TransformerDynamicsConfig,
)
from tectum_core.model import PerceptionModel
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.data.samples import Samples
from tectum_train.evaluation.latent_action import ceiling
from tectum_train.evaluation.latent_action.ceiling import Supervised, measure_ceiling
from tectum_train.evaluation.measuring.context import Context
from tectum_train.evaluation.measuring.pairs import Pairs, draw_pairs

SIDE = 16
CONVOLUTION = ConvolutionDynamicsConfig(widths=(8, 16))
ON_PIXELS = TransformerDynamicsConfig(transformer=stack(), patch_size=8)
ON_TRUNK = TransformerDynamicsConfig(transformer=stack(), source="trunk")


def glowing(seed: int, *, told: bool, metres: float = 1.0) -> Samples:
    """Pictures whose red, green and blue are the hand's place, or nothing of the kind."""
    draw = np.random.default_rng(seed)
    place = draw.uniform(0.2, 0.8, (400, 3))
    shown = place if told else draw.uniform(0.2, 0.8, (400, 3))
    frames = np.broadcast_to((shown * 255)[:, None, None], (400, SIDE, SIDE, 3)).astype(np.uint8)
    camera = np.tile(np.eye(4).reshape(-1), (400, 1))
    columns: dict[str, NDArray[Any]] = {"state": metres * place, "camera.extrinsics": camera}
    return recorded([40] * 10, columns, frames)


def found(
    monkeypatch: pytest.MonkeyPatch, *, told: bool = True, **changes: Any
) -> NDArray[np.float64]:
    """Of the three directions, what the network that sees both frames tells."""
    return Supervised().whole(scenes(monkeypatch, told=told, **changes))


def scenes(monkeypatch: pytest.MonkeyPatch, *, told: bool, **changes: Any) -> Context:
    monkeypatch.setattr(ceiling, "_STEPS", 200)
    monkeypatch.setattr(ceiling, "_FEW_STEPS", 100)
    monkeypatch.setattr(ceiling, "_BATCH", 32)
    module = latent_action(**{"dynamics": CONVOLUTION, "decoded_steps": 0, **changes})
    trunk = vision(image_size=SIDE, patch_size=4)
    model = ModelConfig.model_validate({"vision": trunk, "latent_action": module})
    predictor = SimpleNamespace(
        config=SimpleNamespace(model=model, images=ImagePreprocessing(size=SIDE)),
        device=torch.device("cpu"),
    )
    return context(*(glowing(seed, told=told) for seed in (1, 2)), predictor=predictor)


@pytest.mark.parametrize("dynamics", [CONVOLUTION, ON_PIXELS, ON_TRUNK])
def test_motion_that_pixels_tell_linearly_is_found(
    dynamics: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(monkeypatch, dynamics=dynamics).min() > 0.9


def test_motion_that_pixels_do_not_tell_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, told=False).max() < 0.1


def test_a_bottleneck_of_nine_values_does_not_lower_it(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = found(monkeypatch, bottleneck=FsqBottleneck(codes=1, levels=(3, 3)))

    assert narrow.min() > 0.9


def test_a_bottleneck_of_one_number_does_not_lower_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, bottleneck=ContinuousBottleneck(width=1)).min() > 0.9


def test_beside_it_stands_the_same_network_on_the_earlier_frame_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plane, depth = measure_ceiling(scenes(monkeypatch, told=True), Supervised())

    assert (plane.name, depth.name) == (
        "supervised ceiling → hand in plane, R²", "supervised ceiling → hand, depth, R²",
    )  # fmt: skip
    for measure in (plane, depth):
        assert measure.passed is None
        # Places are drawn anew: half of a difference's variance is the earlier one's.
        alone = measure.controls["supervised network, o_t alone"]
        assert 0.2 < alone < 0.7 < measure.value


def test_few_labels_teach_less_than_all_and_those_of_other_episodes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = scenes(monkeypatch, told=True)
    supervised, labelled = Supervised(), np.array([2, 7])
    pairs = draw_pairs(scene, scene.train, 10**6, "training pairs")

    few, whole = supervised.few(scene, labelled), supervised.whole(scene)
    # All that is not labelled is told otherwise.
    moved = np.where(np.isin(pairs.episode, labelled)[:, None], pairs.moved, 7.0)
    true = replace(pairs, moved=moved)
    monkeypatch.setattr(
        ceiling,
        "draw_pairs",
        lambda by, samples, *rest: true if samples is by.train else draw_pairs(by, samples, *rest),
    )
    again = Supervised().few(scene, labelled)

    assert np.array_equal(few, again)
    assert 0.2 < few[:2].mean() < whole[:2].mean()


def test_a_network_is_trained_once_for_what_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, supervised = scenes(monkeypatch, told=True), Supervised()
    monkeypatch.setattr(ceiling, "_STEPS", 2)

    whole, alone = supervised.whole(scene), supervised.alone(scene)
    monkeypatch.setattr(ceiling, "_trained", None)

    assert np.array_equal(supervised.whole(scene), whole)
    assert np.array_equal(supervised.alone(scene), alone)
    assert not np.array_equal(whole, alone)
    assert whole.shape == (3,)


def test_what_a_network_came_to_is_kept_for_the_next_evaluation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scene, kept = scenes(monkeypatch, told=True), tmp_path / "runs" / "taught.json"
    monkeypatch.setattr(ceiling, "_STEPS", 2)
    whole = Supervised(kept=kept).whole(scene)
    trained = ceiling._trained
    monkeypatch.setattr(ceiling, "_trained", None)

    assert np.array_equal(Supervised(kept=kept).whole(scene), whole)
    assert [path.name for path in kept.parent.iterdir()] == ["taught.json"]

    monkeypatch.setattr(ceiling, "_trained", trained)
    others = (
        scenes(monkeypatch, told=False),
        replace(scene, seed=scene.seed + 1),
        scenes(monkeypatch, told=True, dynamics=ON_PIXELS),
    )
    monkeypatch.setattr(ceiling, "_STEPS", 2)
    for other in others:
        assert not np.array_equal(Supervised(kept=kept).whole(other), whole)


def test_a_network_of_a_given_shape_does_not_depend_on_the_bundles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = (scenes(monkeypatch, told=True, dynamics=d) for d in (CONVOLUTION, ON_PIXELS))
    monkeypatch.setattr(ceiling, "_STEPS", 2)
    shape = one.predictor.config.model

    one_of_it, same = (Supervised(shape).whole(scene) for scene in (one, other))

    assert np.array_equal(one_of_it, same)
    assert not np.array_equal(same, Supervised().whole(other))


# ---------------------------------------------------------------- what is trained, and when


def fitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many episodes each network is taught by, and for how many steps, instead of teaching."""
    taught = list[tuple[int, int]]()

    def fit(_: Context, model: ModelConfig, train: Pairs, test: Pairs, steps: int) -> Any:
        taught.append((len(np.unique(train.episode)), steps))
        return test.moved

    monkeypatch.setattr(ceiling, "_fit_and_predict", fit)
    return taught


def test_whoever_is_taught_by_few_labels_is_taught_for_fewer_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene, taught, supervised = scenes(monkeypatch, told=True), fitted(monkeypatch), Supervised()

    supervised.whole(scene)
    supervised.few(scene, np.array([2, 7]))
    supervised.few(scene, np.arange(10))  # all of them, and yet another network

    assert taught == [(10, 200), (2, 100), (10, 100)]


def test_whatever_a_network_depends_on_makes_it_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene, taught, supervised = scenes(monkeypatch, told=True), fitted(monkeypatch), Supervised()
    config = scene.predictor.config
    grey = SimpleNamespace(
        config=SimpleNamespace(
            model=config.model, images=ImagePreprocessing(size=SIDE, mean=(0.1,) * 3)
        ),
        device=scene.predictor.device,
    )

    for other in (
        scene,
        replace(scene, train=glowing(3, told=True)),
        replace(scene, test=glowing(3, told=True)),
        replace(scene, train=glowing(1, told=True, metres=2.0)),
        replace(scene, predictor=grey),  # type: ignore[arg-type]
        replace(scene, pair_steps=3),
    ):
        for _ in range(2):
            supervised.whole(other)

    assert len(taught) == 6


def test_the_plane_is_the_mean_of_right_and_down_and_depth_stands_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = SimpleNamespace(
        whole=lambda _: np.array([0.8, 0.6, 0.3]), alone=lambda _: np.array([0.2, 0.4, 0.1])
    )

    plane, depth = measure_ceiling(scenes(monkeypatch, told=True), told)  # type: ignore[arg-type]

    assert [plane.value, *plane.controls.values()] == pytest.approx([0.7, 0.3])
    assert [depth.value, *depth.controls.values()] == [0.3, 0.1]


@pytest.mark.parametrize("dynamics", [ON_PIXELS, ON_TRUNK])
def test_the_trunk_is_taught_too_where_the_dynamics_read_it(
    dynamics: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = scenes(monkeypatch, told=True, dynamics=dynamics)
    network = PerceptionModel(scene.predictor.config.model)
    weight = network.get_parameter("vision.embed.weight")
    before = weight.detach().clone()

    pairs = draw_pairs(scene, scene.train, 64, "training pairs")
    ceiling._trained(scene, network, pairs, pairs, 4)

    assert torch.equal(weight, before) == (dynamics is ON_PIXELS)


def test_what_a_network_tells_is_in_its_labels_unit_whatever_it_is_judged_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = scenes(monkeypatch, told=True)
    train, test = (draw_pairs(scene, samples, 64, "pairs") for samples in (scene.train, scene.test))

    def told(metres: float, judged: float) -> NDArray[np.float64]:
        taught = replace(train, moved=metres * train.moved)
        asked = replace(test, moved=judged * test.moved)
        return ceiling._fit_and_predict(scene, scene.predictor.config.model, taught, asked, steps=4)

    assert np.array_equal(told(1, judged=5), told(1, judged=1))
    assert np.allclose(told(8, judged=1), 8 * told(1, judged=1), rtol=1e-6)
