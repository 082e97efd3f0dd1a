"""`models`, `health` and `demo` against a real worker; and that callers need no torch."""

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

from tectum import (
    Capability,
    Client,
    GoldenStatus,
    ModelState,
    Numerics,
    Rejection,
    VectorKind,
    WorldActions,
    WorldModelInput,
)
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


def test_models_tells_how_close_a_model_comes_to_its_golden_outputs(
    worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(worker) as client:
        (model,) = client.list_models()
    golden = GoldenStatus(passed=True, max_abs_difference=0.1, min_cosine=0.9931, outputs=7)
    quantised = replace(model, golden=golden, numerics=Numerics("int8", "torch"))

    told = invoke("models", "--worker", worker).output
    one = invoke("models", "tiny", "--worker", worker).output
    monkeypatch.setattr(Client, "list_models", lambda _: [quantised])

    assert f"golden      cosine 1.000000 or closer, {model.golden.outputs} outputs" in told
    assert "golden      cosine 1.000000 or closer" in one
    words = "golden      cosine 0.993100 or closer, 7 outputs"
    assert words in invoke("models", "--worker", worker).output


def test_a_model_that_never_ran_tells_no_golden_outputs(
    worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(worker) as client:
        (model,) = client.list_models()
    never = GoldenStatus(passed=False, max_abs_difference=0.0, min_cosine=0.0, outputs=0)
    failed = replace(model, state=ModelState.FAILED, golden=never)
    monkeypatch.setattr(Client, "list_models", lambda _: [failed])

    assert "golden" not in invoke("models", "--worker", worker).output


def test_a_model_that_is_not_ready_says_so(worker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(worker) as client:
        (model,) = client.list_models()
    failed = replace(model, state=ModelState.FAILED, failure="golden outputs differ [by 0.1]")
    monkeypatch.setattr(Client, "list_models", lambda _: [failed])

    output = invoke("models", "--worker", worker).output

    assert "state       failed golden outputs differ [by 0.1]" in output


def test_a_model_whose_newest_version_was_rejected_says_so(
    worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(worker) as client:
        (model,) = client.list_models()
    rejected = replace(model, rejection=Rejection("e" * 16, "lacks [vision.norm]", 1.0))
    monkeypatch.setattr(Client, "list_models", lambda _: [rejected])

    output = invoke("models", "--worker", worker).output

    assert f"rejected    {'e' * 16} lacks [vision.norm]" in output
    assert model.version in output


def test_one_model_is_described_by_its_card(worker: str) -> None:
    result = invoke("models", "tiny", "--worker", worker)

    assert result.exit_code == 0
    assert "Untrained" in result.output
    assert "Its vectors mean nothing." in result.output


@pytest.mark.parametrize(
    ("actions", "steps", "said"),
    [
        (WorldActions.REAL, 4, "with 4 actions of 3 numbers between two; 1 to 8 frames ahead"),
        (WorldActions.LATENT, 1, "with 1 latent action of 3 numbers between two; 1 to 8 frames"),
        (WorldActions.NONE, 0, "with no actions between two; 1 to 8 frames ahead"),
    ],
)
def test_one_model_is_described_with_what_its_rollouts_take(
    worker: str, monkeypatch: pytest.MonkeyPatch, actions: WorldActions, steps: int, said: str
) -> None:
    with Client(worker) as client:
        model = client.get_model("tiny")
    world = WorldModelInput(0.05, 2, 8, actions, steps, 3, VectorKind.TOKENS, 16)
    foresees = replace(model, input=replace(model.input, world_model=world))
    monkeypatch.setattr(Client, "get_model", lambda *_: foresees)

    output = invoke("models", "tiny", "--worker", worker).output

    assert f"rollouts    from 1 to 2 frames, 0.05 s apart, {said}" in output
    assert model.version in output


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
    assert "an episode with the instruction 'red block goes left'" in words
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
    assert "latent actions of an episode" in result.output


def test_the_demo_draws_the_actions_that_are_decoded_and_names_those_that_are_not(
    worker: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    shown: list[tuple[Any, ...]] = []

    def told(decoded: Any) -> str:
        numbers = iter(decoded)
        monkeypatch.setattr(demo, "_decoded", lambda _: next(numbers))
        given = ["--data", tiny_data / "test", "--pictures", tmp_path]
        result = invoke("demo", "--worker", worker, *given)
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    monkeypatch.setattr(pictures, "latent_plot", lambda *given: shown.append(given))
    with monkeypatch.context() as models_own:
        models_own.setattr(demo, "_unread", lambda *_: [])
        told(np.zeros((99, 4), np.float32))
    _, _, true, labels, *_ = shown[-1]
    assert labels == [
        "hand_dx\n(cm a step)", "hand_dy\n(cm a step)", "hand_dz\n(cm a step)",
        "gripper_effort\n(+1 closes)",
    ]  # fmt: skip
    unread = "decoded no better here than by the mean"

    words = told(np.where(np.arange(4) == 0, 9, true))
    _, decoded, left, drawn, _, title, _ = shown[-1]
    assert f"actions: hand_dx, hand_dy, hand_dz; {unread}: hand_dx " in words
    assert title.endswith(f"\nleft out, {unread}: hand_dx")
    assert drawn == labels[1:]
    np.testing.assert_array_equal(left, true[:, 1:])
    np.testing.assert_array_equal(decoded, true[:, 1:])

    words = told(true)
    assert "than by the mean" not in words + shown[-1][5]
    assert shown[-1][3] == labels


def test_the_demo_hides_other_parts_of_each_picture(
    worker: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(pictures, "reconstruction_sheet", lambda rows, _: drawn.extend(rows))

    invoke("demo", "--worker", worker, "--data", tiny_data / "test", "--pictures", tmp_path)

    masks = [mask.tobytes() for _, _, mask in drawn]
    assert len(masks) > 1
    assert len(set(masks)) > 1


def test_the_demo_outside_a_checkout_asks_for_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_CHECKOUT", tmp_path / "nowhere")

    result = invoke("demo", "--pictures", tmp_path)

    assert result.exit_code == 1
    assert result.stderr == "tectum: the demo's frames come with a checkout; give --data FOLDER\n"


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
    latent_plot(vectors, None, np.ones((5, 0), np.float32), [], 0.1, "a", tmp_path / "none.png")
    latent_plot(vectors, np.ones((5, 2), np.float32), np.ones((5, 2), np.float32), [], 0.1, "a",
                tmp_path / "both.png")  # fmt: skip

    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert (pixels == 96).all(axis=-1).any()  # the mask's grey
    assert (tmp_path / "plot.png").stat().st_size > 0
    assert (tmp_path / "both.png").stat().st_size > 0
    assert (tmp_path / "none.png").stat().st_size > 0


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
