"""What is measured and logged of calls and streams, however they end."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.worker.asking import NO_IMAGE, STRANGER, images, options, similar
from tests.server.worker.frames import begin, frame
from tests.server.worker.messages import floats
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Caller, Camera, Fronted, until

from tectum.v1 import errors_pb2, model_pb2, stream_pb2
from tectum_server.worker.failure import CODES, Failure, reason_name

Setup = stream_pb2.StreamSetup


def counted(front: Fronted) -> dict[tuple[str, str, str], float]:
    """Streams by model, priority and code."""
    return {
        (s.labels["model"], s.labels["priority"], s.labels["code"]): s.value
        for metric in front.registry.collect()
        for s in metric.samples
        if s.name == "tectum_request_duration_seconds_count"
        and s.labels["rpc"] == "StreamPerception"
    }


def told(log: pytest.LogCaptureFixture, rpc: str) -> list[dict[str, Any]]:
    """What the log says of calls."""
    return [vars(record) for record in log.records if vars(record).get("rpc") == rpc]


# ---------------------------------------------------------------- metrics of streams


def test_a_stream_that_ends_well_is_counted(front: Fronted, engine: ScriptedEngine) -> None:
    stream = Camera(front.client, Setup(embed=True))
    stream.ready()
    stream.finish()
    until(lambda: bool(counted(front)))

    assert counted(front) == {("full", "control", "OK"): 1}


def test_a_stream_whose_client_hangs_up_is_counted(front: Fronted, engine: ScriptedEngine) -> None:
    stream = Camera(front.client, Setup(embed=True, options=options(priority=3)))
    stream.ready()
    begin(stream, engine)

    stream.close()
    until(lambda: bool(counted(front)))

    assert counted(front) == {("full", "bulk", "CANCELLED"): 1}


def test_a_name_that_a_streams_client_made_up_is_no_label(
    front: Fronted, engine: ScriptedEngine
) -> None:
    for name in ("x" * 500, "y" * 500):
        Camera(front.client, Setup(embed=True, options=options(model=name))).failed()

    assert counted(front) == {("", "control", "NOT_FOUND"): 2}


def test_a_stream_that_fails_after_its_setup_is_counted_with_its_model_and_priority(
    front: Fronted, engine: ScriptedEngine
) -> None:
    asked = Setup(embed=True, options=options(priority=2, expected_space_ids=["0" * 16]))

    Camera(front.client, asked).failed()

    assert counted(front) == {("full", "interactive", "FAILED_PRECONDITION"): 1}


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("number", sorted(CODES), ids=lambda number: reason_name(number))
def test_what_is_refused_is_counted_and_what_is_wrong_of_itself_is_not(
    front: Fronted, engine: ScriptedEngine, number: errors_pb2.ErrorReason.ValueType
) -> None:
    engine.answers(lambda _: Failure(number, "because"))
    counted = {
        "CREDENTIALS_INVALID",
        "DEADLINE_INFEASIBLE",
        "DEADLINE_UNREACHABLE",
        "DRAINING",
        "ENGINE_UNAVAILABLE",
        "MESSAGE_TOO_LARGE",
        "MODEL_LOADING",
        "PERMISSION_MISSING",
        "QUEUE_FULL",
    }

    name = front.client.refused("EmbedImages", images()).reason

    found = front.metric("tectum_requests_refused_total", reason=name.lower())
    assert found == (1 if name in counted else None)


def test_who_has_no_credentials_is_counted_under_their_reason_alone(
    fronted: Callable[..., Fronted], tokens: Path
) -> None:
    front = fronted(tokens=tokens)

    for token in ("", STRANGER, "made up"):
        caller = Caller(front.port, token)
        caller.refused("EmbedImages", images())
        caller.close()
    Camera(front.client, Setup(embed=True)).failed()

    (counter,) = (m for m in front.registry.collect() if m.name == "tectum_requests_refused")
    found = {s.labels["reason"]: s.value for s in counter.samples if s.name.endswith("_total")}
    assert found == {"credentials_invalid": 4}


# ---------------------------------------------------------------- the log


def test_each_call_has_its_line(
    front: Fronted, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.answers(zeros)
    with caplog.at_level(logging.INFO):
        front.client.ask("EmbedImages", images(), x_request_id="r-1")
        front.client.refused("EmbedImages", images(NO_IMAGE), x_request_id="r-2")
        front.client.ask("ListModels", model_pb2.ListModelsRequest(), x_request_id="r-3")

    lines = told(caplog, "EmbedImages")
    found = [(line["request_id"], line["model"], line["code"]) for line in lines]
    assert found == [("r-1", "full", "OK"), ("r-2", "full", "INVALID_ARGUMENT")]
    assert all(line["seconds"] > 0 for line in lines)
    assert "images[0].encoded" in lines[1]["error"]
    assert [line["request_id"] for line in told(caplog, "ListModels")] == ["r-3"]


@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_stream_has_one_line_with_what_became_of_its_frames(
    front: Fronted, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture, hangs_up: bool
) -> None:
    engine.answers(zeros)
    stream = Camera(front.client, Setup(embed=True), x_request_id="r-8")
    with caplog.at_level(logging.INFO):
        stream.ready()
        for number, image in enumerate((None, NO_IMAGE, None)):
            sent = frame(number) if image is None else frame(number, image=image)
            stream.send(sent)
            stream.result()
        if hangs_up:
            stream.close()
        else:
            stream.finish()
        until(lambda: bool(told(caplog, "StreamPerception")))

    (line,) = told(caplog, "StreamPerception")
    assert (line["request_id"], line["model"]) == ("r-8", "full")
    assert line["code"] == ("CANCELLED" if hangs_up else "OK")
    assert line["frames"] == {"ok": 2, "failed": 1}


# ---------------------------------------------------------------- callers' own words


def test_however_much_is_wrong_the_caller_is_told_it_every_time(
    front: Fronted, engine: ScriptedEngine
) -> None:
    codes = Counter[str]()
    for _ in range(10):
        refused = front.client.refused("EmbedImages", images(*[NO_IMAGE] * 64))
        codes[refused.code] += 1

    assert codes == {"INVALID_ARGUMENT": 10}
    assert refused.fields[0] == "images[0].encoded"
    assert len(refused.fields) < 64


@pytest.mark.parametrize("length", [100, 20_000, 1_000_000])
def test_a_callers_long_words_come_back_short(
    front: Fronted, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    long = "ä" * length
    mine = {"embedding": {"values": floats(np.ones(16)), "space_id": long}}
    asked = {
        "ComputeSimilarity": (similar([mine], [mine]), "SPACE_MISMATCH"),
        "EmbedImages": (
            images(options=options(expected_space_ids=[long] * 8)),
            "SPACE_MISMATCH",
        ),
        "GetModel": (model_pb2.GetModelRequest(model=long), "MODEL_NOT_FOUND"),
    }
    with caplog.at_level(logging.INFO):
        for rpc, (request, wanted) in asked.items():
            assert front.client.refused(rpc, request).reason == wanted

    assert all(len(str(vars(record))) < 4000 for record in caplog.records)
