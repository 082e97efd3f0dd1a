"""`models`, `health`, `bench` and `demo` against a real worker; and that callers need no torch."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.bundles import picture
from tests.cli.running import free_port, invoke, run_without

from tectum import Capability, Client, ModelState
from tectum_cli import demo, extras, pictures
from tectum_cli.pictures import latent_plot, reconstruction_sheet


def nobody() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.mark.parametrize(
    "arguments", [["models"], ["models", "tiny"], ["health"], ["bench", "--seconds", 0.1], ["demo"]]
)
def test_without_a_worker_one_line_says_so(arguments: list[str], tiny_data: Path) -> None:
    address = nobody()
    more = ["--data", tiny_data / "test"] if arguments == ["demo"] else []

    result = invoke(*arguments, *more, "--worker", address)

    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert address in result.stderr


# ---------------------------------------------------------------- models


def test_models_lists_what_is_served_with_its_spaces(worker: str) -> None:
    result = invoke("models", "--worker", worker)

    assert result.exit_code == 0
    assert "tiny (default)" in result.output
    with Client(worker) as client:
        (model,) = client.list_models()
    assert model.version in result.output
    assert f"{model.parameters:,}" in result.output
    for space in model.spaces:
        assert f"{space.space_id} ({space.dimensions})" in result.output
    assert "float32" in result.output


def test_a_narrow_terminal_cuts_nothing_of_what_is_listed(
    worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras.console, "width", 80)

    output = invoke("models", "--worker", worker).output

    with Client(worker) as client:
        (model,) = client.list_models()
    assert max(map(len, output.splitlines())) <= 80
    whole = [model.version, *(f"{space.space_id} (" for space in model.spaces)]
    whole += [capability.value for capability in model.capabilities]
    assert [word for word in whole if word not in output] == []


def test_a_model_that_is_not_ready_says_so(worker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(worker) as client:
        (model,) = client.list_models()
    failed = replace(model, state=ModelState.FAILED, failure="golden outputs differ [by 0.1]")
    monkeypatch.setattr(Client, "list_models", lambda _: [failed])

    output = invoke("models", "--worker", worker).output

    assert "state       failed golden outputs differ [by 0.1]" in output


def test_one_model_is_described_by_its_card(worker: str) -> None:
    result = invoke("models", "tiny", "--worker", worker)

    assert result.exit_code == 0
    assert "Untrained" in result.output
    assert "Its vectors mean nothing." in result.output


def test_an_unknown_model_is_named(worker: str) -> None:
    result = invoke("models", "huge", "--worker", worker)

    assert result.exit_code == 1
    assert "huge" in result.stderr


def test_the_worker_can_be_named_by_the_environment(
    worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TECTUM_WORKER", worker)

    assert "tiny" in invoke("models").output


# ---------------------------------------------------------------- health


def test_a_worker_that_serves_is_healthy(worker: str) -> None:
    whole = invoke("health", "--worker", worker)
    model = invoke("health", "--worker", worker, "--model", "tiny")

    assert (whole.exit_code, whole.output) == (0, "serving\n")
    assert model.exit_code == 0


def test_a_model_that_is_not_served_is_not(worker: str) -> None:
    assert invoke("health", "--worker", worker, "--model", "huge").exit_code == 1


def test_a_gateway_that_is_not_there_is_not_ready() -> None:
    address = nobody()

    result = invoke("health", "--gateway", address)

    assert result.exit_code == 1
    assert f"{address} is not ready" in result.stderr


# ---------------------------------------------------------------- bench


def test_bench_says_throughput_latency_and_where_time_went(worker: str) -> None:
    result = invoke(
        "bench", "--worker", worker, "--seconds", 0.5, "--callers", 2, "--size", 32, "--batch", 3
    )

    assert result.exit_code == 0
    assert re.search(r"\d+\.\d images/s from 2 callers, \d+ refused", result.output)
    assert re.search(r"latency ms: p50 [\d.]+, p90 [\d.]+, p99 [\d.]+", result.output)
    assert re.search(r"mean batch [\d.]+, queue [\d.]+ ms, compute [\d.]+ ms", result.output)


def test_bench_takes_no_time_that_cannot_pass(worker: str) -> None:
    result = invoke("bench", "--worker", worker, "--seconds", -1)

    assert result.exit_code == 2
    assert "--seconds: found -1; allowed: 0 to 3600" in result.stderr


def test_bench_without_an_answer_says_so(worker: str) -> None:
    result = invoke("bench", "--worker", worker, "--seconds", 0.0, "--size", 32)

    assert result.exit_code == 1
    assert "no call was answered; 0 were refused" in result.stderr


# ---------------------------------------------------------------- demo


def test_the_demo_ranks_reconstructs_and_plots(
    worker: str, tiny_data: Path, tmp_path: Path
) -> None:
    result = invoke(
        "demo", "--worker", worker, "--data", tiny_data / "test", "--pictures", tmp_path / "shown"
    )

    assert result.exit_code == 0, result.output
    assert "what the model thinks is being done" in result.output
    words = " ".join(result.output.split())
    assert "1 is right" in words
    assert re.search(r"of all 8 frames, one an episode, those in the table among them, ", words)
    assert re.search(r"have their task first and \d among the first two", words)
    assert "chance: 2 and 4" in words
    assert "latent actions while it shall 'red block goes left'" in result.output
    for name in ("reconstructions.png", "latent-actions.png"):
        with Image.open(tmp_path / "shown" / name) as shown:
            assert shown.format == "PNG"
            assert shown.width > 300


def test_the_demo_shows_a_model_without_texts_what_it_can(
    worker: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(worker) as client:
        whole = client.get_model()
    mute = replace(whole, capabilities=whole.capabilities - {Capability.EMBED_TEXTS})
    monkeypatch.setattr(Client, "get_model", lambda _: mute)

    result = invoke(
        "demo", "--worker", worker, "--data", tiny_data / "test", "--pictures", tmp_path
    )

    assert result.exit_code == 0, result.output
    assert "this model reads no texts" in result.output
    assert "latent actions while it shall" in result.output


def test_the_demo_shows_every_action_and_says_which_are_decoded_no_better_than_their_mean(
    worker: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    shown: list[tuple[Any, ...]] = []

    def told() -> str:
        given = ["--data", tiny_data / "test", "--pictures", tmp_path]
        result = invoke("demo", "--worker", worker, *given)
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    monkeypatch.setattr(pictures, "latent_plot", lambda *given: shown.append(given))
    told()
    _, _, true, names, *_ = shown[0]
    decoded = iter(np.where(np.arange(4) == 0, 9, true))
    monkeypatch.setattr(demo, "_decoded", lambda _: next(decoded))
    one = told()
    decoded = iter(true)
    none = told()

    assert names == ("hand_dx", "hand_dy", "hand_dz", "gripper_effort")
    assert (
        "actions: hand_dx, hand_dy, hand_dz; decoded no better here than by the mean: hand_dx "
        in one
    )
    assert "than by the mean" not in none


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (Capability.PREDICT_LATENT_ACTIONS, "this model predicts no latent actions"),
        (Capability.DECODE_ACTIONS, "│ – "),
    ],
)
def test_the_demo_asks_for_no_latent_actions_that_a_model_lacks(
    lacking: Capability, said: str, worker: str, tiny_data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with Client(worker) as client:
        whole = client.get_model()
    assert whole.input.latent_action is not None
    less = replace(whole, capabilities=whole.capabilities - {lacking})
    monkeypatch.setattr(Client, "get_model", lambda _: less)

    result = invoke(
        "demo", "--worker", worker, "--data", tiny_data / "test", "--pictures", tmp_path
    )

    assert result.exit_code == 0, result.output
    assert said in result.output


def test_the_demo_names_a_folder_that_is_no_data_set(worker: str, tmp_path: Path) -> None:
    result = invoke("demo", "--worker", worker, "--data", tmp_path)

    assert result.exit_code == 1
    assert "--data names a LeRobot v3.0 folder" in result.stderr


def test_pictures_are_drawn_from_plain_arrays(tmp_path: Path) -> None:
    import numpy as np

    original, mask = picture(0, 32, 32), np.eye(4, dtype=bool)
    vectors = np.zeros((5, 3), np.float32)

    reconstruction_sheet([(original, original, mask)] * 2, tmp_path / "sheet.png")
    latent_plot(vectors, None, np.ones((5, 2), np.float32), ["x"], 0.1, "a", tmp_path / "plot.png")
    latent_plot(vectors, np.ones((5, 2), np.float32), np.ones((5, 2), np.float32), [], 0.1, "a",
                tmp_path / "both.png")  # fmt: skip

    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert (pixels == 96).all(axis=-1).any()  # the mask's grey
    assert (tmp_path / "plot.png").stat().st_size > 0
    assert (tmp_path / "both.png").stat().st_size > 0


# ---------------------------------------------------------------- without torch


def test_callers_need_neither_torch_nor_the_other_rooms(worker: str, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    out = tmp_path / "out.parquet"
    theirs = ("torch", "tectum_core", "tectum_train", "tectum_server", "tokenizers", "fastapi")

    calls = [
        run_without(theirs, *arguments, "--worker", worker)
        for arguments in (
            ["embed", tmp_path / "a.png", "--out", out],
            ["models"],
            ["health"],
            ["bench", "--seconds", 0.5, "--size", 32],
        )
    ]

    assert [call.returncode for call in calls] == [0] * 4, [call.stderr for call in calls]
    assert pq.read_table(out).num_rows == 1
