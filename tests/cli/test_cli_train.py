"""`tectum train` and `tectum eval`: a recipe becomes a bundle, and Ctrl-C loses nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from tests.cli.running import invoke
from tests.cli.tiny_run import run_folder, written
from tests.training.tiny import write_set, write_untrained_bundle

from tectum_core.bundle import Repository, read_bundle
from tectum_core.bundle.files import content_version
from tectum_train import export
from tectum_train.engine import checkpoint
from tectum_train.engine.progress import RunProgress

pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture
def recipe(tiny_data: Path, tmp_path: Path) -> Path:
    """The tiny recipe as a file, two steps long."""
    return written(tiny_data, tmp_path, schedule__steps=2)


def refused(*arguments: object) -> str:
    result = invoke("train", *arguments)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    return result.stderr


# ---------------------------------------------------------------- a whole job


def test_a_recipe_becomes_a_published_bundle_that_can_be_evaluated(
    recipe: Path, tiny_data: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"

    result = invoke("train", recipe, "--publish", repository)

    assert result.exit_code == 0, result.output
    folder = run_folder(tmp_path) / "bundle"
    version = content_version(folder)
    told = " ".join(result.stdout.split())
    assert f"bundle {version} in {folder}" in told
    assert f"published tiny@{version} to {repository} " in told
    assert f"serve it: tectum serve --repository {repository} --model tiny" in told
    assert Repository(repository).latest("tiny") == version
    assert read_bundle(folder, "tiny", version).config.training.metrics

    out = tmp_path / "measures.json"
    result = invoke(
        "eval", folder, "--data", tiny_data, "--cache", tiny_data / "frames", "--json", out
    )

    assert result.exit_code == 0, result.output
    assert "| measure | value | controls | gate | | on |" in result.stdout
    (measures,) = json.loads(out.read_text())
    assert measures[0]["name"] == "frame → task, R@1"


def test_seeds_of_one_recipe_share_a_table_and_others_are_refused(
    tiny_data: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("one", "two", "other")]
    for folder in folders:
        write_untrained_bundle(folder)
    for folder, changes in ((folders[1], {"seed": 1}), (folders[2], {"seed": 2, "steps": 7})):
        tree = json.loads((folder / "config.json").read_text())
        tree["training"] |= changes
        (folder / "config.json").write_text(json.dumps(tree))
    data = ("--data", tiny_data, "--cache", tiny_data / "frames")

    result = invoke("eval", *folders[:2], *data)

    assert result.exit_code == 0, result.output
    assert "± 0." in result.stdout
    for given, words in (
        ((folders[0], folders[2]), "(training.steps differ): evaluate them one by one"),
        ((folders[0], folders[0]), "are both of seed 0"),
    ):
        result = invoke("eval", *given, *data)

        assert result.exit_code == 1
        assert words in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert "Traceback" not in result.output


def test_a_value_can_be_set_and_the_evaluation_left_out(recipe: Path, tmp_path: Path) -> None:
    result = invoke("train", recipe, "--no-evaluate", "--set", "seed=3", "--set", "name=other")

    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "other-seed3" / "bundle"
    assert read_bundle(folder, "other").config.training.seed == 3
    assert "Not evaluated." in (folder / "README.md").read_text()


def test_stitched_trunks_that_nobody_measured_are_not_said_to_be_measured(
    tiny_data: Path, tmp_path: Path
) -> None:
    stitched = written(
        tiny_data, tmp_path, schedule__steps=1, tasks={"sharing": {"kind": "cross_stitch"}},
        objectives=[{"kind": "image_text"}, {"kind": "masked_image"}],
    )  # fmt: skip

    result = invoke("train", stitched, "--no-evaluate")

    assert f"trained in {run_folder(tmp_path)}; trunks that are" in " ".join(result.stdout.split())
    assert "measured" not in result.stdout


# ---------------------------------------------------------------- what is refused


def test_an_unknown_recipe_is_answered_with_the_nearest() -> None:
    told = refused("tectum-huge")

    assert "no recipe named 'tectum-huge'; did you mean tectum-tiny? `tectum train --list`" in told


def test_a_wrong_key_is_named(recipe: Path) -> None:
    assert "schedule.stepz" in refused(recipe, "--set", "schedule.stepz=1")


@pytest.mark.parametrize(
    ("name", "data", "verb"),
    [
        ("tectum-tiny", "data/tabletop/train", "make world"),
        ("latent-action-small", "data/tabletop/train", "make world"),
        ("mae-small", "data/tabletop/train", "make world"),
        ("world-model-small", "data/wandering/train", "make wandering"),
    ],
)
def test_who_has_not_made_the_episodes_yet_is_told_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: str, verb: str
) -> None:
    monkeypatch.chdir(tmp_path)

    assert f"{data} is not there yet: `{verb}` makes it" in refused(name)
    assert list(tmp_path.iterdir()) == []


def test_who_evaluates_without_the_world_is_told_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_untrained_bundle(tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)

    result = invoke("eval", "bundle")

    assert result.exit_code == 1
    assert "data/tabletop/train is not there yet: `make world` makes it" in result.stderr
    assert "meta/info.json is missing" in invoke("eval", "bundle", "--data", "other").stderr


def test_data_that_are_not_there_are_named(recipe: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent"

    for split in ("train", "test"):
        told = refused(recipe, "--set", f"data.{split}={absent}")
        assert f"data.{split}: {absent} is not there; name a LeRobot v3.0 folder by" in told
        assert f"--set data.{split}=FOLDER" in told


def test_who_has_not_said_where_their_robots_episodes_lie_is_told_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    told = refused("dino")

    assert "data.train: data/robots/train is not there" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.camera=observation.images.wrist", "no camera 'observation.images.wrist'"),
        ("data.action=torque", "no feature 'torque'"),
        (
            "model.latent_action=null",
            "model.latent_action: found null; allowed: what latent_action learns",
        ),
    ],
)
def test_what_recipe_and_data_do_not_share_is_named(recipe: Path, change: str, words: str) -> None:
    assert words in refused(recipe, "--set", change)


def test_a_second_run_is_refused_and_another_recipe_does_not_resume_it(recipe: Path) -> None:
    assert invoke("train", recipe, "--no-evaluate").exit_code == 0

    again = "holds a run already, {}; resume it as it was begun (--resume), or give this"
    assert again.format("finished") in refused(recipe, "--no-evaluate")
    longer = again.format("of other settings (schedule.steps: 2 → 9)")
    assert longer in refused(recipe, "--no-evaluate", "--set", "schedule.steps=9")
    told = refused(
        recipe,
        "--resume",
        "--set",
        "optimiser.lr=0.5",
        "--set",
        "objectives.latent_action.weight=2",
    )
    assert (
        "another recipe (objectives.latent_action.weight: 1.0 → 2.0, optimiser.lr: 0.001 → 0.5)"
        in told
    )


def test_a_run_goes_on_with_the_settings_it_was_begun_with(recipe: Path, tmp_path: Path) -> None:
    elsewhere = ("--output", tmp_path / "else 🤖 where", "--no-evaluate")
    begun = invoke("train", recipe, *elsewhere, "--set", "schedule.steps=3", "--set", "seed=5")
    assert begun.exit_code == 0, begun.output
    moved = ("--output", (tmp_path / "else 🤖 where").rename(tmp_path / "moved"), "--no-evaluate")

    result = invoke("train", recipe, *moved, "--resume", "--set", "seed=5")

    assert result.exit_code == 0, result.output
    told = "its own settings; the recipe now differs: schedule.steps is 3 here, 2 in"
    assert f"{told} {recipe}\n" in result.stderr
    assert "goes on after step 3" in result.stderr
    summary = read_bundle(tmp_path / "moved" / "tiny-seed5" / "bundle", "tiny").config.training
    assert (summary.steps, summary.seed) == (3, 5)
    assert not run_folder(tmp_path).exists()
    assert "(schedule.steps: 3 → 4)" in refused(
        recipe, *moved, "--resume", "--set", "seed=5", "--set", "schedule.steps=4"
    )


# ---------------------------------------------------------------- what is told without a terminal


def test_without_a_terminal_lines_say_what_is_going_on(
    recipe: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = run_folder(tmp_path)

    lines = invoke("train", recipe).stderr.splitlines()

    assert lines[0] == f"tiny on cpu: 2 steps of 8 samples, seed 0, in {folder}"
    assert lines[1] == "reading the data sets"
    assert any(line.startswith("step 1 of 2: loss ") and "img/s, data " in line for line in lines)
    assert any(line.startswith("step 2 of 2: ") and line.endswith("eta 0:00:00") for line in lines)
    assert f"saved after step 2 in {folder}" in lines
    assert "evaluating masked words" in lines

    other = tmp_path / "other"
    write_untrained_bundle(other)
    seeds = [other, Path(shutil.copytree(other, tmp_path / "another"))]
    tree = json.loads((other / "config.json").read_text())
    tree["training"]["seed"] = 1
    (other / "config.json").write_text(json.dumps(tree))

    lines = invoke(
        "eval", *seeds, "--data", tiny_data, "--cache", tiny_data / "frames"
    ).stderr.splitlines()

    assert [line for line in lines if line.endswith("masked words")] == [
        f"evaluating {seed}: masked words" for seed in seeds
    ]


def test_data_that_names_no_tasks_is_evaluated_as_far_as_it_goes(
    recipe: Path, tmp_path: Path
) -> None:
    write_set(tmp_path / "test", [(0, 0)], seed=700)
    (tmp_path / "test" / "meta" / "world.json").unlink()

    result = invoke("train", recipe, "--set", f"data.test={tmp_path / 'test'}")

    assert result.exit_code == 0, result.output
    assert "not evaluated: retrieval: the data set lacks meta/world.json" in result.stderr


def test_held_out_data_that_is_not_there_is_missed_before_the_training(
    recipe: Path, tmp_path: Path
) -> None:
    told = refused(recipe, "--set", f"data.test={tmp_path / 'absent'}")

    assert "absent" in told
    assert "training" not in told


def test_a_run_that_diverges_says_at_which_step(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = refused(recipe, "--set", "images.standard_deviation=[1e-44, 1e-44, 1e-44]")

    assert "step 0: the gradient is not finite" in told


def test_a_device_that_cannot_be_used_is_told_in_one_line(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    for arguments in (("train", recipe), ("eval", tmp_path)):
        result = invoke(*arguments, "--device", "foo")

        assert result.exit_code == 1
        assert "tectum: device 'foo' cannot be used: " in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_measures_that_could_not_be_written_are_not_made(tmp_path: Path) -> None:
    out = tmp_path / "absent" / "measures.json"

    result = invoke("eval", tmp_path, "--json", out)

    assert result.exit_code == 1
    assert f"--json: {tmp_path / 'absent'} is not there" in result.stderr


NO_SPACE = "No space left on device"


@pytest.mark.parametrize(
    ("where", "name", "error", "told"),
    [
        (
            checkpoint, "save_file", SafetensorError(NO_SPACE),
            f"checkpoint.safetensors cannot be written: {NO_SPACE}",
        ),
        (
            export, "write_bundle", SafetensorError(NO_SPACE),
            f"bundle cannot be written: {NO_SPACE}",
        ),
        (RunProgress, "record", OSError(28, NO_SPACE), f"tiny-seed0: [Errno 28] {NO_SPACE}"),
    ],
    ids=["checkpoint", "bundle", "metrics"],
)  # fmt: skip
def test_a_full_disk_ends_a_run_in_one_line_that_names_the_place(
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    error: Exception,
    told: str,
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(where, name, full)

    assert told in refused(recipe, "--no-evaluate").splitlines()[-1]


def test_a_folder_that_is_no_bundle_cannot_be_evaluated(tmp_path: Path) -> None:
    result = invoke("eval", tmp_path)

    assert result.exit_code == 1
    assert "config.json is missing" in result.stderr


def test_a_bundle_is_measured_on_another_set_if_one_is_named(
    tiny_data: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    write_untrained_bundle(bundle)
    fresh = write_set(tmp_path / "fresh", [(family, 2) for family in range(4)], seed=500)

    result = invoke(
        "eval", bundle, "--data", tiny_data, "--test", fresh, "--cache", tiny_data / "frames"
    )

    assert result.exit_code == 0, result.output
    assert "of 4 episodes; only 3 training episodes a task" in result.stdout
