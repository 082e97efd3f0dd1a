"""An engine that hangs, stopped or stuck, is known to be away, and another takes its place."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.worker.asking import images
from tests.server.worker.planted import asked_once
from tests.server.worker.processes import ENGINE, Processes, gone
from tests.server.worker.serving import PATIENCE, Caller

from tectum.v1 import errors_pb2
from tectum_core.bundle import Repository
from tectum_server.worker import children
from tectum_server.worker.pulse import Pulse


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, bare_folder: Path) -> Path:
    """A repository that holds `arm`."""
    root = tmp_path_factory.mktemp("hangs") / "models"
    Repository(root).publish(bare_folder, "arm")
    return root


@pytest.fixture(scope="module")
def worker(root: Path) -> Iterator[Processes]:
    """A worker whose engine is given up after a few seconds."""
    worker = Processes(
        root.parent / "worker", repository=root, models=("arm",), compute_timeout=5.0
    )
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def caller(worker: Processes) -> Caller:
    """A client of it."""
    return worker.client()


def test_a_stopped_engine_is_away_and_serves_again_once_it_goes_on(
    worker: Processes, caller: Caller
) -> None:
    engine = worker.child(ENGINE)
    os.kill(engine, signal.SIGSTOP)
    try:
        caller.health_becomes("NOT_SERVING")
        told = caller.refused("EmbedImages", images())
    finally:
        os.kill(engine, signal.SIGCONT)
    caller.health_becomes("SERVING")

    assert (told.code, told.reason, told.retries) == ("UNAVAILABLE", "ENGINE_UNAVAILABLE", True)
    assert caller.ask("EmbedImages", images()).results
    assert worker.child(ENGINE) == engine
    assert "the engine is silent" in worker.log.read_text()


def test_one_that_stays_stopped_is_ended_and_another_begins(
    worker: Processes, caller: Caller
) -> None:
    engine = worker.child(ENGINE)

    os.kill(engine, signal.SIGSTOP)
    caller.health_becomes("NOT_SERVING")
    gone(engine)
    caller.health_becomes("SERVING")

    assert caller.ask("EmbedImages", images()).results
    assert worker.child(ENGINE) != engine
    assert "the engine is silent, and is ended" in worker.log.read_text()


async def test_who_is_heard_of_is_not_ended() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import sys; sys.stdin.read()", stdin=subprocess.PIPE
    )
    heard = Pulse(3)
    watching = asyncio.create_task(children.end_if_lost(process, "engine", heard, 0.01))
    for _ in range(50):
        heard.heard()
        await asyncio.sleep(0)
    lives = process.returncode is None and not watching.done()

    await asyncio.wait_for(process.wait(), PATIENCE)  # nothing is heard any more

    assert lives
    assert process.returncode == -signal.SIGKILL
    await watching


async def test_an_engine_that_is_stuck_in_a_batch_ends_so_that_another_can_begin(
    root: Path, tmp_path: Path
) -> None:
    stuck = "scheduler.run_safely = lambda *_: threading.Event().wait()"

    ended = await asked_once(stuck, root, tmp_path, compute_timeout=0.2)

    assert ended.failure.reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
    assert ended.code == 1
    assert b"a batch has not come back" in ended.log
    assert b'{"beats": true}' in ended.said  # until then its event loop turned
