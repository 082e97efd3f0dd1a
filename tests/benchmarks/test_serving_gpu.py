"""The GPU benchmark's own works, on a CPU and a tiny trunk; nothing is timed here."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import serving_gpu
import serving_gpu_asking
from serving_gpu import (
    SHAPES,
    Bare,
    Found,
    Round,
    arithmetic,
    best_batch,
    engine_for,
    parse,
    publish,
    report,
    shape,
    table,
)
from serving_gpu_asking import Asked, ask, asked, ended
from tectum import Priority
from tectum_cli.load.driving import Answer, Outcome, Result
from tectum_cli.load.traffic import Question
from tectum_core.bundle import Repository, read_bundle
from tectum_core.numerics import Numerics
from tectum_core.predictor import Predictor

TINY = shape("tiny", 64, 1, 8, side=16)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return publish(TINY, tmp_path)


@pytest.fixture
def predictor(repository: Path) -> Predictor:
    located, _ = Repository(repository).locate(serving_gpu.NAME)
    return Predictor(read_bundle(located, serving_gpu.NAME), "cpu", Numerics("bfloat16"))


def found(worker: float, starts: int = 3, lost: int = 0) -> Found:
    """A bare forward of 100 a second, in starts that differ a little."""
    rounds = [
        [Round(100.0, 95.0, worker + number / 10, Asked(50.0, (1.0, 2.0, 30.0), lost))]
        for number in range(starts)
    ]
    return Found(TINY, 32, 2e9, "bfloat16, torch/cuda/eager+graphs", rounds)


# ---------------------------------------------------------------- what is measured


def test_the_bare_forward_is_of_whole_batches(predictor: Predictor) -> None:
    assert Bare(predictor, 4).rate(0.0) > 0


def test_arithmetic_is_what_torch_counts_but_for_attention_which_it_does_not_on_a_cpu(
    predictor: Predictor,
) -> None:
    tokens, width = 5, 64
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        predictor.model.vision(torch.randn(1, 3, 16, 16))

    attended = 2 * 2 * tokens**2 * width
    assert counter.get_total_flops() + attended == arithmetic(TINY.trunk)


def test_the_engine_alone_answers_its_callers(repository: Path) -> None:
    with engine_for(repository, "cpu", 4) as rate:
        assert rate(16, 2, 2, 0.5) > 0


def test_the_smallest_batch_that_is_nearly_the_fastest_is_taken() -> None:
    assert best_batch({16: 90.0, 32: 98.0, 64: 100.0}) == 32
    assert best_batch({16: 100.0, 32: 90.0}) == 16


def test_calls_count_from_when_a_leg_has_settled_until_it_is_over() -> None:
    calls = [(0.5, 0.1, True), (1.5, 0.2, True), (2.5, 0.3, False), (4.5, 0.4, True)]

    told = asked(calls, items=6, seconds=4.0)

    assert told == Asked(images=6 / 3, took_ms=(200.0,), lost=1)


def test_who_begins_late_counts_from_when_all_were_to_begin() -> None:
    answered = Answer(Outcome.ANSWERED)
    results = [Result(Question("embed_images", Priority.BULK, None), 1.0, 0.0, 0.5, answered)]

    assert ended(0.25, results) == [(1.75, 0.5, True)]


def test_all_who_ask_are_told_one_time_once_all_are_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "stub.py"
    stub.write_text(
        "import sys, time\n"
        "time.sleep(0.3 * int(sys.argv[-1]))\n"  # the next one is ready later
        "print('ready', flush=True)\n"
        "begin = float(sys.stdin.readline())\n"
        "print([[0.5, begin, int(time.monotonic() < begin)]])\n"
    )
    monkeypatch.setattr(serving_gpu_asking, "__file__", str(stub))

    told = ask("nowhere", 8, 1, 1.0, "callers", 3, processes=3)

    assert len(set(told.took_ms)) == 1
    assert (len(told.took_ms), told.lost) == (3, 0)


def test_a_process_that_ends_before_it_asks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stub.py").write_text("")
    monkeypatch.setattr(serving_gpu_asking, "__file__", str(tmp_path / "stub.py"))

    with pytest.raises(RuntimeError, match="a process that asks has failed"):
        ask("nowhere", 8, 1, 1.0, "callers", 2, processes=2)


@pytest.mark.parametrize(
    ("one", "gflops"), list(zip(SHAPES, (8.8, 162.0), strict=True)), ids=["B/32", "L/14"]
)
def test_the_shapes_are_the_published_ones(one: serving_gpu.Shape, gflops: float) -> None:
    assert arithmetic(one.trunk) / 1e9 == pytest.approx(gflops, rel=0.05)


# ---------------------------------------------------------------- what is told


@pytest.mark.parametrize(
    ("worker", "verdict"), [(95.0, "PASS"), (80.0, "FAIL"), (89.9, "undecided")]
)
def test_the_gate_is_judged_by_the_whole_interval(worker: float, verdict: str) -> None:
    (row,) = [line for line in table([found(worker)], 989.0).splitlines() if "tiny" in line][:1]

    assert f"| {verdict} |" in row


def test_a_row_tells_mfu_and_what_a_call_takes_at_half_load() -> None:
    told = table([found(90.0, lost=1)], peak=1.0)

    assert "| 20.0% | 18.0% | 2.0, 30.0 | 3 of 12 |" in told
    assert "- tiny: bfloat16, torch/cuda/eager+graphs." in told


def test_without_a_known_card_no_share_is_told() -> None:
    assert "| not known | not known |" in table([found(90.0)], None)


def test_the_report_says_how_it_was_made() -> None:
    given = argparse.Namespace(askers=3, fronts=2, starts=3, rounds=1)

    told = report([found(90.0)], None, given)

    assert told.startswith("# Serving on a GPU against its bare forward\n")
    assert "by 3 processes; 2 fronts, one engine. Starts: 3, rounds of each: 1" in told


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_and_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([])

    assert "there is no CUDA device, so nothing was measured" in capsys.readouterr().err
