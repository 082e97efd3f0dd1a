"""Rollouts in the front: two jobs, what candidates share, and models that read other actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.server.worker.asking import IMAGE, NO_IMAGE, pairs, rollout
from tests.server.worker.messages import array, floats, reason
from tests.server.worker.scripted import ScriptedEngine
from tests.server.worker.serving import Caller, Fronted, Told

from tectum.v1 import call_pb2, errors_pb2, model_pb2, rollout_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    EmbedImages,
    ItemFailure,
    ItemOutput,
    Job,
    JobResult,
    ModelEntry,
    Rollout,
)


def with_world(entries: Mapping[str, ModelEntry], **changes: Any) -> dict[str, ModelEntry]:
    """The models, the world model of `full` another one."""
    full = entries["full"]
    description = model_pb2.Model.FromString(full.description)
    for name, value in changes.items():
        setattr(description.input.world_model, name, value)
    fresh = msgspec.structs.replace(full, description=description.SerializeToString())
    return {**entries, "full": fresh}


def answered(job: Job, *outputs: ItemOutput | ItemFailure) -> JobResult:
    """One job's answer; by default distances that count the candidates."""
    nothing, no_pixels = np.zeros(0, np.float32), np.zeros(0, np.uint8)
    tokens = np.ones((16, 32), np.float32)
    if isinstance(job.operation, EmbedImages):
        found: tuple[Any, ...] = tuple(ItemOutput((tokens * i,)) for i in range(len(job.items)))
    else:
        found = tuple(
            ItemOutput((nothing, np.full(2, index, np.float32), no_pixels))
            for index in range(len(job.items))
        )
    return JobResult(job.version, outputs or found, 0.0, 0.0, len(job.items))


Answers = Callable[[rollout_pb2.RolloutRequest], tuple[Any, list[Job]]]


@pytest.fixture
def ask(front: Fronted, engine: ScriptedEngine) -> Answers:
    """Ask, and see the jobs that it takes."""

    def answer(request: rollout_pb2.RolloutRequest) -> tuple[Any, list[Job]]:
        engine.answers(answered)
        found = front.client.ask("Rollout", request)
        return found, [engine.begun.get(timeout=30) for _ in range(engine.begun.qsize())]

    return answer


# ---------------------------------------------------------------- two jobs


def test_each_frame_is_looked_at_once_whatever_the_candidates(ask: Answers) -> None:
    _, (first, second) = ask(rollout(seen=2, count=5, goal=IMAGE))

    assert first.operation == EmbedImages("tokens")
    assert len(first.items) == 3
    assert second.operation == Rollout(
        frames=2, seen=2, has_actions=True, has_goal=True, return_latents=False, decode_frames=False
    )
    assert len(second.items) == 5


def test_the_first_job_tells_what_will_be_asked_for_after_it(ask: Answers) -> None:
    _, (first, second) = ask(rollout(seen=2, count=5, goal=IMAGE))

    assert first.sequel is not None
    assert first.sequel.operation == second.operation
    assert first.sequel.items == len(second.items)
    assert second.sequel is None


def test_candidates_share_what_was_seen_and_the_goal(ask: Answers) -> None:
    request = rollout(seen=2, count=3, goal=IMAGE)

    _, (_, job) = ask(request)

    first = job.items[0].arrays
    assert [one.shape for one in first] == [(2, 16, 32), (4, 4), (8, 4), (16, 32)]
    for item in job.items[1:]:
        shared = [one is other for one, other in zip(item.arrays, first, strict=True)]
        assert shared == [True, True, False, True]  # the link sends what they share once
    given = array(request.candidates)
    assert all(np.array_equal(i.arrays[2], g) for i, g in zip(job.items, given, strict=True))
    assert first[0][:, 0, 0].tolist() == [0, 1]
    assert first[3][0, 0] == 2


def test_a_single_frame_has_nothing_before_it(ask: Answers) -> None:
    _, (_, job) = ask(rollout(seen=1))

    assert [one.shape for one in job.items[0].arrays] == [(1, 16, 32), (0, 4), (8, 4)]


def test_answers_come_in_the_candidates_order(ask: Answers) -> None:
    found, _ = ask(rollout(count=4, goal=IMAGE))

    distances = [array(result.rollout.goal_distances)[0] for result in found.results]
    assert distances == [0, 1, 2, 3]
    assert found.info.timings.batch_size == 4


def test_what_was_not_asked_for_is_absent(worker: Caller) -> None:
    found = [result.rollout for result in worker.ask("Rollout", rollout()).results]

    for one in found:
        assert not one.HasField("latents")
        assert not one.HasField("goal_distances")
        assert not one.frames


@pytest.mark.parametrize(("data_type", "dtype"), [(0, "float32"), (2, "float16"), (3, "int8")])
def test_latents_travel_in_the_type_asked_for(worker: Caller, data_type: int, dtype: str) -> None:
    request = rollout(return_latents=True, data_type=data_type)

    latents = worker.ask("Rollout", request).results[0].rollout.latents

    assert array(latents.values).shape == (2, 16, 32)
    assert array(latents.values).dtype == dtype
    assert latents.HasField("scale") == (dtype == "int8")


# ---------------------------------------------------------------- failures


def test_a_frame_that_cannot_be_read_ends_it_before_anything_is_computed(
    front: Fronted, engine: ScriptedEngine
) -> None:
    told = front.client.refused("Rollout", rollout(frames=[IMAGE, NO_IMAGE]))

    assert (told.code, told.fields) == ("INVALID_ARGUMENT", ("frames[1].encoded",))
    assert engine.begun.empty()


def test_a_frame_that_cannot_be_embedded_ends_it_by_its_name(
    front: Fronted, engine: ScriptedEngine
) -> None:
    lost = ItemFailure(errors_pb2.ERROR_REASON_INTERNAL, "lost")
    engine.answers(lambda job: answered(job, *answered(job).outputs[:-1], lost))

    told = front.client.refused("Rollout", rollout(goal=IMAGE))

    assert (told.code, told.reason) == ("INTERNAL", "INTERNAL")
    assert told.message == "goal: lost"


def test_a_candidate_that_fails_costs_only_itself(front: Fronted, engine: ScriptedEngine) -> None:
    lost = ItemFailure(errors_pb2.ERROR_REASON_INTERNAL, "lost")

    def answer(job: Job) -> JobResult:
        if isinstance(job.operation, EmbedImages):
            return answered(job)
        one, _, three = answered(job).outputs
        return answered(job, one, lost, three)

    engine.answers(answer)

    results = front.client.ask("Rollout", rollout(count=3, goal=IMAGE)).results

    assert [result.WhichOneof("result") for result in results] == ["rollout", "error", "rollout"]
    assert results[1].error.field == "candidates[1]"
    assert reason(results[1].error.reason) == "INTERNAL"


def test_a_queue_that_is_full_is_told_with_a_time_to_ask_again(
    front: Fronted, engine: ScriptedEngine
) -> None:
    full = Failure(errors_pb2.ERROR_REASON_QUEUE_FULL, "full", retry_after=0.5)
    engine.answers(lambda job: answered(job) if isinstance(job.operation, EmbedImages) else full)

    told = front.client.refused("Rollout", rollout())

    assert (told.code, told.reason, told.retries) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", True)


@pytest.mark.parametrize("asked", [{"return_latents": True}, {"decode_frames": True}], ids=str)
def test_an_answer_larger_than_any_message_is_refused_before_it_is_made(
    fronted: Callable[..., Fronted], engine: ScriptedEngine, asked: dict[str, bool]
) -> None:
    request = rollout(count=12, steps=24, **asked)
    front = fronted(max_message_bytes=100_000)

    told = front.client.refused("Rollout", request)

    assert (told.reason, told.fields) == ("TOO_MANY_ITEMS", ("candidates",))
    assert "12 × 6 predicted frames would take" in told.message
    assert engine.begun.empty()


def test_a_model_without_the_decoder_says_so(front: Fronted, engine: ScriptedEngine) -> None:
    entries = dict(engine.models)
    description = model_pb2.Model.FromString(entries["full"].description)
    description.capabilities.remove(model_pb2.CAPABILITY_DECODE_ROLLOUTS)
    entries["full"] = msgspec.structs.replace(
        entries["full"], description=description.SerializeToString()
    )
    engine.serves(entries)

    told = front.client.refused("Rollout", rollout(decode_frames=True))

    assert (told.reason, "cannot decode rollouts" in told.message) == ("CAPABILITY_MISSING", True)


def test_a_model_whose_latent_actions_paint_no_frames_says_so(
    front: Fronted, engine: ScriptedEngine
) -> None:
    entries = dict(engine.models)
    description = model_pb2.Model.FromString(entries["full"].description)
    description.capabilities.remove(model_pb2.CAPABILITY_PREDICT_FRAMES)
    entries["full"] = msgspec.structs.replace(
        entries["full"], description=description.SerializeToString()
    )
    engine.serves(entries)

    told = front.client.refused("PredictLatentActions", pairs(predict_frames=True))

    assert (told.code, told.reason) == ("FAILED_PRECONDITION", "CAPABILITY_MISSING")
    assert "cannot predict frames" in told.message


# ---------------------------------------------------------------- latent actions, and none


LATENT = {"actions": model_pb2.WORLD_ACTIONS_LATENT, "action_steps": 1, "action_dimensions": 8}
NONE = {"actions": model_pb2.WORLD_ACTIONS_NONE, "action_steps": 0, "action_dimensions": 0}


def latent(engine: ScriptedEngine, **request: Any) -> rollout_pb2.RolloutRequest:
    """Roll out latent actions, of the model's own space unless said otherwise."""
    given = {
        "past_actions": floats(np.zeros((1, 8))),
        "candidates": floats(np.zeros((2, 3, 8))),
        "action_space_id": engine.models["full"].spaces["latent_action"],
        **request,
    }
    return rollout(**given)


def test_latent_actions_are_taken_in_their_own_space(ask: Answers, engine: ScriptedEngine) -> None:
    engine.serves(with_world(engine.models, **LATENT))

    _, (_, job) = ask(latent(engine))

    assert isinstance(job.operation, Rollout)
    assert job.operation.frames == 3
    assert [one.shape for one in job.items[0].arrays] == [(2, 16, 32), (1, 8), (3, 8)]


@pytest.mark.parametrize(("space", "wanted"), [("", "FIELD_MISSING"), ("0" * 16, "SPACE_MISMATCH")])
def test_latent_actions_of_no_or_another_space_are_refused(
    front: Fronted, engine: ScriptedEngine, space: str, wanted: str
) -> None:
    engine.serves(with_world(engine.models, **LATENT))

    told = front.client.refused("Rollout", latent(engine, action_space_id=space))

    assert (told.reason, told.fields) == (wanted, ("action_space_id",))
    assert engine.models["full"].spaces["latent_action"] in told.message


def test_without_actions_the_steps_are_told_and_there_is_one_rollout(
    ask: Answers, engine: ScriptedEngine
) -> None:
    engine.serves(with_world(engine.models, **NONE))

    found, (_, job) = ask(rollout_pb2.RolloutRequest(frames=[IMAGE] * 2, steps=4))

    assert isinstance(job.operation, Rollout)
    assert (job.operation.frames, job.operation.has_actions) == (4, False)
    assert [one.shape for one in job.items[0].arrays] == [(2, 16, 32)]
    assert len(found.results) == 1


ACTS = floats(np.zeros((1, 4, 4)))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"candidates": ACTS, "steps": 2}, "candidates"),
        ({"past_actions": ACTS, "steps": 2}, "past_actions"),
        ({"action_space_id": "a", "steps": 2}, "action_space_id"),
        ({}, "steps"),
        ({"steps": 7}, "steps"),
    ],
    ids=str,
)
def test_what_a_model_without_actions_cannot_read_is_refused(
    front: Fronted, engine: ScriptedEngine, request_: dict[str, Any], field: str
) -> None:
    engine.serves(with_world(engine.models, **NONE))

    told: Told = front.client.refused(
        "Rollout", rollout_pb2.RolloutRequest(frames=[IMAGE], **request_)
    )

    assert (told.reason, told.fields) == ("FIELD_OUT_OF_RANGE", (field,))


def test_candidates_for_a_model_without_actions_are_told_what_to_give(
    front: Fronted, engine: ScriptedEngine
) -> None:
    engine.serves(with_world(engine.models, **NONE))

    told = front.client.refused("Rollout", rollout(seen=1))

    assert told.message == "candidates: this model reads no actions: give steps, not candidates"


def test_steps_beside_candidates_are_refused(worker: Caller) -> None:
    request = rollout()
    request.steps = 2

    told = worker.refused("Rollout", request)

    assert (told.reason, told.fields) == ("FIELD_OUT_OF_RANGE", ("steps",))
    assert "the candidates say how many frames" in told.message


def test_pooled_vectors_are_asked_for_where_the_model_reads_those(
    ask: Answers, engine: ScriptedEngine
) -> None:
    pooled = {"latents": call_pb2.VECTOR_KIND_POOLED, "latent_count": 1}
    engine.serves(with_world(engine.models, **pooled))

    _, (first, _) = ask(rollout())

    assert first.operation == EmbedImages("pooled")
