"""Resuming: the uninterrupted run to the last bit, or a refusal that says what differs."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.training.engine.runs import checkpoint, died_and_resumed, folder, metrics, same, trained
from tests.training.tiny import (
    CAMERA,
    job,
    latent_action,
    parts,
    vision_alone,
    write_data,
    write_set,
)

from tectum_core.architecture import ConvolutionDynamicsConfig, VqBottleneck
from tectum_train.engine import run as engine
from tectum_train.engine.checkpoint import CheckpointError
from tectum_train.engine.run import Interrupted
from tectum_train.recipe import Recipe


def with_codebook(tiny_data: Path, output: Path, **changes: Any) -> Recipe:
    """A run whose codes die so often that each step draws new ones."""
    latent = latent_action(bottleneck=VqBottleneck(codebook_size=16, decay=0.5))
    return job(tiny_data, output, model=parts(latent_action=latent), **changes)


def test_a_run_with_a_codebook_repeats_itself(tiny_data: Path, tmp_path: Path) -> None:
    one, two = (with_codebook(tiny_data, tmp_path / name) for name in ("one", "two"))

    trained(one)
    trained(two)

    assert same(checkpoint(one), checkpoint(two))


@pytest.fixture
def terminal() -> Iterator[None]:
    """Its end is heard, whatever the tests were started by."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_was_interrupted_resumes_exactly(
    tiny_data: Path, tmp_path: Path, after_step: Any, number: signal.Signals
) -> None:
    straight, broken = (with_codebook(tiny_data, tmp_path / name) for name in ("one", "two"))
    reference = trained(straight)

    after_step(2, lambda: signal.raise_signal(number))
    with pytest.raises(Interrupted, match="saved after step 3"):
        trained(broken)
    torch.rand(7)  # the generator is elsewhere when the run is taken up again
    resumed = trained(broken, resume=True)

    assert same(reference.model.state_dict(), resumed.model.state_dict())
    assert same(checkpoint(straight), checkpoint(broken))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


@pytest.mark.usefixtures("terminal")
def test_what_nohup_keeps_alive_is_not_interrupted_by_its_terminals_end(
    tiny_data: Path, tmp_path: Path, after_step: Any
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    recipe = job(tiny_data, tmp_path)

    after_step(2, lambda: signal.raise_signal(signal.SIGHUP))
    trained(recipe)

    assert metrics(recipe)[-1]["step"] == 6
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_run_that_died_goes_on_from_its_last_checkpoint(
    tiny_data: Path, tmp_path: Path, after_step: Any
) -> None:
    every_two = {"schedule__checkpoint_every": 2}
    straight = with_codebook(tiny_data, tmp_path / "one", **every_two)
    broken = with_codebook(tiny_data, tmp_path / "two", **every_two)
    trained(straight)

    died_and_resumed(broken, after_step)

    assert same(checkpoint(straight), checkpoint(broken))


def test_a_second_interrupt_stops_at_once(tiny_data: Path, tmp_path: Path, after_step: Any) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    after_step(1, twice)
    with pytest.raises(KeyboardInterrupt) as stopped:
        trained(job(tiny_data, tmp_path))

    assert not isinstance(stopped.value, Interrupted)


def test_an_interrupt_at_the_last_step_finishes_the_run(
    tiny_data: Path, tmp_path: Path, after_step: Any
) -> None:
    after_step(5, lambda: signal.raise_signal(signal.SIGINT))

    run = trained(job(tiny_data, tmp_path))

    assert (folder(run.recipe) / "checkpoint.safetensors").exists()


def test_an_unfinished_run_goes_on_by_itself_and_nothing_else_does(
    tiny_data: Path, tmp_path: Path, after_step: Any
) -> None:
    short = {"model": vision_alone(), "objectives": [{"kind": "masked_image"}]}
    straight, broken = (job(tiny_data, tmp_path / name, **short) for name in ("one", "two"))
    trained(straight)
    after_step(2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted):
        trained(broken)
    before = checkpoint(broken)

    for changed, told in (
        ({"schedule__steps": 7}, r"schedule\.steps: 6 → 7"),
        ({"optimiser": {"lr": 0.5}}, r"optimiser\.lr: 0\.001 → 0\.5"),
    ):
        with pytest.raises(FileExistsError, match=rf"of other settings \({told}\); resume it"):
            trained(job(tiny_data, tmp_path / "two", **short, **changed))
    assert same(before, checkpoint(broken))
    trained(broken)

    assert same(checkpoint(straight), checkpoint(broken))
    with pytest.raises(FileExistsError, match="holds a run already, finished; resume it"):
        trained(broken)
    broken.checkpoint.write_bytes(b"half of it")
    with pytest.raises(FileExistsError, match="whose checkpoint cannot be read"):
        trained(broken)


def test_how_often_a_run_saves_may_change(tiny_data: Path, tmp_path: Path, after_step: Any) -> None:
    short = {"model": vision_alone(), "objectives": [{"kind": "masked_image"}]}
    after_step(2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted):
        trained(job(tiny_data, tmp_path, **short))

    run = trained(job(tiny_data, tmp_path, **short, schedule__checkpoint_every=1))

    assert [one["step"] for one in metrics(run.recipe)][-1] == run.recipe.schedule.steps


def test_resuming_what_never_began_begins_it(tiny_data: Path, tmp_path: Path) -> None:
    recipe = job(tiny_data, tmp_path, schedule__steps=1)

    trained(recipe, resume=True)

    assert [one["step"] for one in metrics(recipe)] == [1]


# ---------------------------------------------------------------- on a GPU


def test_training_asks_for_full_precision_and_kernels_that_repeat(
    tiny_data: Path, tmp_path: Path
) -> None:
    torch.backends.cudnn.allow_tf32 = True  # torch's own default
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = True

    trained(job(tiny_data, tmp_path, schedule__steps=1))

    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_on_a_gpu_resumes_exactly(
    tiny_data: Path, tmp_path: Path, after_step: Any, precision: str
) -> None:
    latent = latent_action(
        dynamics=ConvolutionDynamicsConfig(widths=(8, 16)),
        bottleneck=VqBottleneck(codebook_size=16, decay=0.5),
    )
    straight, broken = (
        job(tiny_data, tmp_path / name, model=parts(latent_action=latent), precision=precision)
        for name in ("one", "two")
    )
    trained(straight, device="cuda")

    after_step(2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match="saved after step 3"):
        trained(broken, device="cuda")
    trained(broken, resume=True, device="cuda")

    assert same(checkpoint(straight), checkpoint(broken))


# ---------------------------------------------------------------- data, code and records


@pytest.fixture
def halted(tmp_path: Path, after_step: Any) -> Recipe:
    """A run on data of its own that was interrupted after its third step."""
    recipe = job(write_data(tmp_path / "data"), tmp_path)
    after_step(2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted):
        trained(recipe)
    return recipe


def test_a_run_does_not_resume_on_data_that_were_generated_anew(
    halted: Recipe, tmp_path: Path
) -> None:
    tasks = tmp_path / "data/train/meta/tasks.parquet"
    shutil.rmtree(tmp_path / "data")
    write_data(tmp_path / "data")
    before = checkpoint(halted)
    trained(halted, resume=True)  # the same again is no obstacle
    assert not same(before, checkpoint(halted))

    shutil.copy(tmp_path / "data/test/meta/tasks.parquet", tasks)
    with pytest.raises(CheckpointError, match=r"other data than data\.train has now.*put the"):
        trained(halted, resume=True)


def test_a_run_does_not_resume_on_other_pictures_of_the_same_episodes(
    halted: Recipe, tmp_path: Path
) -> None:
    film = f"videos/{CAMERA}/chunk-000/file-000.mp4"
    episodes = [(family, place % 2) for place in range(3) for family in range(4)]
    write_set(tmp_path / "other", episodes, seed=900)  # as many, as long, of the same sentences

    shutil.copy(tmp_path / "other" / film, tmp_path / "data/train" / film)

    with pytest.raises(CheckpointError, match=r"other data than data\.train has now: its films"):
        trained(halted, resume=True)


def test_a_run_resumes_on_a_copy_of_its_data(halted: Recipe, tmp_path: Path) -> None:
    shutil.move(tmp_path / "data/train", tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "data/train", copy_function=shutil.copyfile)

    trained(halted, resume=True)

    assert metrics(halted)[-1]["step"] == 6


def test_the_held_out_episodes_may_move(halted: Recipe, tmp_path: Path) -> None:
    shutil.move(tmp_path / "data/test", tmp_path / "elsewhere")
    data = halted.data.model_copy(update={"test": str(tmp_path / "elsewhere")})

    trained(halted.model_copy(update={"data": data}), resume=True)

    assert metrics(halted)[-1]["step"] == 6


def commits(recipe: Recipe) -> object:
    with safe_open(folder(recipe) / "checkpoint.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["commits"])


def test_every_commit_that_trained_is_named_once(
    tiny_data: Path, tmp_path: Path, after_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, said = job(tiny_data, tmp_path), []
    for step, commit in enumerate(("aaa", "aaa", "", "bbb")):
        monkeypatch.setattr(engine, "commit_of", lambda _, commit=commit: commit)
        after_step(step, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            trained(recipe, resume=True)
        said.append(commits(recipe))

    run = trained(recipe, resume=True)
    monkeypatch.setattr(engine, "commit_of", lambda _: "ccc")
    again = trained(recipe, resume=True)

    assert said == [["aaa"], ["aaa"], ["aaa", ""], ["aaa", "", "bbb"]]
    assert run.config.training.commit == "aaa, unknown, bbb"
    assert again.config.training.commit == "aaa, unknown, bbb"  # what is finished trains no more


def test_steps_after_the_checkpoint_are_not_recorded_twice(
    tiny_data: Path, tmp_path: Path, after_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_RECORD_EVERY", 1)
    recipe = job(tiny_data, tmp_path, schedule__checkpoint_every=2)

    def die() -> None:
        with (folder(recipe) / "metrics.jsonl").open("a") as file:
            file.write('{"step": 6, "lo')
        raise MemoryError

    after_step(4, die)
    with pytest.raises(MemoryError):
        trained(recipe)
    trained(recipe, resume=True)

    assert [one["step"] for one in metrics(recipe)] == [1, 2, 3, 4, 5, 6]


def test_what_died_before_its_first_checkpoint_is_recorded_from_the_beginning(
    tiny_data: Path, tmp_path: Path, after_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_RECORD_EVERY", 1)
    recipe = job(tiny_data, tmp_path)

    def die() -> None:
        raise MemoryError

    after_step(1, die)
    with pytest.raises(MemoryError):
        trained(recipe)
    trained(recipe)

    assert [one["step"] for one in metrics(recipe)] == [1, 2, 3, 4, 5, 6]
