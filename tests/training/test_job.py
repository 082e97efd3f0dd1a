"""Whole jobs: what is refused before the work begins, and which episodes are measured."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from rich.console import Console
from tests.training.tiny import CAMERA, write_set, write_untrained_bundle
from tests.training.tiny import job as job_of

from tectum_train import job
from tectum_train.data import DataError
from tectum_train.evaluation.measuring.context import Columns
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.job import check_device, evaluate_bundles, run_job
from tectum_train.recipe import RecipeError

pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture
def evaluate(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Evaluates an untrained bundle; gives what would have been measured."""
    write_untrained_bundle(tmp_path / "bundle")
    asked: list[Any] = []

    def kept(*given: Any) -> list[Measure]:
        asked.append(given)
        return []

    monkeypatch.setattr(job, "evaluate", kept)

    def run(folders: list[Path] | None = None, **changes: Any) -> Any:
        evaluate_bundles(
            folders or [tmp_path / "bundle"], tiny_data, CAMERA, Columns(), tmp_path / "frames",
            False, Console(quiet=True), **changes,
        )  # fmt: skip
        return asked[-1]

    return run


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Episodes on which nothing was chosen."""
    return write_set(tmp_path / "fresh", [(family, 2) for family in range(4)], seed=500)


def test_probes_are_fitted_on_one_split_and_measured_on_the_other(
    evaluate: Any, tiny_data: Path
) -> None:
    _, train, test, *_ = evaluate()

    assert (train.dataset.root, test.dataset.root) == (tiny_data / "train", tiny_data / "test")


def test_another_set_takes_the_test_splits_place(
    evaluate: Any, tiny_data: Path, fresh: Path
) -> None:
    _, train, test, *_, device = evaluate(test=fresh, device="cpu:0")

    assert (train.dataset.root, test.dataset.root) == (tiny_data / "train", fresh)
    assert device == "cpu:0"


# ---------------------------------------------------------------- several bundles


def bundle(folder: Path, seed: int, **changes: Any) -> Path:
    """An untrained bundle of a seed, its configuration changed."""
    write_untrained_bundle(folder)
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    tree["training"] |= {"seed": seed} | changes.pop("training", {})
    path.write_text(json.dumps(tree | changes))
    return folder


def test_several_seeds_are_measured_each_under_its_folder_by_its_own_seed(
    evaluate: Any, tmp_path: Path
) -> None:
    folders = [bundle(tmp_path / str(seed), seed) for seed in (3, 5)]

    _, _, _, _, seed, *_ = evaluate(folders)

    assert seed == 5


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"training": {"recipe": "other"}}, "recipe"),
        ({"training": {"steps": 9}}, "training.steps"),
    ],
)
def test_bundles_of_different_recipes_are_refused(
    evaluate: Any, tmp_path: Path, changes: dict[str, Any], differing: str
) -> None:
    folders = [bundle(tmp_path / "one", 0), bundle(tmp_path / "two", 1, **changes)]

    with pytest.raises(
        ValueError, match=rf"two is of another recipe than .*one \({differing} "
    ) as e:
        evaluate(folders)

    assert str(e.value).endswith("evaluate them one by one")


def test_where_data_lay_and_which_commit_trained_do_not_make_another_recipe(
    evaluate: Any, tmp_path: Path
) -> None:
    elsewhere = {"training": {"data": "/elsewhere", "commit": "abc"}}
    folders = [bundle(tmp_path / "one", 0), bundle(tmp_path / "two", 1, **elsewhere)]

    assert evaluate(folders)


def test_one_seed_twice_is_refused(evaluate: Any, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "one", 4)

    with pytest.raises(ValueError, match="one and .*one are both of seed 4"):
        evaluate([folder, folder])


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize("device", ["foo", "meta", "cuda:99"])
def test_a_device_that_cannot_be_used_is_refused_in_one_line(device: str) -> None:
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used: ") as error:
        check_device(device)

    assert "\n" not in str(error.value)


def test_the_device_is_tried_before_any_data_is_read(
    evaluate: Any, tiny_data: Path, tmp_path: Path
) -> None:
    absent = job_of(tmp_path / "absent", tmp_path)

    with pytest.raises(ValueError, match="device 'foo' cannot be used"):
        evaluate([tmp_path / "no bundle"], device="foo")
    with pytest.raises(ValueError, match="device 'foo' cannot be used"):
        run_job(absent, "foo", False, True, None, Console(quiet=True))


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ({"kind": "video_mae"}, "video_mae needs model.video"),
        ({"kind": "beit", "tokenizer": "nowhere"}, r"nowhere/image-tokenizer\.safetensors is not"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["kind"],
)
@pytest.mark.parametrize("evaluated", [True, False])
def test_what_the_model_lacks_is_told_before_any_data_is_read(
    objective: dict[str, str], told: str, evaluated: bool, tmp_path: Path
) -> None:
    absent = job_of(tmp_path / "absent", tmp_path, objectives=[objective])

    with pytest.raises(ValueError, match=told):
        run_job(absent, "cpu", False, evaluated, None, Console(quiet=True))


@pytest.mark.parametrize("output", ["/proc/nowhere/runs", "{file}", "{file}/runs"])
def test_a_folder_that_cannot_be_made_is_told_before_any_data_is_read(
    output: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    absent = job_of(tmp_path / "absent", tmp_path)
    place = output.format(file=tmp_path / "file")

    with pytest.raises(RecipeError, match=f"^output: found {place}; allowed: a folder that can"):
        run_job(
            absent.model_copy(update={"output": place}), "cpu", False, True, None,
            Console(quiet=True),
        )  # fmt: skip


def test_trying_whether_the_folder_can_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.train: .* is not there"):
        run_job(
            job_of(tmp_path / "absent", tmp_path), "cpu", False, True, None, Console(quiet=True)
        )

    assert list(tmp_path.iterdir()) == []


def test_splits_that_do_not_fit_are_refused_before_the_training(
    tiny_data: Path, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "train", lambda *_: pytest.fail("the training began"))
    recipe = job_of(tiny_data, tmp_path)
    slow = write_slow(tmp_path / "slow", monkeypatch)
    apart = recipe.data.model_copy(update={"test": str(slow)})

    with pytest.raises(DataError, match="slow has 8 frames a second"):
        run_job(
            recipe.model_copy(update={"data": apart}), "cpu", False, True, None, Console(quiet=True)
        )


def test_sentences_that_a_mirror_would_let_be_heard_are_refused_before_the_training(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "train", lambda *_: pytest.fail("the training began"))
    flip = {"actions": [0], "states": [0], "words": {"left": "right"}}
    recipe = job_of(tiny_data, tmp_path, augmentation={"flip": flip})
    # Whose mirror image, 'red block goes left', it does not have itself.
    heard = write_set(tmp_path / "heard", [(0, 0), (1, 2), (2, 0), (3, 0)], seed=900)
    data = recipe.data.model_copy(update={"train": str(heard)})

    with pytest.raises(DataError, match="'red block goes left' among .*, as augmentation.flip.wo"):
        run_job(
            recipe.model_copy(update={"data": data}), "cpu", False, True, None, Console(quiet=True)
        )


@pytest.fixture
def known(tiny_data: Path, tmp_path: Path) -> dict[str, Path]:
    """Sets that hold what is learnt from: its folder, a copy, and some of it made again."""
    return {
        "folder": tiny_data / "train",
        "copy": Path(shutil.copytree(tiny_data / "train", tmp_path / "copy")),
        "made again": write_set(tmp_path / "again", [(0, 2), (1, 2)]),
    }


KNOWN = {
    "folder": "train is the folder that is learnt from; measure on another one",
    "copy": "12 of the 12 episodes of .*copy are in .*train too",
    "made again": "2 of the 2 episodes of .*again are in .*train too, by their pictures",
}


@pytest.mark.parametrize("which", KNOWN)
def test_what_was_learnt_from_is_not_measured_on(
    which: str, known: dict[str, Path], tiny_data: Path, tmp_path: Path
) -> None:
    write_untrained_bundle(tmp_path / "bundle")

    with pytest.raises(DataError, match=KNOWN[which]):
        evaluate_bundles(
            [tmp_path / "bundle"], tiny_data, CAMERA, Columns(), tmp_path / "frames", False,
            Console(quiet=True), known[which],
        )  # fmt: skip


@pytest.mark.parametrize("which", KNOWN)
def test_what_will_be_learnt_from_is_refused_as_a_test_before_the_training(
    which: str,
    known: dict[str, Path],
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job, "train", lambda *_: pytest.fail("the training began"))
    recipe = job_of(tiny_data, tmp_path)
    data = recipe.data.model_copy(update={"test": str(known[which])})

    with pytest.raises(DataError, match=KNOWN[which]):
        run_job(
            recipe.model_copy(update={"data": data}), "cpu", False, True, None, Console(quiet=True)
        )


def test_a_set_without_episodes_is_refused(evaluate: Any, fresh: Path) -> None:
    for path in (fresh / "meta" / "episodes").rglob("*.parquet"):
        parquet.write_table(parquet.read_table(path).slice(0, 0), path)
    edited(
        fresh / "meta" / "info.json",
        lambda tree: tree.update(total_episodes=0, total_frames=0),
    )

    with pytest.raises(DataError, match="fresh holds no episodes"):
        evaluate(test=fresh)


def edited(path: Path, change: Any) -> None:
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def test_a_set_that_names_no_families_is_measured_as_far_as_it_goes(
    evaluate: Any, fresh: Path
) -> None:
    (fresh / "meta" / "world.json").unlink()

    _, _, test, *_ = evaluate(test=fresh)

    assert test.dataset.root == fresh


def write_slow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set of half as many frames a second."""
    from tests.training import tiny

    monkeypatch.setattr(tiny, "FPS", 8)
    return write_set(folder, [(0, 2)], seed=600)


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize(
    ("precision", "cost", "told"),
    [("bfloat16", 12.2, True), ("bfloat16", 1.1, False), ("float32", 12.2, False)],
)
def test_bfloat16_is_warned_of_where_it_is_dear(
    precision: str, cost: float, told: bool, tiny_data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(job, "bfloat16_cost", lambda _: cost)
    said = io.StringIO()
    recipe = job_of(tiny_data, tmp_path, precision=precision, schedule__steps=1)

    run_job(recipe, "cpu", False, False, None, Console(file=said, width=400))
    first = said.getvalue()
    run_job(recipe, "cpu", True, False, None, Console(file=said, width=400))

    assert ("bfloat16 takes 12 times as long as float32" in first) == told
    assert said.getvalue().count("precision=float32 will be faster") == told  # a run keeps its own
