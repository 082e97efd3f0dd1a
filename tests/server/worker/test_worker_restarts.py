"""An engine that dies is replaced by one that serves the same; and what the processes hold."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bundles import write_bare
from tests.server.worker.asking import ADMIN, images, options
from tests.server.worker.planted import asked_once
from tests.server.worker.processes import ENGINE, FRONT, Processes
from tests.server.worker.serving import Caller

from tectum.v1 import errors_pb2, model_pb2
from tectum_core.bundle import Repository

SERVE = "tectum_server.worker.serve"
"""Where the supervisor is begun."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, bare_folder: Path) -> Path:
    """A repository that holds `arm` and `leg`."""
    root = tmp_path_factory.mktemp("restarts") / "models"
    for name in ("arm", "leg"):
        Repository(root).publish(bare_folder, name)
    return root


@pytest.fixture(scope="module")
def worker(root: Path, tokens: Path) -> Iterator[Processes]:
    """A worker that began with `arm`."""
    worker = Processes(root.parent / "worker", repository=root, models=("arm",), tokens=tokens)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def admin(worker: Processes) -> Caller:
    """An admin's client of it."""
    return worker.client(ADMIN)


def serving(admin: Caller) -> dict[str, tuple[str, bool]]:
    """Version of each model, and whether it is the default."""
    listed = admin.ask("ListModels", model_pb2.ListModelsRequest()).models
    return {model.name: (model.version, model.default_model) for model in listed}


def kill_engine(worker: Processes, admin: Caller) -> None:
    """Kill it, and wait until another serves."""
    engine = worker.child(ENGINE)
    os.kill(engine, signal.SIGKILL)
    admin.health_becomes("NOT_SERVING")
    admin.health_becomes("SERVING")
    assert worker.child(ENGINE) != engine


def test_a_new_engine_serves_what_an_admin_loaded_and_nothing_else(
    worker: Processes, admin: Caller, root: Path
) -> None:
    write_bare(root.parent / "newer", 3)
    newer = Repository(root).publish(root.parent / "newer", "leg")
    admin.ask("LoadModel", model_pb2.LoadModelRequest(name="leg", make_default=True))
    told = admin.refused("LoadModel", model_pb2.LoadModelRequest(name="wing"))
    before = serving(admin)
    assert before["leg"] == (newer, True)
    write_bare(root.parent / "newest", 4)
    Repository(root).publish(root.parent / "newest", "leg")  # nobody asked for it

    kill_engine(worker, admin)

    assert told.reason == "MODEL_NOT_FOUND"  # and left nothing to remember
    assert serving(admin) == before
    assert admin.ask("EmbedImages", images()).info.model == "leg"
    admin.ask("UnloadModel", model_pb2.UnloadModelRequest(name="arm"))
    kill_engine(worker, admin)
    assert serving(admin) == {"leg": (newer, True)}
    gone = admin.refused("EmbedImages", images(options=options(model="arm")))
    assert gone.reason == "MODEL_NOT_FOUND"


def test_a_new_engine_serves_although_a_version_has_left_the_repository(
    tmp_path: Path, bare_folder: Path, tokens: Path
) -> None:
    repository = Repository(tmp_path / "models")
    old = repository.publish(bare_folder, "arm")
    worker = Processes(
        tmp_path / "worker", repository=tmp_path / "models", models=("arm",), tokens=tokens
    )
    try:
        admin = worker.client(ADMIN)
        before = serving(admin)
        write_bare(tmp_path / "newer", 3)
        newer = repository.publish(tmp_path / "newer", "arm")
        shutil.rmtree(tmp_path / "models" / "arm" / old)

        kill_engine(worker, admin)

        assert before == {"arm": (old, True)}
        assert serving(admin) == {"arm": (newer, True)}
        assert admin.ask("EmbedImages", images()).info.version == newer
        assert "a model that served does not load" in worker.log.read_text()
    finally:
        worker.close()


# ---------------------------------------------------------------- a fault of the engine's own

_FAULTY = """
def broken(*_):
    raise RuntimeError("a fault of its own")

scheduler.account = broken
"""


async def test_an_engine_whose_scheduler_fails_ends_so_that_another_can_begin(
    root: Path, tmp_path: Path
) -> None:
    ended = await asked_once(_FAULTY, root, tmp_path)

    said = json.loads(ended.said.splitlines()[0])
    assert [model.partition("@")[0] for model in said["models"]] == ["arm"]
    assert ended.failure.reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
    assert ended.code == 1
    assert b"a fault of its own" in ended.log


# ---------------------------------------------------------------- what the processes hold


@pytest.mark.parametrize(
    ("module", "foreign"),
    [
        (ENGINE, {"grpc", "torch._dynamo", "vector_quantize_pytorch"}),
        (FRONT, {"torch"}),
        (SERVE, {"grpc", "torch"}),
    ],
)
def test_a_process_begins_without_what_is_anothers_or_for_models_that_it_may_not_have(
    module: str, foreign: set[str]
) -> None:
    program = f"import sys, {module}; print({foreign!r} & set(sys.modules))"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "set()\n"


@pytest.mark.parametrize("module", [ENGINE, FRONT])
def test_what_is_imported_is_no_work_for_the_garbage_collector(module: str) -> None:
    program = f"""
import atexit, gc, {module} as process
began = len(gc.get_objects())
atexit.register(lambda: print(len(gc.get_objects()) < began / 10 < gc.get_freeze_count()))
process.main()"""

    done = subprocess.run(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )

    assert (done.stdout, done.stderr) == ("True\n", "")


def test_no_work_brings_it_there_either(worker: Processes, admin: Caller) -> None:
    assert admin.ask("EmbedImages", images()).results

    engine, front = (
        Path(f"/proc/{worker.child(module)}/maps").read_text() for module in (ENGINE, FRONT)
    )

    assert "libtorch" in engine
    assert "cygrpc" not in engine
    assert "cygrpc" in front
    assert "libtorch" not in front


def test_only_the_engine_is_told_to_keep_the_memory_that_it_frees(worker: Processes) -> None:
    engine, front = (
        Path(f"/proc/{worker.child(module)}/environ").read_text().split("\0")
        for module in (ENGINE, FRONT)
    )

    own = {f"{name}={value}" for name, value in os.environ.items()}
    assert [one for one in engine if one.startswith("MALLOC_ARENA_MAX=")]
    assert not [one for one in front if one.startswith("MALLOC_") and one not in own]
