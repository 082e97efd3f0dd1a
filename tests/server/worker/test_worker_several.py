"""A worker of several fronts and several engines: one of them can go, and the others serve."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from tests.bundles import write_bare
from tests.server.worker.asking import ADMIN, images
from tests.server.worker.processes import ENGINE, FRONT, Processes, gone, parent
from tests.server.worker.serving import Caller, Told, until

from tectum.v1 import model_pb2
from tectum_core.bundle import Repository


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, bare_folder: Path) -> Path:
    """A repository that holds `arm`."""
    root = tmp_path_factory.mktemp("several") / "models"
    Repository(root).publish(bare_folder, "arm")
    return root


@pytest.fixture(scope="module")
def worker(root: Path, tokens: Path) -> Iterator[Processes]:
    """Two fronts and two engines."""
    worker = Processes(
        root.parent / "worker",
        repository=root,
        models=("arm",),
        fronts=2,
        engines=2,
        tokens=tokens,
    )
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def client(worker: Processes) -> Caller:
    """A client, once all of them serve."""
    return worker.client(ADMIN)


@pytest.fixture(scope="module")
def both(client: Caller) -> int:
    """Bytes that the model takes in both engines."""
    return memory(client)


def connections(pid: int) -> int:
    """How many of a process's sockets are open."""
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # it is closed meanwhile
            found += link.readlink().name.startswith("socket:")
    return found


def outcome(caller: Caller) -> str:
    """What comes of one picture."""
    try:
        caller.ask("EmbedImages", images())
    except grpc.RpcError as error:
        return Told.of(error).code
    return "OK"


def memory(caller: Caller) -> int:
    """Bytes that the model takes, in all engines that are there."""
    return int(caller.ask("GetModel", model_pb2.GetModelRequest(model="arm")).model.memory_bytes)


def version(caller: Caller) -> str:
    """What answers."""
    return str(caller.ask("EmbedImages", images()).info.version)


def computed(worker: Processes) -> list[int]:
    """The engines that have computed a batch, by their process ids: those that say how long."""
    files = (worker.folder).rglob("histogram_*.db")
    found = [f for f in files if b"tectum_compute_duration_seconds" in f.read_bytes()]
    return sorted(int(path.stem.partition("_")[2]) for path in found)


def test_all_of_them_are_there_when_the_worker_says_so(worker: Processes, client: Caller) -> None:
    found = {module: len(worker.those(module)) for module in (FRONT, ENGINE)}

    assert found == {FRONT: 2, ENGINE: 2}
    assert client.health("arm") == "SERVING"


def test_jobs_are_spread_over_the_engines(worker: Processes, client: Caller) -> None:
    found = [outcome(client) for _ in range(8)]

    assert found == ["OK"] * 8
    assert set(computed(worker)) >= set(worker.those(ENGINE))


def test_connections_are_spread_over_the_fronts(worker: Processes, client: Caller) -> None:
    before = [connections(pid) for pid in worker.those(FRONT)]

    found = [outcome(worker.another()) for _ in range(24)]

    more = [connections(pid) - was for pid, was in zip(worker.those(FRONT), before, strict=True)]
    assert found == ["OK"] * 24
    assert min(more) >= 1  # the system's choice: 24 heads in a row come once in 8 million times
    assert sum(more) >= 24


def test_what_is_loaded_serves_in_all_engines_and_in_one_that_replaces_another(
    worker: Processes, client: Caller, both: int, root: Path
) -> None:
    write_bare(root.parent / "newer", 3)
    newer = Repository(root).publish(root.parent / "newer", "arm")
    client.ask("LoadModel", model_pb2.LoadModelRequest(name="arm"))
    versions = [version(client) for _ in range(6)]

    killed = worker.those(ENGINE)[0]
    os.kill(killed, signal.SIGKILL)
    until(lambda: memory(client) < both)
    health = client.health("arm")
    versions += [version(client) for _ in range(10)]  # of the other one, which serves on
    told = client.refused("LoadModel", model_pb2.LoadModelRequest(name="arm"))
    until(lambda: memory(client) == both)
    versions += [version(client) for _ in range(6)]

    assert health == "SERVING"
    assert (told.reason, told.retries) == ("ENGINE_UNAVAILABLE", True)
    assert killed not in worker.those(ENGINE)
    assert set(versions) == {newer}


def test_fronts_that_are_killed_are_replaced_on_the_same_port(
    worker: Processes, client: Caller
) -> None:
    killed, engines = worker.those(FRONT), worker.those(ENGINE)

    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    gone(*killed)
    until(lambda: len(worker.those(FRONT)) == 2)
    callers = [client, *(worker.another() for _ in range(3))]
    until(lambda: [caller.health("arm") for caller in callers] == ["SERVING"] * 4)

    assert [outcome(caller) for caller in callers] == ["OK"] * 4
    assert set(worker.those(FRONT)).isdisjoint(killed)
    assert worker.those(ENGINE) == engines  # which have lost nothing


def test_another_worker_cannot_join_them(worker: Processes, client: Caller, root: Path) -> None:
    other = Processes(
        root.parent / "other", repository=root, models=("arm",), fronts=2, port=client.port
    )
    try:
        said = other.said()
    finally:
        other.close()

    assert f"127.0.0.1:{client.port} is in use" in said["error"]


def test_told_to_stop_all_of_them_end(worker: Processes, client: Caller, both: int) -> None:
    until(lambda: memory(client) == both)
    children = worker.those(FRONT) + worker.those(ENGINE)

    worker.signal(signal.SIGTERM)

    assert worker.wait() == 0
    assert [pid for pid in children if parent(pid) is not None] == []
