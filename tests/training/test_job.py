"""Evaluation of a bundle that lies in a folder: which episodes fit, and which are measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.training.tiny import CAMERA, write_set, write_untrained_bundle

from tectum_train import job
from tectum_train.data import DataError
from tectum_train.evaluation.context import Columns
from tectum_train.evaluation.measure import Measure
from tectum_train.job import evaluate_bundle


@pytest.fixture
def evaluate(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Evaluates an untrained bundle; gives what would have been measured."""
    write_untrained_bundle(tmp_path / "bundle")
    asked: list[Any] = []

    def kept(*given: Any) -> list[Measure]:
        asked.append(given)
        return []

    monkeypatch.setattr(job, "evaluate", kept)

    def run(**changes: Any) -> Any:
        evaluate_bundle(
            tmp_path / "bundle", tiny_data, CAMERA, Columns(), tmp_path / "frames", False,
            Console(quiet=True), **changes,
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
    _, train, test, *_, device = evaluate(test=fresh, device="cuda:1")

    assert (train.dataset.root, test.dataset.root) == (tiny_data / "train", fresh)
    assert device == "cuda:1"


def edited(path: Path, change: Any) -> None:
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def test_a_set_of_other_families_is_refused(evaluate: Any, fresh: Path) -> None:
    edited(fresh / "meta" / "world.json", lambda tree: tree["families"].reverse())

    with pytest.raises(DataError, match="fresh names other task families than"):
        evaluate(test=fresh)


def test_a_set_that_names_no_families_is_measured_as_far_as_it_goes(
    evaluate: Any, fresh: Path
) -> None:
    (fresh / "meta" / "world.json").unlink()

    _, _, test, *_ = evaluate(test=fresh)

    assert test.dataset.root == fresh


def test_a_set_of_another_rate_is_refused(
    evaluate: Any, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = write_slow(fresh.parent / "slow", monkeypatch)

    with pytest.raises(DataError, match=r"slow has 8 frames a second and .*train 16"):
        evaluate(test=slow)


def write_slow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set of half as many frames a second."""
    from tests.training import tiny

    monkeypatch.setattr(tiny, "FPS", 8)
    return write_set(folder, [(0, 2)], seed=600)
