"""A worker starts only if it can; if it cannot, it says in one line why and what helps."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.server.worker.asking import images
from tests.server.worker.serving import PATIENCE, Inline, Loop

from tectum.v1 import perception_pb2_grpc
from tectum_core.bundle import Repository
from tectum_server.worker.serve import CannotServe

TLS = Path(__file__).parents[2] / "fixtures" / "tls"
PAIR: dict[str, Any] = {"tls_certificate": TLS / "certificate.pem", "tls_key": TLS / "key.pem"}


@pytest.fixture
def root(tmp_path: Path, bare_folder: Path) -> Path:
    """A repository that holds `arm`."""
    Repository(tmp_path / "models").publish(bare_folder, "arm")
    return tmp_path / "models"


def refusal(loop: Loop, **settings: Any) -> str:
    with pytest.raises(CannotServe) as caught:
        Inline(loop, **settings)
    return str(caught.value)


def test_a_taken_port_is_named_with_its_flag(loop: Loop, root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        words = refusal(loop, repository=str(root), models=("arm",), port=port)

    assert f":{port} is in use" in words
    assert "--port" in words


def test_a_taken_metrics_port_is_named_with_its_flag(loop: Loop, root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        words = refusal(loop, repository=str(root), models=("arm",), metrics_port=port)

    assert f"port {port} for metrics is in use" in words
    assert "--metrics-port" in words


def test_a_model_that_is_not_there_is_named_with_those_that_are(loop: Loop, root: Path) -> None:
    words = refusal(loop, repository=str(root), models=("leg",))

    assert "no bundle named 'leg' here; there are: arm" in words


def test_a_bundle_that_cannot_be_served_is_named(loop: Loop, root: Path) -> None:
    (version_folder,) = (p for p in (root / "arm").iterdir() if p.is_dir())
    shutil.rmtree(version_folder)
    (root / "arm" / version_folder.name).mkdir()

    assert "config.json is missing" in refusal(loop, repository=str(root), models=("arm",))


def test_a_token_file_that_is_none_is_named(loop: Loop, root: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text("[]")
    given = {"repository": str(root), "models": ("arm",)}

    assert "is no token file" in refusal(loop, **given, tokens=str(tmp_path / "tokens.json"))
    assert "nowhere.json" in refusal(loop, **given, tokens=str(tmp_path / "nowhere.json"))


def test_after_a_start_that_failed_the_port_is_free_again(loop: Loop, root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    refusal(loop, repository=str(root), models=("leg",), port=port)

    served = Inline(loop, repository=str(root), models=("arm",), port=port, max_batch=1)

    assert served.client.ask("EmbedImages", images()).results
    served.close()


# ---------------------------------------------------------------- where and on what


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"host": "192.0.2.7", "allow_anonymous": True},
            "cannot listen on 192.0.2.7:0: Cannot assign requested address; see --host",
        ),
        (
            {"host": "nobody.invalid", "allow_anonymous": True},
            "cannot listen on nobody.invalid:0: ",
        ),
        (
            {"metrics_host": "192.0.2.7", "metrics_port": 1234},
            "cannot listen on port 1234 for metrics: Cannot assign requested address; "
            "see --metrics-host",
        ),
        ({"device": "cuda:99"}, "device 'cuda:99': "),
        ({"repository": "nowhere://models"}, "repository 'nowhere://models': "),
        ({"record": "/nowhere/arrivals"}, "record '/nowhere/arrivals': No such file or directory"),
    ],
)
def test_what_is_not_on_this_machine_is_named_in_one_line(
    loop: Loop, root: Path, changes: dict[str, Any], words: str
) -> None:
    told = refusal(loop, **{"repository": str(root), "models": ("arm",), **changes})

    assert words in told
    assert "in use" not in told
    assert "\n" not in told


# ---------------------------------------------------------------- TLS


def test_a_worker_with_a_certificate_speaks_tls_and_nothing_else(loop: Loop, root: Path) -> None:
    served = Inline(loop, repository=str(root), models=("arm",), max_batch=1, **PAIR)
    trusted = grpc.ssl_channel_credentials((TLS / "certificate.pem").read_bytes())

    with grpc.secure_channel(f"localhost:{served.client.port}", trusted) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        asked = health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        stub = perception_pb2_grpc.PerceptionServiceStub(channel)
        answer = stub.EmbedImages(images(), timeout=PATIENCE)
    with pytest.raises(grpc.RpcError):
        served.client.ask("EmbedImages", images(), timeout=2)
    served.close()

    assert asked.status == health_pb2.HealthCheckResponse.SERVING
    assert len(answer.results) == 1


def test_tls_files_that_are_none_are_named(loop: Loop, root: Path, tmp_path: Path) -> None:
    given = {"repository": str(root), "models": ("arm",)}
    garbage, nowhere = tmp_path / "garbage.pem", tmp_path / "nowhere.pem"
    garbage.write_text("nothing")

    assert f"{garbage} holds no PEM certificate" in refusal(
        loop, **given, **{**PAIR, "tls_certificate": garbage}
    )
    for wrong in (garbage, PAIR["tls_certificate"]):
        told = refusal(loop, **given, **{**PAIR, "tls_key": wrong})
        assert told == f"{wrong} holds no plain PEM private key of {PAIR['tls_certificate']}"
    for which in PAIR:
        told = refusal(loop, **given, **{**PAIR, which: nowhere})
        assert "No such file or directory" in told
        assert "nowhere.pem" in told


# ---------------------------------------------------------------- children that die at once

_CHILDLESS = """
import asyncio, shutil, sys, time
from tectum_server.worker.settings import WorkerSettings
from tectum_server.worker.supervisor import CannotServe, Supervisor

sys.executable = shutil.which("true")
settings = WorkerSettings(repository="models", models=("arm",), port=0, metrics_port=0)
supervisor = Supervisor(settings, print)
if sys.argv[1] == "told to end":
    supervisor.stop()
if sys.argv[1] == "ended meanwhile":  # before it is told, and without the loop's knowing
    sys.executable, spawned = sys.argv[2], asyncio.create_subprocess_exec
    async def late(*given, **more):
        child = await spawned(*given, **more)
        time.sleep(0.3)
        return child
    asyncio.create_subprocess_exec = late
try:
    asyncio.run(supervisor.run())
except CannotServe as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("told to end", ""),
        ("not told", "the front could not start; its log says why\n"),
        ("ended meanwhile", "the front could not start; its log says why\n"),
    ],
)
def test_a_child_that_ends_before_it_was_told_anything_is_no_traceback(
    case: str, says: str, tmp_path: Path
) -> None:
    brief = tmp_path / "brief"
    brief.write_text("#!/bin/sh\nsleep 0.1\n")
    brief.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", _CHILDLESS, case, str(brief)],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, says)
    assert "Traceback" not in done.stderr
