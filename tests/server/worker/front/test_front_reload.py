"""A model reloaded under calls and streams: a vector is the one that its space id says."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.bundles import INTERVAL, write_bare
from tests.server.worker.asking import ADMIN, IMAGE, images, options, similar, vector
from tests.server.worker.frames import FAILED, OK, PAIRED, SUPERSEDED, UNPAIRED, begin, frame
from tests.server.worker.messages import array, reason, seconds
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera, Fronted, Inline, Loop, Told

from tectum.v1 import errors_pb2, model_pb2, stream_pb2
from tectum_core.bundle import Repository
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import EmbedImages, EmbedTexts, Job, JobResult, ModelEntry


def reloaded(entries: Mapping[str, ModelEntry], without: str = "") -> dict[str, ModelEntry]:
    """The same models, `full` of another version, whose spaces are others, too; one is missing."""
    full = entries["full"]
    renamed = {name: old[::-1] for name, old in full.spaces.items() if name != without}
    description = model_pb2.Model.FromString(full.description)
    description.version = "f" * 16
    description.input.latent_action.interval.CopyFrom(seconds(2 * INTERVAL))
    for space in description.spaces:
        space.space_id = space.space_id[::-1]
    fresh = msgspec.structs.replace(
        full, version="f" * 16, spaces=renamed, description=description.SerializeToString()
    )
    return {**entries, "full": fresh}


def strict(engine: ScriptedEngine) -> Callable[[Job], JobResult | Exception]:
    """Answer as an engine does: only for the version that serves."""

    def answer(job: Job) -> JobResult | Exception:
        if job.version == engine.models[job.model].version:
            texts = isinstance(job.operation, EmbedTexts)  # their vectors are as wide as pictures'
            shown = replace(job, operation=EmbedImages("joint")) if texts else job
            return replace(zeros(shown), version=job.version)
        return Failure(errors_pb2.ERROR_REASON_SPACE_MISMATCH, "another version serves")

    return answer


# ---------------------------------------------------------------- calls


def test_a_call_whose_model_is_reloaded_under_it_is_answered_by_the_new_one(
    front: Fronted, engine: ScriptedEngine
) -> None:
    old = engine.models["full"]
    held = front.client.begin("EmbedImages", images())
    assert engine.begun.get(timeout=30).version == old.version

    engine.serves(reloaded(engine.models))
    engine.answers(strict(engine))
    answer = held.result()

    assert engine.begun.get(timeout=30).version == "f" * 16
    assert answer.info.version == "f" * 16
    assert answer.results[0].embedding.space_id == old.spaces["joint"][::-1]


def test_a_pinned_call_whose_model_is_reloaded_under_it_is_refused(
    front: Fronted, engine: ScriptedEngine
) -> None:
    joint = engine.models["full"].spaces["joint"]
    request = images(options=options(expected_space_ids=[joint]))
    held = front.client.begin("EmbedImages", request)
    engine.begun.get(timeout=30)

    engine.serves(reloaded(engine.models))
    engine.answers(strict(engine))
    told = Told.of(held.exception())

    assert (told.code, told.reason) == ("FAILED_PRECONDITION", "SPACE_MISMATCH")
    assert told.fields == ("options.expected_space_ids",)


def test_a_call_that_names_a_version_is_refused_once_it_is_gone(
    front: Fronted, engine: ScriptedEngine
) -> None:
    version = engine.models["full"].version
    held = front.client.begin("EmbedImages", images(options=options(model=f"full@{version}")))
    engine.begun.get(timeout=30)

    engine.serves(reloaded(engine.models))
    engine.answers(strict(engine))

    assert Told.of(held.exception()).reason == "MODEL_NOT_FOUND"


def test_a_comparison_never_mixes_two_versions(front: Fronted, engine: ScriptedEngine) -> None:
    joint = engine.models["full"].spaces["joint"]
    held = front.client.begin("ComputeSimilarity", similar([{"image": IMAGE}], [{"text": "open"}]))
    engine.begun.get(timeout=30)
    engine.begun.get(timeout=30)

    engine.serves(reloaded(engine.models))
    engine.answers(strict(engine))
    answer = held.result()

    assert answer.space_id == joint[::-1]
    assert [engine.begun.get(timeout=30).version for _ in range(2)] == ["f" * 16] * 2


def test_a_refusal_that_no_reload_explains_is_told_as_it_is(
    front: Fronted, engine: ScriptedEngine
) -> None:
    engine.answers(lambda _: Failure(errors_pb2.ERROR_REASON_SPACE_MISMATCH, "so it is"))

    told = front.client.refused("EmbedImages", images())

    assert (told.reason, told.message) == ("SPACE_MISMATCH", "so it is")
    assert engine.begun.qsize() == 1


def test_a_job_names_the_request_that_it_is_of(front: Fronted, engine: ScriptedEngine) -> None:
    engine.answers(zeros)

    front.client.ask("EmbedImages", images(), x_request_id="r-5")

    assert engine.begun.get(timeout=30).request_id == "r-5"


# ---------------------------------------------------------------- streams


def test_a_stream_goes_on_with_the_model_that_serves_now(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(strict(engine))
    old, stream = engine.models["full"], camera()
    stream.ready()
    stream.send(frame(1))
    before = stream.result()

    engine.serves(reloaded(engine.models))
    stream.send(frame(2))
    after = stream.result()

    assert [before.info.version, after.info.version] == [old.version, "f" * 16]
    joint = old.spaces["joint"]
    assert [before.embedding.space_id, after.embedding.space_id] == [joint, joint[::-1]]


@pytest.mark.parametrize(
    ("pin", "told"), [("expected_space_ids", "SPACE_MISMATCH"), ("model", "MODEL_NOT_FOUND")]
)
def test_a_stream_whose_pin_is_gone_fails_its_frame_and_ends(
    camera: Callable[..., Camera], engine: ScriptedEngine, pin: str, told: str
) -> None:
    engine.answers(strict(engine))
    old = engine.models["full"]
    pins = {"expected_space_ids": [old.spaces["joint"]], "model": f"full@{old.version}"}
    stream = camera(options=options(**{pin: pins[pin]}))
    stream.ready()
    stream.send(frame(1))
    assert stream.result().status == OK

    engine.serves(reloaded(engine.models))
    stream.send(frame(2))
    failed = stream.result()
    ended = stream.failed()

    assert (failed.frame_id, failed.status, reason(failed.error.reason)) == (2, FAILED, told)
    assert (ended.reason, ended.retries) == (told, False)
    assert engine.begun.qsize() == 1


def test_a_stream_ends_once_the_model_lacks_what_it_asked_for(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(strict(engine))
    stream = camera(embed=False, latent_actions=True)
    stream.ready()

    engine.serves(reloaded(engine.models, without="latent_action"))
    stream.send(frame(1))

    assert stream.result().status == FAILED
    assert stream.failed().reason == "CAPABILITY_MISSING"


def test_a_frame_the_engine_holds_while_its_model_is_reloaded_is_computed_anew(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    assert begin(stream, engine).version == engine.models["full"].version

    engine.serves(reloaded(engine.models))
    engine.answers(strict(engine))
    result = stream.result()

    assert (result.frame_id, result.status, result.info.version) == (1, OK, "f" * 16)


def test_a_frame_that_would_be_computed_anew_gives_way_to_a_newer_one(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    for number in (2, 3):
        stream.send(frame(number))
    assert stream.result().frame_id == 2  # so the third waits now

    engine.serves(reloaded(engine.models))
    engine.answers(strict(engine))
    found = [stream.result(), stream.result()]

    assert [(r.frame_id, r.status) for r in found] == [(1, SUPERSEDED), (3, OK)]


def test_pairs_are_as_far_apart_as_the_model_that_serves_now_wants_them(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(strict(engine))
    stream, now = camera(latent_actions=True, embed=False), time.time()
    stream.ready()
    engine.serves(reloaded(engine.models))

    results = []
    for number in (1, 2, 3, 4):
        stream.send(frame(number, now + number * INTERVAL))
        results.append(stream.result())

    assert [r.latent_action_status for r in results] == [UNPAIRED, UNPAIRED, PAIRED, PAIRED]
    assert [r.earlier_frame_id for r in results[2:]] == [1, 2]


def test_while_the_engine_is_away_frames_fail_and_the_stream_goes_on(
    camera: Callable[..., Camera], engine: ScriptedEngine, entries: Mapping[str, ModelEntry]
) -> None:
    engine.answers(strict(engine))
    stream = camera()
    stream.ready()

    engine.serves({})
    stream.send(frame(1))
    away = stream.result()
    engine.serves(entries)
    stream.send(frame(2))

    assert (away.status, reason(away.error.reason)) == (FAILED, "ENGINE_UNAVAILABLE")
    assert away.error.HasField("retry_delay")
    assert stream.result().status == OK


def test_a_stream_stays_with_its_model_when_another_becomes_the_default(
    camera: Callable[..., Camera], engine: ScriptedEngine, entries: Mapping[str, ModelEntry]
) -> None:
    engine.answers(strict(engine))
    stream = camera()
    stream.ready()

    fresh = reloaded(entries)
    fresh["full"] = msgspec.structs.replace(fresh["full"], default=False)
    fresh["bare"] = msgspec.structs.replace(fresh["bare"], default=True)
    engine.serves(fresh)
    stream.send(frame(1))

    assert stream.result().info.model == "full"


# ---------------------------------------------------------------- a whole worker


@pytest.fixture
def live(loop: Loop, bare_folder: Path, tmp_path: Path, tokens: Path) -> Iterator[Inline]:
    """A worker that serves `arm`, of which there is a newer version."""
    models = Repository(tmp_path / "models")
    models.publish(bare_folder, "arm")
    served = Inline(
        loop, ADMIN, repository=str(tmp_path / "models"), models=("arm",), tokens=tokens
    )
    write_bare(tmp_path / "newer", 3)
    models.publish(tmp_path / "newer", "arm")
    yield served
    served.close()


def test_a_live_streams_vectors_are_those_of_the_space_they_name(live: Inline) -> None:
    pooled = vector(kind=2)
    stream = Camera(live.client, stream_pb2.StreamSetup(embed=True, vector=pooled))
    stream.ready()
    stream.send(frame(1))
    before = stream.result()

    live.client.ask("LoadModel", model_pb2.LoadModelRequest(name="arm"))
    stream.send(frame(2))
    after = stream.result()
    unary = live.client.ask("EmbedImages", images(vector=pooled))
    stream.close()

    wanted = unary.results[0].embedding
    assert before.embedding.space_id != after.embedding.space_id == wanted.space_id
    assert after.info.version == unary.info.version
    np.testing.assert_allclose(array(after.embedding.values), array(wanted.values), atol=1e-5)
