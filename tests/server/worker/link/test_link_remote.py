"""What goes through the link comes back the same, refusals and administration too."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from tests.bundles import actions
from tests.server.worker.linked import IMAGE, LATER, HeldEngine, Rig, failure, job, used_after_all
from tests.server.worker.serving import PATIENCE

from tectum.v1 import errors_pb2
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    EmbedImages,
    EmbedTexts,
    FillActions,
    FillImage,
    FillText,
    ItemFailure,
    ItemOutput,
    LatentActions,
    MaskSpec,
    ModelEntry,
    Operation,
    Rollout,
    Sequel,
)
from tectum_server.worker.link import channel

WORK: dict[str, tuple[Operation, tuple[np.ndarray, ...], str]] = {
    "tokens": (EmbedImages("tokens"), (IMAGE,), ""),
    "text": (EmbedTexts(), (), "open the drawer"),
    "filled image": (FillImage(MaskSpec("block", 0.5, 3)), (IMAGE,), "open"),
    "filled text": (FillText(None, 3), (IMAGE,), "open the [MASK]"),
    "filled actions": (
        FillActions(MaskSpec("explicit", hidden=(1,)), True, True),
        (actions(), np.zeros(3, np.float32), IMAGE),
        "",
    ),
    "latent actions": (LatentActions(True, True), (IMAGE, LATER), ""),
    "rollout": (
        Rollout(1, 1, has_actions=True, has_goal=True, return_latents=True, decode_frames=True),
        (np.ones((1, 16, 32), np.float32), actions()[:0], actions()[:4], np.ones((16, 32), "f4")),
        "",
    ),
}


@pytest.mark.parametrize("name", WORK)
async def test_answers_are_the_same_as_without_the_link(
    local: tuple[Rig, LocalEngine], name: str
) -> None:
    rig, engine = local
    operation, arrays, text = WORK[name]
    work = job(*arrays, operation=operation, text=text)

    here, there = await engine.submit(work), await rig.remote.submit(work)

    (one,), (other,) = here.outputs, there.outputs
    assert isinstance(one, ItemOutput)
    assert isinstance(other, ItemOutput)
    assert there.version == here.version
    assert (other.text, [t.token for t in other.tokens]) == (
        one.text,
        [t.token for t in one.tokens],
    )
    assert [a.dtype for a in other.arrays] == [a.dtype for a in one.arrays]
    for ours, theirs in zip(one.arrays, other.arrays, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-6, atol=1e-6)
    assert await used_after_all(rig) == 0


async def test_an_items_failure_crosses_with_its_field(local: tuple[Rig, LocalEngine]) -> None:
    rig, engine = local
    work = job(operation=FillText(MaskSpec("explicit", hidden=(9,)), 5), text="open the drawer")

    here, there = await engine.submit(work), await rig.remote.submit(work)

    assert isinstance(there.outputs[0], ItemFailure)
    assert there.outputs == here.outputs
    assert there.outputs[0].field == "mask.hidden"


async def test_a_mask_that_is_refused_at_admission_crosses_with_its_field(
    local: tuple[Rig, LocalEngine],
) -> None:
    rig, _ = local
    work = job(IMAGE, operation=FillImage(MaskSpec("explicit", hidden=(99,))))

    told = await failure(asyncio.create_task(rig.remote.submit(work)))

    assert told.reason == errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE
    assert (told.field, told.message) == ("mask.hidden", "index 99 lies outside 0..15 (patches)")


async def test_a_job_crosses_with_the_version_it_was_prepared_for_and_its_name(
    held: tuple[Rig, HeldEngine],
) -> None:
    rig, engine = held
    engine.free.set()
    foreseen = Rollout(2, 1, True, False, False, False)
    sent = replace(
        job(IMAGE, text="open"),
        version="v1",
        request_id="r-7",
        arrived=1.5,
        sequel=Sequel(foreseen, 64),
    )

    await rig.remote.submit(sent)

    came = await engine.begun.get()
    assert (came.version, came.request_id, came.arrived) == ("v1", "r-7", 1.5)
    assert came.sequel == sent.sequel
    assert (came.model, came.operation, came.priority, came.deadline) == (
        sent.model,
        sent.operation,
        sent.priority,
        sent.deadline,
    )


async def test_models_cross_with_everything_the_front_needs(
    local: tuple[Rig, LocalEngine], full: Predictor
) -> None:
    rig, engine = local

    assert rig.remote.models == engine.models
    assert rig.remote.models["arm"].version == full.bundle.version


# ---------------------------------------------------------------- refusals and administration


async def test_a_refusal_crosses_whole(held: tuple[Rig, HeldEngine]) -> None:
    rig, engine = held
    engine.free.set()

    found = await failure(asyncio.create_task(rig.remote.submit(job(IMAGE, model="leg"))))

    assert (found.reason, found.message) == (errors_pb2.ERROR_REASON_QUEUE_FULL, "full")
    assert found.retry_delay == 2.5
    assert rig.used == 0


async def test_a_request_that_is_too_long_for_the_link_fails_alone(
    held: tuple[Rig, HeldEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_LARGEST", 1000)
    rig, engine = held
    other = asyncio.create_task(rig.remote.submit(job(IMAGE)))
    await engine.begun.get()
    used = rig.used

    found = await failure(asyncio.create_task(rig.remote.submit(job(IMAGE, text="x" * 1000))))
    with pytest.raises(Failure, match="at most 1000 are allowed"):
        await rig.remote.load_model("x" * 1000, "", make_default=False)

    assert found.reason == errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE
    assert found.retry_delay is None
    assert rig.used == used  # its pixels' room is free again
    engine.free.set()
    assert (await other).version == "v1"


async def test_an_answer_that_is_too_long_for_the_link_fails_alone(
    held: tuple[Rig, HeldEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_LARGEST", 1000)
    rig, engine = held
    engine.free.set()
    engine.says = "x" * 1000

    found = await failure(asyncio.create_task(rig.remote.submit(job(IMAGE))))

    assert found.reason == errors_pb2.ERROR_REASON_TOO_MANY_ITEMS
    assert "at most 1000 are allowed" in found.message
    assert found.retry_delay is None
    assert (rig.used, engine.used) == (0, 0)
    engine.says = "short"
    assert (await rig.remote.submit(job(IMAGE))).version == "v1"


async def test_timings_cross(held: tuple[Rig, HeldEngine]) -> None:
    rig, engine = held
    engine.free.set()

    result = await rig.remote.submit(job(IMAGE))

    assert (result.queue_seconds, result.compute_seconds, result.batch_size) == (0.25, 0.5, 1)


async def test_loading_and_unloading_cross(held: tuple[Rig, HeldEngine]) -> None:
    rig, _ = held

    entry = await rig.remote.load_model("leg", "v9", make_default=True)

    assert entry == ModelEntry("leg", "v9", "ready", True, b"x", "# Card", {"pooled": "0f"})
    with pytest.raises(Failure, match="no good") as caught:
        await rig.remote.load_model("broken", "", make_default=False)
    assert caught.value.reason == errors_pb2.ERROR_REASON_BUNDLE_REJECTED
    assert caught.value.field == "name"
    with pytest.raises(Failure, match="no leg"):
        await rig.remote.unload_model("leg")


async def test_a_model_that_is_asked_back_is_asked_of_the_engine(
    held: tuple[Rig, HeldEngine],
) -> None:
    rig, engine = held

    rig.remote.want("leg")

    assert await engine.asked_back.get() == "leg"


async def test_an_engine_is_told_of_control_that_it_never_heard_of(
    held: tuple[Rig, HeldEngine],
) -> None:
    rig, engine = held

    unheard = engine.control_expected.is_set()

    rig.remote.expect_control()

    assert not unheard
    assert await asyncio.wait_for(engine.control_expected.wait(), PATIENCE)


@pytest.mark.parametrize("kind", ["fault", "panic"])
async def test_a_fault_of_the_engine_is_one_requests_own(
    held: tuple[Rig, HeldEngine], kind: str
) -> None:
    rig, engine = held
    engine.free.set()

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Failure) as caught:
            await rig.remote.load_model(kind, "", make_default=False)

    assert caught.value.reason == errors_pb2.ERROR_REASON_INTERNAL
    assert "inside" not in caught.value.message
    assert (await rig.remote.submit(job(IMAGE))).version == "v1"


async def test_changes_of_the_catalogue_are_heard(held: tuple[Rig, HeldEngine]) -> None:
    rig, engine = held

    engine.tell("arm", "leg")
    rig.changed.clear()
    await rig.changed.wait()

    assert set(rig.remote.models) == {"arm", "leg"}
