"""`bench`: whatever a model can do may be asked, of a worker and through a gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.bundles import write_bare, write_full
from tests.cli.running import Worker, gateway, invoke
from tests.silent_proxy import SilentProxy

from tectum_cli.load.target import OPS
from tectum_core.bundle import Repository

SHORT = ("--seconds", 0.4, "--warmup", 0, "--size", 32, "--callers", 1)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a model that has every part, and one of clips and pictures alone."""
    root, bundles = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("bundles")
    write_full(bundles / "full")
    write_bare(bundles / "bare")
    for name in ("full", "bare"):
        Repository(root).publish(bundles / name, name)
    return root


@pytest.fixture(scope="module")
def full(everything: Path) -> Iterator[str]:
    """The address of a worker that serves the model with every part."""
    with Worker(everything, "full") as worker:
        yield worker.address


def told(path: Path, *flags: object) -> dict[str, Any]:
    result = invoke("bench", *flags, *SHORT, "--json", path)

    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(path.read_text())["all"]
    return found


@pytest.mark.parametrize("op", OPS)
def test_whatever_a_model_can_do_is_asked_and_answered(full: str, op: str, tmp_path: Path) -> None:
    found = told(tmp_path / "load.json", "--worker", full, "--ops", op, "--batch", 3)

    assert found["outcomes"] == {"answered": found["calls"]}
    assert found["calls"] > 0
    assert found["where_ms"]["compute"] > 0


def test_what_a_model_cannot_do_is_said_with_what_it_can(everything: Path) -> None:
    with Worker(everything, "bare") as worker:
        result = invoke("bench", "--worker", worker.address, *SHORT, "--ops", "rollout")

    assert result.exit_code == 1
    assert "--ops: found rollout; allowed: embed_images, which bare@" in result.stderr


@pytest.mark.parametrize(
    ("op", "batch", "most"), [("embed_clips", 17, 16), ("latent_actions", 64, 63)]
)
def test_frames_count_against_what_a_call_may_hold(
    full: str, op: str, batch: int, most: int
) -> None:
    result = invoke("bench", "--worker", full, *SHORT, "--ops", op, "--batch", batch)

    assert result.exit_code == 1
    assert f"--batch: found {batch}; allowed: 1 to {most}, the most of {op} that" in result.stderr


def test_calls_take_turns_on_several_connections(full: str, tmp_path: Path) -> None:
    with SilentProxy(int(full.rpartition(":")[2])) as proxy:
        found = told(tmp_path / "load.json", "--worker", proxy.address, "--connections", 3)
        used = len(proxy.links)

    assert used == 3
    assert found["outcomes"] == {"answered": found["calls"]}


@pytest.mark.slow
def test_a_gateway_is_asked_for_everything(everything: Path, tmp_path: Path) -> None:
    with gateway(everything, "full", tmp_path) as address:
        found = {
            op: told(tmp_path / f"{op}.json", "--gateway", address, "--ops", op, "--batch", 2)
            for op in OPS
        }

    assert {op: one["outcomes"] for op, one in found.items()} == {
        op: {"answered": one["calls"]} for op, one in found.items()
    }


# ---------------------------------------------------------------- streams


def test_robots_stream_frames_and_are_told_what_became_of_them(full: str, tmp_path: Path) -> None:
    numbers, drawing = tmp_path / "load.json", tmp_path / "load.png"

    result = invoke(
        "bench", "--worker", full, "--seconds", 1.5, "--warmup", 0.2, "--size", 32,
        "--streams", 3, "--fps", 10, "--ops", "embed_images,latent_actions",
        "--priorities", "control=1,bulk=1", "--json", numbers, "--plot", drawing,
    )  # fmt: skip

    assert result.exit_code == 0, result.stderr
    told = json.loads(numbers.read_text())
    assert set(told) == {"all", "control", "bulk"}
    assert told["all"]["robots"] == 3
    assert len(told["all"]["rates"]) == 3
    assert told["all"]["answered"] > 0
    assert told["all"]["shares"]["failed"] == 0
    assert told["all"]["ended"] == {}
    assert told["all"]["age_ms"]["p50"] > 0
    assert drawing.read_bytes()[:4] == b"\x89PNG"
    assert "3 streams of 32×32 raw\n" in result.output
    assert "of each robot, frames/s answered: fewest " in result.output


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rate", 5], "--rate: found with --streams; allowed: one of them"),
        (["--gateway", "127.0.0.1:1"], "--gateway: found with --streams; allowed: one of them"),
        (["--deadlines", 5], "--deadlines: found with --streams; allowed: one of them"),
        (["--batch", 2], "--batch: found with --streams; allowed: one of them"),
        (["--fps", 0], "--fps: found 0; allowed: 0.01 to 1000"),
        (["--lifespan", 60001], "--lifespan: found 60001; allowed: 0 to 60000"),
        (
            ["--ops", "rollout"],
            "--ops: found 'rollout' with --streams; allowed: embed_images, latent_actions",
        ),
    ],
)
def test_what_is_said_of_calls_alone_is_refused_with_streams(
    flags: list[object], said: str
) -> None:
    result = invoke("bench", "--streams", 2, *flags)

    assert result.exit_code == 2
    assert said in result.stderr


def test_streams_that_the_worker_does_not_take_are_counted(
    everything: Path, tmp_path: Path
) -> None:
    path = tmp_path / "load.json"
    flags = ["--seconds", 0.5, "--warmup", 0, "--size", 32, "--fps", 20, "--json", path]

    with Worker(everything, "bare", max_streams=1) as worker:
        some = invoke("bench", "--worker", worker.address, *flags, "--streams", 3)

    assert some.exit_code == 0, some.stderr
    assert "streams that ended: " in some.output
    told = json.loads(path.read_text())["all"]
    assert sum(told["ended"].values()) == 2
    assert [rate > 0 for rate in told["rates"]] == [False, False, True]
