"""Whole runs: what they leave behind, and what stops them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.engine.runs import checkpoint, folder, metrics, same, trained
from tests.training.tiny import job, parts, vision_alone

from tectum_core.architecture import JointConfig
from tectum_train.data import DataError
from tectum_train.data.samples import Samples
from tectum_train.engine import run as engine
from tectum_train.engine.batches import BatchMaker
from tectum_train.engine.building import Run, open_samples
from tectum_train.engine.checkpoint import CheckpointError
from tectum_train.objectives import Batch
from tectum_train.recipe import Recipe

# ---------------------------------------------------------------- what a run leaves behind


@pytest.fixture(scope="module")
def finished(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(job(tiny_data, tmp_path_factory.mktemp("finished")))


def test_the_model_is_ready_to_serve(finished: Run) -> None:
    assert not finished.model.training
    assert finished.model.device.type == "cpu"
    assert all(torch.isfinite(tensor).all() for tensor in finished.model.state_dict().values())


def test_metrics_are_kept_finite_under_their_objectives_names(finished: Run) -> None:
    kept = metrics(finished.recipe)

    assert [one["step"] for one in kept] == [1, 6]
    assert kept[0].keys() == {
        "step", "loss", "lr", "gradient", "images_per_second", "data_wait_percent",
        "image_text/loss", "image_text/accuracy", "image_text/scale",
        "masked_image/loss", "masked_image/masked", "masked_image/relative",
        "masked_language/loss", "masked_language/accuracy",
        "masked_action/loss", "masked_action/error", "masked_action/line",
        "action_prediction/loss", "action_prediction/error", "action_prediction/line",
        "latent_action/loss", "latent_action/relative", "latent_action/decoding",
        "world_model/loss", "world_model/relative_1", "world_model/relative_2",
        "world_model/shuffled", "world_model/spread", "world_model/decoding",
    }  # fmt: skip
    assert all(math.isfinite(value) for one in kept for value in one.values())
    assert kept[0]["lr"] == pytest.approx(5e-4)  # the first of two steps of warm-up


def test_the_loss_is_the_weighted_sum_of_its_parts(finished: Run) -> None:
    first = metrics(finished.recipe)[0]

    total = sum(o.weight * first[f"{o.kind}/loss"] for o in finished.recipe.objectives)
    assert first["loss"] == pytest.approx(total, rel=1e-5)


def test_tensorboard_has_the_same_names(finished: Run) -> None:
    events = list((folder(finished.recipe) / "tensorboard").glob("events.out.tfevents.*"))

    content = b"".join(path.read_bytes() for path in events)
    assert events
    for name in (b"loss", b"image_text/accuracy", b"images_per_second"):
        assert name in content


def test_the_recipe_lies_beside_it(finished: Run) -> None:
    text = (folder(finished.recipe) / "recipe.json").read_text()

    assert Recipe.model_validate_json(text) == finished.recipe


def test_actions_and_states_are_scaled_by_the_training_data(finished: Run, tiny_data: Path) -> None:
    samples = open_samples(finished.recipe, "train", lambda *_: None)

    scaling = finished.scaling

    assert scaling is not None
    assert scaling.names == ("hand_dx", "hand_dy", "hand_dz", "gripper_effort")
    assert scaling.state_names[0] == "hand_x"
    assert scaling.step_interval == pytest.approx(1 / 16)
    assert scaling.mean == pytest.approx(samples.column("action").mean(axis=0).tolist(), abs=1e-6)
    deviation = samples.column("observation.state").std(axis=0)
    assert scaling.state_standard_deviation == pytest.approx(deviation.tolist(), rel=1e-4)


def test_quantile_bins_hold_equally_many_of_the_training_datas_actions(
    tiny_data: Path, tmp_path: Path
) -> None:
    bins = {"count": 6, "spacing": "quantiles"}
    actions = {"dimensions": 4, "state_dimensions": 4, "max_steps": 8, "bins": bins}
    objectives = [
        {"kind": "masked_action", "loss": "cross_entropy"}, {"kind": "action_prediction"},
    ]  # fmt: skip
    recipe = job(tiny_data, tmp_path, model=parts(actions=actions), objectives=objectives)

    run = trained(recipe)

    assert run.scaling is not None
    assert run.model.fusion is not None
    assert run.model.fusion.bins is not None
    samples = open_samples(recipe, "train", lambda *_: None)
    taken = torch.from_numpy(samples.column("action"))
    places = run.model.fusion.bins.places(run.scaling.standardise(taken))
    for column in places.T:
        share = torch.bincount(column, minlength=6) / len(column)
        assert float((share - 1 / 6).abs().max()) < 0.02
    assert "fusion.bins.centres" in {k.partition("model.")[2] for k in checkpoint(recipe)}


def test_the_tokenizer_knows_the_instructions(finished: Run) -> None:
    assert finished.tokenizer is not None
    ids = finished.tokenizer.encode("push the red block left", 12).ids
    assert "[UNK]" not in [finished.tokenizer.token(i) for i in ids]


def test_nothing_in_the_folder_is_a_pickle(finished: Run) -> None:
    files = [path for path in folder(finished.recipe).rglob("*") if path.is_file()]

    assert {path.suffix for path in files if "tfevents" not in path.name} == {
        ".json", ".jsonl", ".safetensors",
    }  # fmt: skip
    # A pickle of protocol 2 and later begins with 0x80 and ends with a full stop.
    assert not any(p.read_bytes()[:1] == b"\x80" and p.read_bytes()[-1:] == b"." for p in files)


def test_seeds_go_to_folders_of_their_own_and_begin_apart(tiny_data: Path, tmp_path: Path) -> None:
    short = {
        "schedule__steps": 1,
        "model": vision_alone(),
        "objectives": [{"kind": "masked_image"}],
    }
    one, two = (job(tiny_data, tmp_path, seed=seed, **short) for seed in (1, 2))

    first, second = (trained(r).model.get_parameter("vision.embed.weight") for r in (one, two))

    assert not torch.equal(first, second)
    assert folder(one) != folder(two)


def test_vision_alone_trains_without_words_or_actions(tiny_data: Path, tmp_path: Path) -> None:
    recipe = job(
        tiny_data, tmp_path, schedule__steps=2, data__state=None, model=vision_alone(),
        objectives=[{"kind": "masked_image"}],
    )  # fmt: skip

    run = trained(recipe)

    assert run.tokenizer is None
    assert run.scaling is None


def test_batches_without_a_frame_that_counts_do_not_end_a_run(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_RECORD_EVERY", 1)
    late = [{"kind": "image_text", "after": 0.9}]

    run = trained(job(tiny_data, tmp_path, objectives=late, schedule__batch_size=4))

    kept = metrics(run.recipe)
    empty = [one for one in kept if "image_text/accuracy" not in one]
    assert 0 < len(empty) < len(kept) == 6
    assert all(one["loss"] == one["gradient"] == 0 for one in empty)
    assert all(torch.isfinite(tensor).all() for tensor in run.model.state_dict().values())


def test_a_robot_without_a_state_trains_its_actions(tiny_data: Path, tmp_path: Path) -> None:
    recipe = job(
        tiny_data, tmp_path, schedule__steps=2, data__state=None,
        model=parts(actions={"dimensions": 4, "max_steps": 8}),
    )  # fmt: skip

    scaling = trained(recipe).scaling

    assert scaling is not None
    assert scaling.state_names == ()


def test_a_feature_of_one_number_is_an_action_too(tiny_data: Path, tmp_path: Path) -> None:
    recipe = job(
        tiny_data, tmp_path, schedule__steps=2, data__action="layout",
        model=parts(actions={"dimensions": 1, "state_dimensions": 4, "max_steps": 8}),
    )  # fmt: skip

    scaling = trained(recipe).scaling

    assert scaling is not None
    assert scaling.names == ("0",)


def test_bfloat16_leaves_weights_and_losses_in_float32(tiny_data: Path, tmp_path: Path) -> None:
    recipe = job(tiny_data, tmp_path, precision="bfloat16", schedule__steps=2)

    run = trained(recipe)

    assert {p.dtype for p in run.model.parameters()} == {torch.float32}
    assert all(math.isfinite(value) for value in metrics(recipe)[-1].values())


def test_what_gradients_do_not_update_is_updated_after_each_step(
    tiny_data: Path, tmp_path: Path
) -> None:
    recipe = job(tiny_data, tmp_path, schedule__steps=1)
    large = JointConfig(width=16, initial_scale=150)  # as no recipe may have it
    above = recipe.model_copy(update={"model": recipe.model.model_copy(update={"joint": large})})

    joint = trained(above).model.joint

    assert joint is not None
    assert joint.log_scale.exp().item() == pytest.approx(100)


def test_resuming_what_is_finished_gives_the_same_model(finished: Run) -> None:
    again = trained(finished.recipe, resume=True)

    assert same(finished.model.state_dict(), again.model.state_dict())


# ---------------------------------------------------------------- what is refused


def test_a_second_run_into_the_same_folder_is_refused(finished: Run) -> None:
    before = checkpoint(finished.recipe)

    with pytest.raises(FileExistsError, match=r"tiny-seed0 holds a run already, finished; resume"):
        trained(finished.recipe)

    assert same(before, checkpoint(finished.recipe))


def test_resuming_under_another_recipe_is_refused_and_leaves_the_run_as_it_was(
    finished: Run,
) -> None:
    other = finished.recipe.model_copy(update={"precision": "bfloat16"})
    kept = (folder(finished.recipe) / "recipe.json").read_text()

    with pytest.raises(CheckpointError, match=r'\(precision: "float32" → "bfloat16"\)'):
        trained(other, resume=True)

    assert (folder(finished.recipe) / "recipe.json").read_text() == kept


def test_a_gradient_that_is_not_finite_stops_the_run_at_its_step(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = BatchMaker.make

    def poisoned(self: BatchMaker, step: int) -> Batch:
        made = whole(self, step)
        if step == 2:
            made.actions[0, 0, 0] = float("nan")
        return made

    monkeypatch.setattr(BatchMaker, "make", poisoned)

    recipe = job(tiny_data, tmp_path, schedule__checkpoint_every=1)
    with pytest.raises(FloatingPointError, match="step 2: the gradient is not finite"):
        trained(recipe)

    assert all(torch.isfinite(tensor).all() for tensor in checkpoint(recipe).values())


def test_an_error_on_the_batches_thread_ends_the_run(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Samples, "later", gone)

    with pytest.raises(OSError, match="the disk is gone"):
        trained(job(tiny_data, tmp_path))


def test_a_feature_that_is_not_there_is_named(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data.action: .* has no feature 'torque'; it has: .*"):
        trained(job(tiny_data, tmp_path, data__action="torque"))
