"""`bench` against a real worker and a real gateway."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cli.running import Running, free_port, gateway, invoke

from tectum import Client

ALL = "embed_images=3,embed_texts=1,similarity=1,reconstruct_image=1,latent_actions=1"
SHORT = ("--seconds", 0.6, "--warmup", 0, "--size", 32)


def test_callers_in_a_closed_loop_are_answered(worker: str) -> None:
    result = invoke("bench", "--worker", worker, *SHORT, "--callers", 2, "--batch", 3)

    assert result.exit_code == 0
    with Client(worker) as client:
        version = client.get_model().version
    assert f"tiny@{version}, calls of 3 × 32×32 raw\n" in result.output
    assert re.search(
        r"^[\d.]+ items/s answered, [\d.]+ in time, of \d+ calls: \d+ answered$",
        result.output, re.MULTILINE,
    )  # fmt: skip
    assert re.search(r"latency ms: p50 [\d.]+, p90 [\d.]+, p95 [\d.]+, p99 [\d.]+", result.output)
    assert re.search(r"where it went, ms: driver [\d.]+, queue [\d.]+, decode", result.output)


def numbers(worker: str, path: Path, *flags: object) -> dict[str, Any]:
    """What a load is told to have come to."""
    result = invoke("bench", "--worker", worker, *SHORT, *flags, "--json", path)

    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(path.read_text())["all"]
    return found


def test_a_call_that_holds_one_picture_counts_as_one(worker: str, tmp_path: Path) -> None:
    given = "--ops", "reconstruct_image", "--batch", 32, "--callers", 2

    told = numbers(worker, tmp_path / "load.json", *given)

    assert 0 < told["throughput"] * 0.5 <= told["calls"]


def test_parts_of_calls_of_several_batches_add_up(worker: str, tmp_path: Path) -> None:
    given = "--batch", 64, "--encoding", "jpeg", "--callers", 3

    told = numbers(worker, tmp_path / "load.json", *given)

    assert told["outcomes"].keys() == {"answered"}
    assert min(told["where_ms"].values()) >= 0, told["where_ms"]


def test_an_open_loop_asks_everything_at_its_rate_and_writes_it_down(
    worker: str, tmp_path: Path
) -> None:
    numbers, drawing = tmp_path / "load.json", tmp_path / "load.png"

    result = invoke(
        "bench", "--worker", worker, "--seconds", 2, "--warmup", 0.5, "--size", "40x24",
        "--rate", 30, "--pattern", "constant", "--ops", ALL, "--encoding", "jpeg",
        "--priorities", "control=1,bulk=1", "--deadlines", "control=2000",
        "--json", numbers, "--plot", drawing,
    )  # fmt: skip

    assert result.exit_code == 0
    told = json.loads(numbers.read_text())
    assert set(told) == {"all", "control", "bulk"}
    assert told["all"]["calls"] == told["control"]["calls"] + told["bulk"]["calls"] == 60
    assert told["all"]["outcomes"] == {"answered": 60}
    assert told["all"]["where_ms"]["decode"] > 0
    assert drawing.read_bytes()[:4] == b"\x89PNG"
    assert re.search(r"^control +\d+ ", result.output, re.MULTILINE)


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_pictures_of_several_sizes_are_asked_in_one_run(worker: str, encoding: str) -> None:
    result = invoke(
        "bench", "--worker", worker, "--seconds", 0.6, "--warmup", 0, "--size", "32=3,40x24",
        "--encoding", encoding, "--ops", ALL,
    )  # fmt: skip

    assert result.exit_code == 0
    assert f"calls of 1 × 32×32, 40×24 {encoding}\n" in result.output
    assert re.search(r"of \d+ calls: \d+ answered$", result.output, re.MULTILINE)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--seconds", 0], "--seconds: found 0; allowed: 0.1 to 3600"),
        (["--seconds", "nan"], "--seconds: found nan; allowed: 0.1 to 3600"),
        (["--warmup", -1], "--warmup: found -1; allowed: 0 to 3600"),
        (["--rate", -1], "--rate: found -1; allowed: 0 to 100000"),
        (["--pattern", "burst"], "--pattern: found 'burst'; allowed: poisson, constant"),
        (["--ops", "dream"], "--ops: found 'dream'; allowed: embed_images, embed_texts,"),
        (["--priorities", "low"], "--priorities: found 'low'; allowed: control, interactive, bulk"),
        (["--deadlines", "control=0"], "--deadlines: control: found 0 ms; allowed: above 0"),
        (["--size", "0x4"], "--size: found 0x4; allowed: sides of 1 to 8192"),
        (["--encoding", "gif"], "--encoding: found 'gif'; allowed: raw, jpeg, png, webp"),
        (
            ["--gateway", "127.0.0.1:1", "--encoding", "raw"],
            "--encoding: found 'raw'; allowed: jpeg",
        ),
    ],
)
def test_what_is_no_load_is_refused_by_its_flag(flags: list[object], told: str) -> None:
    result = invoke("bench", *flags)

    assert result.exit_code == 2
    assert told in result.stderr


def test_more_items_at_once_than_the_worker_takes_are_refused(worker: str) -> None:
    result = invoke("bench", "--worker", worker, *SHORT, "--batch", 65)

    assert result.exit_code == 1
    assert "--batch: found 65; allowed: 1 to 64, the most of embed_images" in result.stderr


def test_a_comparison_holds_as_many_on_either_side(worker: str) -> None:
    result = invoke("bench", "--worker", worker, *SHORT, "--ops", "similarity", "--batch", 33)

    assert result.exit_code == 1
    assert "--batch: found 33; allowed: 1 to 32, the most of similarity that this" in result.stderr


def test_a_model_that_is_not_there_is_named(worker: str) -> None:
    result = invoke("bench", "--worker", worker, *SHORT, "--model", "huge")

    assert result.exit_code == 1
    assert "huge" in result.stderr


def test_a_load_without_a_call_says_so(worker: str) -> None:
    result = invoke("bench", "--worker", worker, *SHORT, "--rate", 0.001)

    assert result.exit_code == 1
    assert "no call was measured: it was ended too soon, or the rate is too low" in result.stderr


def test_a_file_that_cannot_be_written_is_named(worker: str, tmp_path: Path) -> None:
    result = invoke("bench", "--worker", worker, *SHORT, "--json", tmp_path / "no" / "a.json")

    assert result.exit_code == 1
    assert f"cannot write {tmp_path / 'no' / 'a.json'}: No such file or directory" in result.stderr


def test_a_deadline_that_nothing_meets_leaves_nothing_in_time(worker: str) -> None:
    late = invoke(
        "bench", "--worker", worker, *SHORT, "--priorities", "control", "--deadlines", 0.01
    )

    assert late.exit_code == 0
    assert "0.0 items/s answered, 0.0 in time" in late.output


@pytest.mark.slow
def test_ctrl_c_ends_a_load_and_reports_it(worker: str, tmp_path: Path) -> None:
    given = ["--worker", worker, "--seconds", 600, "--warmup", 0, "--size", 32]

    with Running("bench", *given, "--json", tmp_path / "load.json", folder=tmp_path) as running:
        running.until_it_says("asking ")
        time.sleep(1)
        running.interrupt(signal.SIGINT)

        assert running.ended() == 0, running.output
    assert "items/s answered" in running.output
    assert "Traceback" not in running.output
    assert json.loads((tmp_path / "load.json").read_text())["all"]["calls"] > 0


@pytest.mark.slow
def test_a_gateway_is_asked_over_rest(repository: Path, tmp_path: Path) -> None:
    with gateway(repository, "tiny", tmp_path) as address:
        result = invoke("bench", "--gateway", address, *SHORT, "--ops", ALL, "--callers", 2)
        missing = invoke("bench", "--gateway", address, *SHORT, "--model", "huge")

    assert result.exit_code == 0, result.stderr
    assert re.search(r"of \d+ calls: \d+ answered$", result.output, re.MULTILINE), result.output
    assert re.search(r"where it went, ms: driver [\d.]+, queue", result.output)
    assert (missing.exit_code, "--model: found huge; allowed: tiny" in missing.stderr) == (1, True)


def test_a_gateway_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"

    result = invoke("bench", "--gateway", address, *SHORT)

    assert result.exit_code == 1
    assert f"no gateway answers at {address}" in result.stderr
