"""The GPU benchmark's own works, on a CPU and a tiny recipe; it is not timed here."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rich.console import Console
from tests.training.tiny import job

import training_gpu
from training_gpu import ROWS, Found, Row, measure, recipe_of, report, table


@pytest.fixture
def found(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    """A recipe of coupled and averaged objectives, in two pieces."""
    monkeypatch.setattr(training_gpu, "WORLD", tiny_data)
    objectives = [{"kind": "image_text"}, {"kind": "supervised", "classes": {"task_family": 4}}]
    tree = job(tiny_data, tmp_path, objectives=objectives).model_dump(mode="json")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    row = Row("tiny", str(tmp_path / "tiny.yaml"), 16, 8)
    return measure(row, 16, 1, 3, "cpu", Console(quiet=True))


def test_a_row_is_timed_counted_and_trained(found: Found) -> None:
    assert found.images_per_second > 0
    assert found.tflops > 0
    assert [step for step, _ in found.losses] == [1, 3]  # the first and the last are recorded
    assert found.parameters > 1000


def test_the_report_has_a_row_and_its_curve(found: Found, tmp_path: Path) -> None:
    path = tmp_path / "gpu.md"

    said = report([found], 1e-3, path)

    assert "| tiny |" in said
    assert "| 16 in 8s |" in said
    assert path.with_suffix(".png").stat().st_size > 1000


def test_without_a_known_card_no_share_is_told(found: Found) -> None:
    assert "not known" in table([found], None)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_large_recipes_read_as_rows(row: Row, tmp_path: Path) -> None:
    recipe = recipe_of(row, row.batch, 10, tmp_path)

    assert recipe.schedule.batch_size == row.batch
    assert recipe.precision == "bfloat16"
    assert recipe.model.vision.image_size == 224


def test_a_smaller_batch_has_as_much_smaller_a_learning_rate(tmp_path: Path) -> None:
    (mae,) = (row for row in ROWS if row.name == "MAE ViT-B/16")

    rates = [recipe_of(mae, batch, 10, tmp_path).optimiser.lr for batch in (8192, 4096, 512)]

    assert rates == pytest.approx([2.4e-3, 2.4e-3, 3e-4])
