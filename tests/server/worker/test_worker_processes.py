"""A worker of several processes: the same answers, and it survives what an operator sees.

Starting one takes seconds, so the tests share one wherever they leave it as it was.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.bundles import SCALING, picture, write_bare
from tests.server.worker.asking import (
    ADMIN,
    IMAGE,
    fill,
    images,
    mask,
    options,
    pairs,
    rollout,
    steps,
    texts,
)
from tests.server.worker.frames import OK, frame
from tests.server.worker.messages import array, raw
from tests.server.worker.processes import ENGINE, FRONT, Processes, gone
from tests.server.worker.serving import PATIENCE, Caller, Camera, Told

from tectum.v1 import model_pb2, stream_pb2
from tectum_core.bundle import Repository
from tectum_core.predictor import Predictor

NAMES = (
    "tectum_request_duration_seconds_bucket",
    "tectum_queue_duration_seconds_bucket",
    "tectum_compute_duration_seconds_bucket",
    "tectum_decode_duration_seconds_bucket",
    "tectum_batch_size_bucket",
    "tectum_queue_depth",
    "tectum_requests_refused_total",
    "tectum_stream_frames_total",
    "tectum_stream_age_seconds_bucket",
    "tectum_streams_open",
    "tectum_model_info",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, full_folder: Path, bare_folder: Path) -> Path:
    """A repository of this file's own."""
    root = tmp_path_factory.mktemp("processes") / "models"
    Repository(root).publish(full_folder, "full")
    Repository(root).publish(bare_folder, "bare")
    return root


@pytest.fixture(scope="module")
def started(root: Path, tokens: Path) -> Iterator[dict[str, Processes]]:
    """All the workers that these tests need; they start side by side."""
    folder = root.parent
    workers = {
        "shared": Processes(
            folder / "shared",
            repository=root,
            models=("full", "bare"),
            tokens=tokens,
            max_message_bytes=1_000_000,
        ),
        "drained": Processes(folder / "drained", repository=root, models=("bare",)),
    }
    yield workers
    for worker in workers.values():
        worker.close()


@pytest.fixture(scope="module")
def shared(started: dict[str, Processes]) -> Processes:
    """The worker that the tests share."""
    return started["shared"]


@pytest.fixture(scope="module")
def admin(shared: Processes) -> Caller:
    """An admin's client of it."""
    return shared.client(ADMIN)


# ---------------------------------------------------------------- the same answers


def test_answers_through_processes_are_the_predictors(admin: Caller, full: Predictor) -> None:
    pictures = [picture(seed) for seed in range(6)]

    served = admin.ask("EmbedImages", images(*map(raw, pictures))).results

    found = np.stack([array(result.embedding.values) for result in served])
    wanted = full.embed_images(pictures, "joint")
    assert float((found * wanted).sum(-1).min()) >= 0.99999


def test_every_kind_of_work_crosses_the_processes(admin: Caller, full: Predictor) -> None:
    spoken = admin.ask("EmbedTexts", texts("open the door")).results[0].embedding
    filled = admin.ask("Reconstruct", fill(text={"text": "open the [MASK]"})).text
    painted = admin.ask("Reconstruct", fill(image=IMAGE, mask=mask(hidden=[3]))).image
    moved = admin.ask("Reconstruct", fill(actions=steps(), mask=mask(kind=2))).actions
    latent = admin.ask("PredictLatentActions", pairs(3, decode_actions=True)).results
    rolled = admin.ask("Rollout", rollout(goal=IMAGE, return_latents=True)).results

    np.testing.assert_allclose(
        array(spoken.values), full.embed_texts(["open the door"])[0], atol=1e-5
    )
    assert [token.hidden for token in filled.tokens] == [False, False, True]
    assert np.flatnonzero(array(painted.mask)).tolist() == [3]
    assert array(moved.actions).shape == (8, len(SCALING.names))
    assert [array(r.latent_action.decoded_actions).shape for r in latent] == [(4, 4)] * 2
    assert [array(r.rollout.goal_distances).shape for r in rolled] == [(2,)] * 3
    assert [array(r.rollout.latents.values).shape for r in rolled] == [(2, 16, 32)] * 3


def test_a_live_stream_crosses_the_processes(admin: Caller) -> None:
    camera = Camera(admin, stream_pb2.StreamSetup(embed=True))
    camera.ready()
    for number in range(3):
        camera.send(frame(number))
        assert camera.result().status == OK

    assert camera.finish() == []


def test_one_bad_item_costs_only_itself_through_processes(admin: Caller) -> None:
    told = admin.refused("Reconstruct", fill(image=IMAGE, mask=mask(hidden=[99])))

    assert (told.reason, told.fields) == ("FIELD_OUT_OF_RANGE", ("mask.hidden",))


def test_metrics_of_all_processes_are_scraped_on_one_port(admin: Caller, shared: Processes) -> None:
    admin.ask("EmbedImages", images(IMAGE))
    camera = Camera(admin, stream_pb2.StreamSetup(embed=True))
    camera.ready()
    camera.send(frame(1))
    assert camera.result().status == OK
    told = admin.refused("EmbedImages", images(raw(np.zeros((600, 600, 3), np.uint8))))

    text = shared.scrape()
    camera.close()

    assert told.reason == "MESSAGE_TOO_LARGE"
    assert "tectum_streams_open 1.0" in text
    assert [name for name in NAMES if name not in text] == []
    assert 'tectum_requests_refused_total{reason="message_too_large"} 1.0' in text
    assert 'tectum_batch_size_count{model="full",op="embed_images"}' in text
    assert 'rpc="EmbedImages"' in text


def test_models_are_loaded_and_rejected_through_processes(
    admin: Caller, root: Path, tmp_path: Path
) -> None:
    write_bare(tmp_path / "newer", 7)
    newer = Repository(root).publish(tmp_path / "newer", "bare")
    model = admin.ask("LoadModel", model_pb2.LoadModelRequest(name="bare")).model
    write_bare(tmp_path / "broken", 8)
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"\0" * 50)
    Repository(root).publish(tmp_path / "broken", "bare")

    told = admin.refused("LoadModel", model_pb2.LoadModelRequest(name="bare"))
    Repository(root).publish(tmp_path / "newer", "bare")

    assert model.version == newer
    assert (told.code, told.reason) == ("FAILED_PRECONDITION", "BUNDLE_REJECTED")
    answer = admin.ask("EmbedImages", images(options=options(model="bare")))
    assert answer.info.version == newer


# ---------------------------------------------------------------- what an operator sees


def test_a_killed_engine_is_replaced_under_living_connections(
    admin: Caller, shared: Processes
) -> None:
    engine, front = shared.child(ENGINE), shared.child(FRONT)
    assert admin.health("full") == "SERVING"

    os.kill(engine, signal.SIGKILL)
    admin.health_becomes("NOT_SERVING", "full")
    told = admin.refused("EmbedImages", images())
    unhealthy = admin.health()
    admin.health_becomes("SERVING", "full")

    assert (told.code, told.reason, told.retries) == ("UNAVAILABLE", "ENGINE_UNAVAILABLE", True)
    assert unhealthy == "NOT_SERVING"
    assert admin.ask("EmbedImages", images()).results
    assert shared.child(FRONT) == front
    assert shared.child(ENGINE) != engine
    left = [path.name for path in shared.folder.rglob("gauge_livesum_*.db")]
    assert f"gauge_livesum_{engine}.db" not in left  # the dead engine's queue is nobody's
    assert left


def test_terminated_under_load_it_answers_what_it_took_and_exits_with_zero(
    started: dict[str, Processes],
) -> None:
    worker = started["drained"]
    client = worker.client()
    children = list(worker.children())
    many = images(*[raw(picture(seed, 200, 200)) for seed in range(4)])
    calls = [client.begin("EmbedImages", many) for _ in range(60)]
    calls[0].result()

    worker.signal(signal.SIGTERM)

    outcomes = []
    for call in calls:
        error = call.exception()
        if error is None:
            outcomes.append("OK")
            assert len(call.result().results) == 4
        else:
            outcomes.append(Told.of(error).reason)  # a lost call would have no details
    assert set(outcomes) <= {"OK", "DRAINING", "QUEUE_FULL"}
    assert outcomes.count("OK") >= 1
    assert worker.wait() == 0
    gone(*children)
    with pytest.raises(grpc.RpcError):
        client.ask("EmbedImages", images(), timeout=5)


def test_an_end_that_leaves_calls_unfinished_is_an_error(root: Path, tmp_path: Path) -> None:
    worker = Processes(tmp_path / "held", repository=root, models=("bare",), drain_timeout=0.5)
    try:
        client = worker.client()
        client.ask("EmbedImages", images())
        os.kill(worker.child(ENGINE), signal.SIGSTOP)
        calls = [client.begin("EmbedImages", images()) for _ in range(3)]
        assert client.health() == "SERVING"  # a round trip
        time.sleep(0.2)  # by now the first of them at least has been taken

        worker.signal(signal.SIGTERM)
        told = [Told.of(call.exception()) for call in calls]

        assert {(one.code, one.reason, one.retries) for one in told} == {
            ("UNAVAILABLE", "DRAINING", True)
        }
        assert "were not finished within 0.5 s" in worker.said()["error"]
        assert worker.wait() == 3
        assert "gave up draining" in worker.log.read_text()
    finally:
        worker.close()


# ---------------------------------------------------------------- starts that fail


def test_a_start_that_fails_says_why_and_leaves_no_process(root: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        workers = {
            "port": Processes(tmp_path / "port", repository=root, models=("bare",), port=port),
            "metrics": Processes(
                tmp_path / "metrics", repository=root, models=("bare",), metrics_port=port
            ),
            "model": Processes(tmp_path / "model", repository=root, models=("leg",)),
            "tokens": Processes(
                tmp_path / "tokens", repository=root, models=("bare",), tokens="nowhere.json"
            ),
            "device": Processes(
                tmp_path / "device", repository=root, models=("bare",), device="cuda:99"
            ),
            "key": Processes(
                tmp_path / "key",
                repository=root,
                models=("bare",),
                tls_certificate="nowhere.pem",
                tls_key="nowhere.pem",
            ),
        }
        errors = {name: str(worker.said()["error"]) for name, worker in workers.items()}
        codes = {name: worker.wait() for name, worker in workers.items()}

    logs = [worker.log.read_text() for worker in workers.values()]
    for worker in workers.values():
        worker.close()
        assert not worker.children()
    assert set(codes.values()) == {3}
    assert f":{port} is in use" in errors["port"]
    assert "--port" in errors["port"]
    assert f"port {port} for metrics is in use" in errors["metrics"]
    assert "--metrics-port" in errors["metrics"]
    told_twice = workers["model"].log.read_text().count("no bundle named") > 1
    assert not told_twice
    assert not any("add_port" in log for log in logs), "grpc's own words"
    assert errors["model"] == "no bundle named 'leg' here; there are: bare, full"
    assert "nowhere.json" in errors["tokens"]
    assert errors["device"].startswith("device 'cuda:99': ")
    assert "nowhere.pem" in errors["key"]
    assert not any("Traceback" in log or "never retrieved" in log for log in logs)


def test_a_temporary_folder_may_have_a_longer_path_than_a_socket(
    root: Path, tmp_path: Path
) -> None:
    worker = Processes(tmp_path / ("long" * 30), repository=root, models=("bare",))

    assert len(worker.client().ask("EmbedImages", images()).results) == 1

    worker.close()


def test_a_front_whose_supervisor_goes_before_any_model_serves_ends_too(tmp_path: Path) -> None:
    told = {
        "settings": {"repository": "nowhere", "models": ["arm"], "port": 0},
        "sockets": [str(tmp_path / "engine.sock")],
        "port": None,
        "shared": "tectum-x",
    }
    with subprocess.Popen(
        [sys.executable, "-m", FRONT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as front:
        assert front.stdin is not None
        assert front.stdout is not None
        front.stdin.write(json.dumps(told) + "\n")
        front.stdin.flush()
        said = json.loads(front.stdout.readline())
        client = Caller(said["port"])
        assert client.refused("EmbedImages", images()).reason == "ENGINE_UNAVAILABLE"
        client.close()

        front.stdin.close()  # what a dead supervisor's pipe does

        assert front.wait(PATIENCE) == 0


# ---------------------------------------------------------------- and last, for nobody needs it now


def test_when_the_supervisor_is_killed_its_children_end(admin: Caller, shared: Processes) -> None:
    admin.health_becomes("SERVING")
    children = shared.children()
    assert len(children) == 2

    shared.signal(signal.SIGKILL)

    gone(*children)
    assert shared.wait() == -signal.SIGKILL
