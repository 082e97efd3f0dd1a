"""A whole worker in this process: models come and go while it serves, and so may the engine."""

import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bundles import write_bare
from tests.server.worker.asking import ADMIN, images, options
from tests.server.worker.messages import array
from tests.server.worker.serving import PATIENCE, Caller, Inline, Loop, Told

from tectum.v1 import model_pb2
from tectum_core.bundle import Repository
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.computing import running
from tectum_server.worker.engine.computing.operations import run_batch
from tectum_server.worker.engine.scheduling import scheduler
from tectum_server.worker.serve import CannotServe


@pytest.fixture
def root(tmp_path: Path, bare_folder: Path) -> Path:
    """A repository that holds `arm`."""
    Repository(tmp_path / "models").publish(bare_folder, "arm")
    return tmp_path / "models"


@pytest.fixture
def admin(loop: Loop, root: Path, tokens: Path) -> Iterator[Caller]:
    """An admin's client of a worker that serves `arm`."""
    served = Inline(
        loop, ADMIN, repository=str(root), models=("arm",), max_batch=2, tokens=str(tokens)
    )
    yield served.client
    served.close()


def load(admin: Caller, name: str = "arm", **request: Any) -> Any:
    return admin.ask("LoadModel", model_pb2.LoadModelRequest(name=name, **request)).model


def version(admin: Caller, model: str = "") -> str:
    answer = admin.ask("EmbedImages", images(options=options(model=model)))
    return str(answer.info.version)


def publish(root: Path, seed: int, name: str = "arm") -> str:
    folder = root.parent / f"seed-{seed}"
    if not folder.exists():
        write_bare(folder, seed)
    return Repository(root).publish(folder, name)


def test_a_newer_version_goes_live_without_a_pause(admin: Caller, root: Path) -> None:
    before = array(admin.ask("EmbedImages", images()).results[0].embedding.values)
    newer = publish(root, 3)
    calls = [admin.begin("EmbedImages", images()) for _ in range(20)]

    model = load(admin)

    assert (model.version, model.state) == (newer, model_pb2.MODEL_STATE_READY)
    assert model.default_model
    assert version(admin) == newer
    assert all(call.result().results for call in calls)  # none was lost
    after = array(admin.ask("EmbedImages", images()).results[0].embedding.values)
    assert not np.allclose(before, after, atol=1e-3)


def test_a_named_version_is_loaded(admin: Caller, root: Path, bare: Predictor) -> None:
    publish(root, 3)

    assert load(admin, version=bare.bundle.version).version == bare.bundle.version


def test_another_model_comes_becomes_the_default_and_the_old_one_goes(
    admin: Caller, root: Path
) -> None:
    leg = publish(root, 4, "leg")
    admin.health_becomes("SERVING", "arm")

    assert load(admin, "leg", make_default=True).default_model
    admin.health_becomes("SERVING", "leg")
    assert version(admin) == leg
    admin.ask("UnloadModel", model_pb2.UnloadModelRequest(name="arm"))
    admin.health_becomes("SERVICE_UNKNOWN", "arm")

    told = admin.refused("EmbedImages", images(options=options(model="arm")))
    assert (told.code, told.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
    listed = admin.ask("ListModels", model_pb2.ListModelsRequest()).models
    assert [(m.name, m.default_model) for m in listed] == [("leg", True)]


def corrupt(root: Path, what: str) -> None:
    """Publish a version of `arm` that cannot be served."""
    folder = root.parent / "corrupt"
    write_bare(folder, 9)
    if what == "weights":
        (folder / "model.safetensors").write_bytes(b"\0" * 64)
    elif what == "config":
        config = json.loads((folder / "config.json").read_text())
        config["images"]["interpolation"] = "bicubic"
        (folder / "config.json").write_text(json.dumps(config))
    else:
        (folder / "golden.safetensors").unlink()
    Repository(root).publish(folder, "arm")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("weights", "model.safetensors"),
        ("config", "does not reproduce its golden outputs"),
        ("golden", "golden.safetensors is missing"),
    ],
)
def test_a_version_that_cannot_be_served_leaves_the_old_one_serving(
    admin: Caller, root: Path, bare: Predictor, what: str, words: str
) -> None:
    corrupt(root, what)

    told = admin.refused("LoadModel", model_pb2.LoadModelRequest(name="arm"))

    assert (told.code, told.reason) == ("FAILED_PRECONDITION", "BUNDLE_REJECTED")
    assert words in told.message
    assert version(admin) == bare.bundle.version
    assert admin.health("arm") == "SERVING"


@pytest.mark.parametrize(
    ("rpc", "request_", "code", "reason", "fields"),
    [
        (
            "LoadModel",
            model_pb2.LoadModelRequest(name="leg"),
            "NOT_FOUND",
            "MODEL_NOT_FOUND",
            ("name",),
        ),
        (
            "LoadModel",
            model_pb2.LoadModelRequest(name="arm", version="0" * 16),
            "NOT_FOUND",
            "MODEL_NOT_FOUND",
            ("name",),
        ),
        (
            "LoadModel",
            model_pb2.LoadModelRequest(name="../../etc"),
            "NOT_FOUND",
            "MODEL_NOT_FOUND",
            ("name",),
        ),
        ("LoadModel", model_pb2.LoadModelRequest(), "INVALID_ARGUMENT", "FIELD_MISSING", ("name",)),
        (
            "UnloadModel",
            model_pb2.UnloadModelRequest(),
            "INVALID_ARGUMENT",
            "FIELD_MISSING",
            ("name",),
        ),
        (
            "UnloadModel",
            model_pb2.UnloadModelRequest(name="leg"),
            "NOT_FOUND",
            "MODEL_NOT_FOUND",
            ("name",),
        ),
        (
            "UnloadModel",
            model_pb2.UnloadModelRequest(name="arm"),
            "INVALID_ARGUMENT",
            "FIELD_OUT_OF_RANGE",
            ("name",),
        ),
    ],
)
def test_what_cannot_be_loaded_or_unloaded_is_named(
    admin: Caller, rpc: str, request_: Any, code: str, reason: str, fields: tuple[str, ...]
) -> None:
    told = admin.refused(rpc, request_)

    assert (told.code, told.reason, told.fields) == (code, reason, fields)


def test_metrics_are_scraped_where_the_settings_say(loop: Loop, root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served = Inline(loop, repository=str(root), models=("arm",), max_batch=1, metrics_port=port)
    version(served.client)

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        text = response.read().decode()
    served.close()

    assert 'tectum_batch_size_count{model="arm",op="embed_images"} 1.0' in text
    assert 'rpc="EmbedImages"' in text


def test_calls_that_draining_does_not_wait_for_are_told_so_and_make_the_end_an_error(
    loop: Loop, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Inline(loop, repository=str(root), models=("arm",), max_batch=1, drain_timeout=0.3)
    begun, free = threading.Event(), threading.Event()

    def held(*work: Any) -> Any:
        begun.set()
        free.wait(PATIENCE)
        return run_batch(*work)

    monkeypatch.setattr(running, "run_batch", held)
    call = served.client.begin("EmbedImages", images())
    assert begun.wait(PATIENCE)

    call.add_done_callback(lambda _: free.set())
    with pytest.raises(CannotServe, match=r"were not finished within 0\.3 s"):
        served.stop()

    told = Told.of(call.exception())
    assert (told.code, told.reason, told.retries) == ("UNAVAILABLE", "DRAINING", True)
    served.client.close()


def test_an_engine_that_breaks_is_told_by_health_and_ends_the_worker(
    loop: Loop, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Inline(loop, repository=str(root), models=("arm",), max_batch=1)
    watching = threading.Thread(target=served.client.health_becomes, args=("NOT_SERVING", "arm"))
    watching.start()

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of its own")

    monkeypatch.setattr(scheduler, "account", broken)
    told = served.client.refused("EmbedImages", images())

    assert (told.code, told.reason, told.retries) == ("UNAVAILABLE", "ENGINE_UNAVAILABLE", True)
    watching.join()
    with pytest.raises(CannotServe, match="the engine failed; the log says why"):
        served.close()
