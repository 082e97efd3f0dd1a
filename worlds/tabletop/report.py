"""The report's command: what is in a generated set, and how hard it is.

    python -m tabletop.report DIR

reads DIR/train and DIR/test, prints, and writes DIR/report.json, DIR/report.md and contact sheets.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markdown import Markdown

from tabletop.dataset import Dataset
from tabletop.families import NAMES
from tabletop.plan import SPLITS
from tabletop.probes import COMPONENTS, probe_label_and_time, probe_pixels, sample
from tabletop.sheet import hand_pixels, write_sheet

_LEAST_WIDTH = 110  # of the printed tables, also where there is no terminal to ask


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        Exit status: 0 done, 1 the two splits are not disjoint, 2 no data set there.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tabletop.report",
        description="Describe a generated data set and measure what raw pixels, and the task's "
        "label with elapsed time, say about the hand's position on held-out layouts.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="holds train/ and test/")
    directory: Path = parser.parse_args(arguments).directory
    console = Console(width=max(Console().width, _LEAST_WIDTH))
    try:
        sets = {split: Dataset(directory / split) for split in SPLITS}
    except FileNotFoundError as error:
        console.print(f"[red]no generated data set: {error.filename} is missing[/red]")
        return 2
    report = measure(sets)
    text = to_markdown(report)
    (directory / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (directory / "report.md").write_text(text, encoding="utf-8")
    for split, dataset in sets.items():
        write_sheet(dataset, directory / f"sheet-{split}.png")
        write_sheet(dataset, directory / f"sheet-{split}-hand.png", mark_hand=True)
    console.print(Markdown(text))
    return 0 if report["disjoint"]["layouts"] and report["disjoint"]["instructions"] else 1


def measure(sets: dict[str, Dataset]) -> dict[str, Any]:
    """All numbers of the report, as plain values."""
    train, test = sample(sets["train"]), sample(sets["test"])
    pixels, schedule = probe_pixels(train, test), probe_label_and_time(train, test)
    return {
        "command": sets["train"].world["command"],
        "generator_version": sets["train"].world["generator_version"],
        "splits": {split: _split_numbers(dataset) for split, dataset in sets.items()},
        "tasks": _task_numbers(sets),
        "disjoint": {
            "layouts": _layouts(sets["train"]).isdisjoint(_layouts(sets["test"])),
            "instructions": _sentences(sets["train"]).isdisjoint(_sentences(sets["test"])),
        },
        "hand_position_r2": {
            f"pixels, PCA-{COMPONENTS}": _axes(pixels),
            "task and time alone": _axes(schedule),
        },
    }


def to_markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    splits = report["splits"]
    lines = [
        "# Tabletop data set",
        "",
        f"`{report['command']}` (generator {report['generator_version']})",
        "",
        *_table(
            ["split", *next(iter(splits.values()))],
            [[name, *numbers.values()] for name, numbers in splits.items()],
        ),
        "",
        *(
            f"- {what} of train and test: {'disjoint' if holds else '**OVERLAP**'}"
            for what, holds in report["disjoint"].items()
        ),
        "",
        "## Hand position on held-out layouts, R² (fitted on train)",
        "",
        *_table(
            ["from", "x", "y", "z", "mean"],
            [[name, *axes.values()] for name, axes in report["hand_position_r2"].items()],
        ),
        "",
        "## Tasks",
        "",
        *_table(
            ["task", *next(iter(report["tasks"].values()))],
            [[name, *numbers.values()] for name, numbers in report["tasks"].items()],
        ),
        "",
    ]
    return "\n".join(lines)


def _split_numbers(dataset: Dataset) -> dict[str, Any]:
    families = dataset.world["families"]
    episodes, attempts = (
        sum(family[key] for family in families) for key in ("episodes", "attempts")
    )
    information = dataset.information
    size = information["features"]["observation.images.front"]["shape"][0]
    pixels = np.concatenate(
        [hand_pixels(dataset, e.begin, e.end - e.begin) for e in dataset.extents()]
    )
    seen = np.all((pixels > -0.5) & (pixels < size - 0.5), axis=1)
    megabytes = sum(path.stat().st_size for path in dataset.root.rglob("*") if path.is_file()) / 1e6
    return {
        "episodes": information["total_episodes"],
        "frames": information["total_frames"],
        "minutes": round(information["total_frames"] / information["fps"] / 60, 2),
        "MB": round(megabytes, 2),
        "sentences": information["total_tasks"],
        "expert success %": round(100 * episodes / attempts, 2),
        "hand in picture %": round(100 * float(seen.mean()), 2),
    }


def _task_numbers(sets: dict[str, Dataset]) -> dict[str, dict[str, Any]]:
    numbers: dict[str, dict[str, Any]] = {}
    extents = {split: dataset.extents() for split, dataset in sets.items()}
    for index, name in enumerate(NAMES):
        own = {split: [e for e in extents[split] if e.family == index] for split in SPLITS}
        if not own["train"]:
            continue
        lengths = [e.end - e.begin for split in SPLITS for e in own[split]]
        kept, tried = (
            sum(dataset.world["families"][index][key] for dataset in sets.values())
            for key in ("episodes", "attempts")
        )
        numbers[name] = {
            "train": len(own["train"]),
            "test": len(own["test"]),
            "frames, median": float(np.median(lengths)),
            "frames, all": sum(lengths),
            "failures": tried - kept,
            "layouts, train": len({e.layout for e in own["train"]}),
            "layouts, test": len({e.layout for e in own["test"]}),
        }
    return numbers


def _layouts(dataset: Dataset) -> set[tuple[int, int]]:
    return {(extent.family, extent.layout) for extent in dataset.extents()}


def _sentences(dataset: Dataset) -> set[str]:
    return {extent.instruction for extent in dataset.extents()}


def _axes(scores: np.ndarray) -> dict[str, float]:
    axes = {axis: round(float(score), 3) for axis, score in zip("xyz", scores, strict=True)}
    return axes | {"mean": round(float(scores.mean()), 3)}


def _table(header: list[str], rows: list[list[Any]]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows)]


if __name__ == "__main__":
    sys.exit(main())
