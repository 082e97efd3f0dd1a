"""An engine in this process: models come, are replaced and go; what served before still does."""

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.bundles import full_model, picture, write_bare
from tests.server.worker.engine.engines import corrupt, engine_for, job, newer, vector

from tectum.v1 import call_pb2, errors_pb2, model_pb2
from tectum_core.bundle import Repository, read_bundle, write_bundle
from tectum_core.bundle.files import content_version
from tectum_core.golden import check_golden, make_golden
from tectum_core.golden_inputs import golden_inputs
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.failure import Failure


async def refusal(engine: LocalEngine, name: str, version: str = "") -> Failure:
    with pytest.raises(Failure) as caught:
        await engine.load_model(name, version, make_default=False)
    return caught.value


async def test_a_started_engine_answers_as_the_predictor_does(
    engine: LocalEngine, bare: Predictor
) -> None:
    result = await engine.submit(job())

    np.testing.assert_allclose(
        vector(result), bare.embed_images([picture()], "pooled")[0], atol=1e-6
    )
    assert result.version == bare.bundle.version


async def test_a_model_is_announced_with_what_it_is(engine: LocalEngine, bare: Predictor) -> None:
    entry = engine.models["arm"]
    told = model_pb2.Model.FromString(entry.description)

    assert entry.default
    assert entry.state == "ready"
    assert entry.version == told.version == bare.bundle.version
    assert entry.spaces == {space.name: space.space_id for space in bare.bundle.spaces}
    assert entry.card.startswith("# Untrained")
    assert told.state == model_pb2.MODEL_STATE_READY
    assert told.capabilities == [model_pb2.CAPABILITY_EMBED_IMAGES]
    assert told.golden.passed
    assert told.golden.outputs == check_golden(bare).outputs
    assert told.numerics.precision == "float32"
    assert told.numerics.engine.startswith("torch-")
    assert told.parameters == sum(p.numel() for p in bare.model.parameters())


async def test_at_the_start_models_are_announced_all_at_once(root: Path, bare_folder: Path) -> None:
    Repository(root).publish(bare_folder, "leg")
    engine, heard = engine_for(root, "arm", "leg"), list[set[str]]()
    engine.on_change(lambda: heard.append(set(engine.models)))

    await engine.start()
    await engine.close()

    assert heard == [{"arm", "leg"}]


async def test_a_start_that_lacks_one_of_its_models_announces_none(root: Path) -> None:
    engine, heard = engine_for(root, "arm", "wing"), list[set[str]]()
    engine.on_change(lambda: heard.append(set(engine.models)))

    with pytest.raises(Failure, match="wing"):
        await engine.start()
    await engine.close()

    assert heard == []
    assert not engine.models


async def test_a_newer_version_takes_over(engine: LocalEngine, root: Path, tmp_path: Path) -> None:
    before, version = await engine.submit(job()), newer(root, tmp_path)
    heard: list[str] = []
    engine.on_change(lambda: heard.append(engine.models["arm"].version))

    entry = await engine.load_model("arm", "", make_default=False)
    after = await engine.submit(job())

    assert entry.version == after.version == version
    assert heard == [version]
    assert entry.default  # it was, and still is
    assert not np.allclose(vector(before), vector(after), atol=1e-3)


async def test_an_older_version_can_be_named(
    engine: LocalEngine, root: Path, tmp_path: Path, bare: Predictor
) -> None:
    newer(root, tmp_path)

    assert (await engine.load_model("arm", bare.bundle.version, False)).version == (
        bare.bundle.version
    )


@pytest.mark.parametrize("what", ["config", "golden", "weights"])
async def test_a_version_that_cannot_be_served_leaves_the_old_one_serving(
    engine: LocalEngine, root: Path, tmp_path: Path, what: str
) -> None:
    before, version = engine.models["arm"], corrupt(root, tmp_path, what)

    failure = await refusal(engine, "arm")

    assert failure.reason == errors_pb2.ERROR_REASON_BUNDLE_REJECTED
    assert "arm" in failure.message
    now = engine.models["arm"]
    assert now.rejection is not None
    assert (now.rejection.version, now.rejection.why) == (version, failure.message)
    assert msgspec.structs.replace(now, rejection=None) == before
    assert (await engine.submit(job())).version == before.version


@pytest.mark.parametrize("name", ["leg", "../arm", "arm@x"])
async def test_what_is_not_in_the_repository_is_not_found(engine: LocalEngine, name: str) -> None:
    failure = await refusal(engine, name)

    assert failure.reason == errors_pb2.ERROR_REASON_MODEL_NOT_FOUND
    assert failure.field == "name"


async def test_a_version_whose_content_was_changed_is_rejected(
    engine: LocalEngine, root: Path, tmp_path: Path
) -> None:
    version = newer(root, tmp_path)
    (root / "arm" / version / "README.md").write_text("# Changed\n")

    failure = await refusal(engine, "arm")

    assert failure.reason == errors_pb2.ERROR_REASON_BUNDLE_REJECTED
    assert content_version(root / "arm" / version) in failure.message


async def test_a_model_that_is_not_the_default_can_be_unloaded(
    engine: LocalEngine, root: Path, bare_folder: Path
) -> None:
    Repository(root).publish(bare_folder, "leg")
    await engine.load_model("leg", "", make_default=False)
    assert [name for name, entry in engine.models.items() if entry.default] == ["arm"]

    await engine.unload_model("leg")

    assert set(engine.models) == {"arm"}
    with pytest.raises(Failure, match="no model named 'leg' is loaded; there are: arm") as caught:
        await engine.submit(job("leg"))
    assert caught.value.reason == errors_pb2.ERROR_REASON_MODEL_NOT_FOUND


async def test_the_default_moves_and_cannot_be_unloaded(
    engine: LocalEngine, root: Path, bare_folder: Path
) -> None:
    Repository(root).publish(bare_folder, "leg")
    await engine.load_model("leg", "", make_default=True)

    assert {name: entry.default for name, entry in engine.models.items()} == {
        "arm": False,
        "leg": True,
    }
    with pytest.raises(Failure, match="leg is the default model"):
        await engine.unload_model("leg")
    with pytest.raises(Failure, match="no model named 'hand' is loaded"):
        await engine.unload_model("hand")


async def test_a_listener_that_left_hears_nothing(
    engine: LocalEngine, root: Path, tmp_path: Path
) -> None:
    heard: list[int] = []

    def listener() -> None:
        heard.append(1)

    engine.on_change(listener)
    engine.off_change(listener)
    newer(root, tmp_path)
    await engine.load_model("arm", "", make_default=False)

    assert heard == []


async def test_an_engine_that_cannot_load_its_models_does_not_start(root: Path) -> None:
    engine = engine_for(root, "arm", "leg")

    with pytest.raises(Failure, match="no bundle named 'leg' here; there are: arm"):
        await engine.start()
    await engine.close()


async def test_the_first_model_named_is_the_default(
    root: Path, tmp_path: Path, bare_folder: Path, bare: Predictor
) -> None:
    newer(root, tmp_path)
    Repository(root).publish(bare_folder, "leg")
    engine = engine_for(root, "leg", f"arm@{bare.bundle.version}")

    await engine.start()

    assert {name: entry.default for name, entry in engine.models.items()} == {
        "leg": True,
        "arm": False,
    }
    assert engine.models["arm"].version == bare.bundle.version
    await engine.close()


async def test_what_training_did_not_reach_is_neither_announced_nor_warmed_up(
    tmp_path: Path,
) -> None:
    latent = full_model().latent_action
    assert latent is not None
    apart = latent.model_copy(update={"decoded_steps": 0})
    write_bare(tmp_path / "whole", latent_action=apart)
    whole = read_bundle(tmp_path / "whole", "whole")
    left = {"untrained": ("vision", "vision.pool")}
    summary = whole.config.training.model_copy(update=left)
    config = whole.config.model_copy(update={"training": summary})
    draft = replace(whole, config=config)
    golden = make_golden(draft, golden_inputs(draft), ())
    write_bundle(tmp_path / "latent", config, whole.model, None, golden, (), "# Latent\n")
    Repository(tmp_path / "repository").publish(tmp_path / "latent", "latent")
    engine = engine_for(tmp_path / "repository", "latent")
    await engine.start()
    entry = engine.models["latent"]
    await engine.close()

    told = model_pb2.Model.FromString(entry.description)

    assert set(told.capabilities) == {
        model_pb2.CAPABILITY_PREDICT_LATENT_ACTIONS,
        model_pb2.CAPABILITY_PREDICT_FRAMES,
    }
    assert entry.spaces.keys() == {"latent_action"}
    assert [space.kind for space in told.spaces] == [call_pb2.VECTOR_KIND_LATENT_ACTION]
    assert [part.name for part, _ in told.input.ListFields()] == ["image", "latent_action"]


async def test_what_is_told_of_the_full_model_is_what_its_bundle_says(
    tmp_path: Path, full_folder: Path, full: Predictor
) -> None:
    shutil.copytree(full_folder, tmp_path / "full" / full.bundle.version)
    (tmp_path / "full" / "latest").write_text(full.bundle.version)
    engine = engine_for(tmp_path, "full")
    await engine.start()
    entry = engine.models["full"]
    await engine.close()

    told = model_pb2.Model.FromString(entry.description)

    assert len(told.capabilities) == len(model_pb2.Capability.values()) - 1
    kinds = {space.space_id: space.kind for space in told.spaces}
    assert {name: kinds[space_id] for name, space_id in entry.spaces.items()} == {
        "joint": call_pb2.VECTOR_KIND_JOINT,
        "pooled": call_pb2.VECTOR_KIND_POOLED,
        "tokens": call_pb2.VECTOR_KIND_TOKENS,
        "clip_pooled": call_pb2.VECTOR_KIND_POOLED,
        "clip_tokens": call_pb2.VECTOR_KIND_TOKENS,
        "latent_action": call_pb2.VECTOR_KIND_LATENT_ACTION,
        "world_latent": call_pb2.VECTOR_KIND_WORLD_LATENT,
    }
    assert (told.input.image.size, told.input.image.patch_size) == (32, 8)
    assert told.input.image.interpolation == model_pb2.INTERPOLATION_BILINEAR
    assert told.input.text.max_tokens == 12
    assert (told.input.clip.frames, told.input.clip.tubelet_frames) == (4, 2)
    assert told.input.clip.frame_interval.nanos == 100_000_000
    assert list(told.input.actions.names) == ["x", "y", "z", "grip"]
    assert list(told.input.actions.state_names) == ["x", "y", "z"]
    assert told.input.latent_action.interval.nanos == 50_000_000
    assert (told.input.latent_action.codes, told.input.latent_action.codebook_size) == (2, 625)
    assert (told.input.latent_action.dimensions, told.input.latent_action.decoded_steps) == (8, 4)
    assert entry.logit_scale == pytest.approx(1 / 0.07)
