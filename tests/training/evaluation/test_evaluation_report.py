"""All measures of a bundle at once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.training.tiny import CAMERA, INTERVAL_STEPS, job, vision_alone, write_set

from tectum_core.bundle import Bundle, Part
from tectum_core.predictor import Predictor
from tectum_train.data import DataError
from tectum_train.data.samples import Samples
from tectum_train.engine.building import open_samples
from tectum_train.engine.run import train
from tectum_train.evaluation import report
from tectum_train.evaluation.latent_action import ceiling
from tectum_train.evaluation.latent_action.ceiling import Supervised
from tectum_train.evaluation.measuring import context as evaluation_context
from tectum_train.evaluation.measuring.context import Columns, Context, random_twin
from tectum_train.evaluation.measuring.fits import pair_steps
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.report import as_json, evaluate
from tectum_train.export import as_bundle
from tectum_train.world import World

pytestmark = pytest.mark.usefixtures("few_draws")
LATENT, SHARES = "latent action (6) over 0.125 s →", ("2.5", "10.0", "100.0")
WHOLE = [
    "frame → task, R@1",
    "frame → task within same-scene pairs, R@1",
    "masked image, error ÷ predicting zero",
    "masked image told its instruction, squared error",
    "masked word, accuracy",
    "masked word, nats",
    "masked actions, squared error in standard deviations",
    "action prediction, 8 steps, squared error in standard deviations",
    f"{LATENT} hand in plane, R²",
    *(f"{LATENT} hand, {axis}, R²" for axis in ("right", "down", "depth")),
    "latent action, next frame's error ÷ copying",
    *(f"{LATENT} hand in plane from {share}% of the labels, R²" for share in SHARES),
    "latent action in another scene → same motion in plane, cosine",
    "actions decoded from z, 2 steps, squared error in standard deviations",
    *(f"world model, {ahead} s ahead, error ÷ repeating" for ahead in (0.125, 0.25, 0.375, 0.5)),
    "world model, spread of latents",
    "world model, next frame painted, error ÷ repeating",
    "frozen trunk → task, neighbours",
    "frozen trunk → task, linear probe",
    "frozen trunk → task from 10% of the labels",
    "frozen trunk, spread of its vectors ÷ their length",
    "frozen trunk → hand's patch or one beside it",
    "frozen trunk and state → next actions, 8 steps, squared error in standard deviations",
    "frame → sentence, R@1",
    "frame → sentence, median rank",
    *(f"sentence → frame, R@{first}" for first in (1, 5, 10)),
    "sentence → frame, median rank",
]


# ---------------------------------------------------------------- all at once


class Trained:
    """A bundle that was trained for a moment, and the data to measure it on."""

    def __init__(self, data: Path, folder: Path, **changes: Any) -> None:
        recipe = job(data, folder, schedule__steps=2, **changes)
        run = train(recipe, console=Console(quiet=True))
        self.train: Samples = open_samples(recipe, "train", lambda *_: None)
        self.test: Samples = open_samples(recipe, "test", lambda *_: None)
        self.bundle: Bundle = as_bundle(run, self.train.instructions, {})

    def left(self, *untrained: Part) -> Bundle:
        """The bundle as if training had not reached these."""
        summary = self.bundle.config.training.model_copy(update={"untrained": untrained})
        config = self.bundle.config.model_copy(update={"training": summary})
        return replace(self.bundle, config=config)

    def evaluated(self, **options: Any) -> list[Measure]:
        return evaluate(self.bundle, self.train, self.test, **options)


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tiny_data, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def measures(trained: Trained) -> list[Measure]:
    return trained.evaluated()


def test_a_whole_bundle_gets_every_measure_with_finite_controls(measures: list[Measure]) -> None:
    assert [measure.name for measure in measures] == WHOLE
    for measure in measures:
        assert math.isfinite(measure.value), measure.name
        assert all(math.isfinite(value) for value in measure.controls.values()), measure
        assert (measure.passed is None) == (measure.gate == "")


def test_every_judged_number_stands_beside_controls(measures: list[Measure]) -> None:
    controls = {m.name: set(m.controls) for m in measures if m.passed is not None}

    assert controls == {
        **{name: {
            "PCA-256 + logistic", "random init + logistic", "proprioception + logistic",
            "proprioception + MLP", "chance",
        } for name in WHOLE[:2]},
        WHOLE[2]: {"mean patch", "another image's context"},
        WHOLE[3]: {"shuffled instruction", "no instruction"},
        **{name: {"shuffled picture", "no picture"} for name in WHOLE[4:6]},
        WHOLE[6]: {"linear interpolation", "mean action"},
        WHOLE[7]: {"mean action", "repeating the last action", "no picture"},
        WHOLE[8]: {
            "frame-difference PCA, z's width", "frame-difference PCA-256",
            "o_t alone, pixels PCA-256", "o_t alone, trunk tokens PCA-256",
            "o_t alone, z of a still pair", "shuffled o_t+1, refitted", "random init",
        },
        WHOLE[12]: {"shuffled z"},
        WHOLE[13]: {"frame-difference PCA-256", "frame-difference PCA, z's width"},
        WHOLE[16]: {
            "true frames, the same probe", "z in its own scene", "shuffled z",
            "the pair's difference, pasted, PCA of z's width",
        },
        WHOLE[17]: {"mean action", "shuffled z"},
        **{
            name: {"repeating", "linear extrapolation", "shuffled actions"} for name in WHOLE[18:22]
        },
        WHOLE[24]: {"random init", "PCA-256", "majority class"},
        WHOLE[27]: {"random init"},
        WHOLE[28]: {"random init", "PCA-128 of 3×3 patches", "its commonest place"},
        WHOLE[29]: {"random init", "PCA-256", "state alone", "mean action"},
    }  # fmt: skip


def test_an_evaluation_repeats_itself_and_draws_nothing(
    trained: Trained, measures: list[Measure]
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    again = trained.evaluated()

    assert [(m.value, dict(m.controls)) for m in again] == [
        (m.value, dict(m.controls)) for m in measures
    ]
    assert torch.equal(torch.rand(2), expected)


def test_what_was_learnt_without_its_conditions_is_measured_without_them(
    trained: Trained, measures: list[Measure]
) -> None:
    left, told = trained.left("fusion.actions.embed", "fusion.from_image", "vision"), list[str]()

    found = evaluate(left, trained.train, trained.test, left_out=told.append)

    chunks = {measure.name: measure for measure in found}[WHOLE[7]]
    assert [measure.name for measure in found] == [*WHOLE[:4], *WHOLE[7:24], *WHOLE[30:]]
    assert told == ["masked words: the training showed no picture beside words"]
    assert chunks.value == chunks.controls["no picture"] == measures[7].controls["no picture"]


def test_what_is_being_measured_is_told(trained: Trained) -> None:
    told: list[str] = []

    trained.evaluated(tell=told.append)

    assert told == [
        "retrieval", "masked images", "masked images told their instructions", "masked words",
        "masked actions", "action prediction", "latent actions", "decoded actions", "world model",
        "frozen features", "dense features", "frozen policy", "sentences",
    ]  # fmt: skip


def test_the_ceiling_is_added_when_asked_for(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceiling, "_STEPS", 3)
    for name in ("measure_retrieval", "measure_masked_images", "measure_latent_actions"):
        monkeypatch.setattr(report, name, lambda *_, **__: [])
    before = {k: v.clone() for k, v in trained.bundle.model.state_dict().items()}

    found = trained.evaluated(supervised=Supervised())

    assert [m.name for m in found[-2:]] == [
        "supervised ceiling → hand in plane, R²", "supervised ceiling → hand, depth, R²",
    ]  # fmt: skip
    for measure in found[-2:]:
        assert math.isfinite(measure.value)
        assert list(measure.controls) == ["supervised network, o_t alone"]
        assert measure.passed is None
    after = trained.bundle.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_bundle_of_vision_alone_is_measured_on_pictures(tiny_data: Path, tmp_path: Path) -> None:
    objectives = [{"kind": "masked_image"}]

    alone = Trained(tiny_data, tmp_path, model=vision_alone(), objectives=objectives)

    assert [measure.name for measure in alone.evaluated(supervised=Supervised())] == [
        WHOLE[2],
        *WHOLE[24:30],
    ]


def test_what_the_data_set_lacks_is_told_and_the_rest_is_measured(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    nothing = World(families=(), instructions=())
    monkeypatch.setattr(report, "read_world", lambda _: nothing)

    found = trained.evaluated(columns=Columns(state="pose", action="torque"), left_out=told.append)

    assert [measure.name for measure in found] == [*WHOLE[2:6], *WHOLE[24:28]]
    assert told == [
        "retrieval: the data set lacks meta/world.json, pose",
        "masked actions: the data set lacks torque, pose",
        "action prediction: the data set lacks torque, pose",
        "latent actions: the data set lacks pose",
        "decoded actions: the data set lacks torque",
        "world model: the data set lacks torque",
        "dense features: the data set lacks pose",
        "frozen policy: the data set lacks torque, pose",
        "sentences: the data set lacks meta/world.json",
    ]


def test_a_feature_that_one_split_alone_has_is_lacking(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, told = Samples.has, list[str]()
    monkeypatch.setattr(
        Samples,
        "has",
        lambda self, name: whole(self, name) and (name != "action" or self is trained.test),
    )

    trained.evaluated(left_out=told.append)

    assert told == [
        f"{part}: the data set lacks action"
        for part in (
            "masked actions",
            "action prediction",
            "decoded actions",
            "world model",
            "frozen policy",
        )
    ]


def test_the_models_are_moved_to_the_device_that_is_asked_for(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []

    class Kept(Predictor):
        def __init__(self, bundle: Bundle, device: str) -> None:
            devices.append(device)
            super().__init__(bundle)

    monkeypatch.setattr(report, "Predictor", Kept)
    monkeypatch.setattr(evaluation_context, "Predictor", Kept)
    monkeypatch.setattr(report, "_parts", lambda *_, **__: [])

    trained.evaluated(device="cuda:1")

    assert devices == ["cuda:1"] * 4  # three of random weights among them


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_measure_is_the_same_on_a_gpu(
    trained: Trained, measures: list[Measure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceiling, "_STEPS", 3)
    monkeypatch.setattr(ceiling, "_FEW_STEPS", 3)

    try:
        found = trained.evaluated(device="cuda", supervised=Supervised())
    finally:  # others have the same model
        trained.bundle.model.cpu()

    assert [measure.name for measure in found[:-2]] == WHOLE
    for ours, theirs in zip(found, measures, strict=False):
        assert ours.value == pytest.approx(theirs.value, abs=0.05)


def test_pairs_are_as_far_apart_as_the_model_was_trained_for(trained: Trained) -> None:
    fps = trained.test.dataset.info.fps

    assert pair_steps(trained.bundle.config.model, fps) == INTERVAL_STEPS


def test_data_that_contradicts_the_bundle_is_refused_before_anything_is_measured(
    trained: Trained,
) -> None:
    told: list[str] = []

    with pytest.raises(DataError, match="layout has 1 numbers; 4 are wanted"):
        trained.evaluated(columns=Columns(action="layout"), tell=told.append)

    assert told == []


def test_every_stream_of_choices_is_drawn_from_once(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    whole = Context.generator

    def kept(self: Context, stream: str) -> np.random.Generator:
        drawn.append(stream)
        return whole(self, stream)

    monkeypatch.setattr(Context, "generator", kept)
    trained.evaluated()

    assert len(drawn) > 10
    assert sorted(drawn) == sorted(set(drawn))


def test_a_measure_for_which_there_is_too_little_data_is_left_out_and_told(
    trained: Trained, tmp_path: Path
) -> None:
    told: list[str] = []
    write_set(tmp_path / "alone", [(0, 2)], seed=700)
    test = Samples.open(tmp_path / "alone", CAMERA, trained.bundle.config.images, tmp_path)

    found = evaluate(trained.bundle, trained.train, test, left_out=told.append)

    # Of one episode nothing can be shuffled, and few frames have no first five.
    some = [*WHOLE[:2], *WHOLE[6:8], *WHOLE[24:33], WHOLE[35]]
    assert [measure.name for measure in found] == some
    assert [line.partition(":")[0] for line in told] == [
        "masked images", "masked images told their instructions", "masked words", "latent actions",
        "decoded actions", "world model",
    ]  # fmt: skip
    assert all(line.endswith("with no other to shuffle with") for line in told)


def test_the_twin_has_the_shape_and_none_of_the_weights(trained: Trained) -> None:
    twin, again = (random_twin(trained.bundle, seed=0).model.state_dict() for _ in range(2))

    own = trained.bundle.model.state_dict()
    assert {k: v.shape for k, v in twin.items()} == {k: v.shape for k, v in own.items()}
    assert not torch.equal(twin["vision.embed.weight"], own["vision.embed.weight"])
    assert all(torch.equal(twin[key], again[key]) for key in twin)


def test_json_has_everything(measures: list[Measure]) -> None:
    found = json.loads(json.dumps(as_json(measures)))

    assert [one["name"] for one in found] == WHOLE
    assert found[0].keys() == {
        "name",
        "value",
        "controls",
        "gate",
        "passed",
        "on",
        "part",
        "errors",
    }
    assert found[0]["controls"] == dict(measures[0].controls)
