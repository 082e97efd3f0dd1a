"""What recipes say of themselves: command, time and numbers, none of which nobody measured."""

from __future__ import annotations

import json
import math
import re

import pytest
from tests.checkout import ROOT

from tectum_train import recipes
from tectum_train.recipe import read_recipe

TOLD = re.compile(r"never trained on, seed 0: (.*) More of it: `make gates ROW=([\w-]+)`")
NUMBER = re.compile(r"(.+) (\d+(?:\.\d+)?)$")


@pytest.mark.parametrize("name", recipes.named())
def test_a_recipe_says_its_command_what_it_takes_and_only_what_was_measured(name: str) -> None:
    said = recipes.descriptions()[name]
    results = (ROOT / "benchmarks/results").glob("*.md")
    measured = "\n".join(path.read_text("utf-8") for path in results)

    expected = re.findall(r"\d\.\d{3} ± \d\.\d{3}", said)

    assert re.search(rf"\n  tectum train {name}(\n| --set )", said)
    assert re.search(r"\b\d+ minutes on 2 cores\b|\ba GPU\b|not run here", said)
    elsewhere = "make gates" in said or re.search(r"\ba GPU\b|not run here", said)
    assert len(expected) >= 2 or elsewhere
    assert [number for number in expected if number not in measured] == []
    if re.search(rf"tectum train {name}(?![\w-])", measured):
        assert len(expected) >= 2


MINUTES = re.findall(
    r"\| `([\w-]+)` \| [^|]+\| [^|]+\| (\d+\.\d) \|",
    (ROOT / "benchmarks/results/minutes.md").read_text("utf-8"),
)


@pytest.mark.parametrize(("name", "minutes"), MINUTES)
def test_a_small_recipe_says_how_many_minutes_were_measured(name: str, minutes: str) -> None:
    said = recipes.descriptions()[name]

    told = re.search(r"(\d+) minutes on 2 cores", said)

    assert told is not None
    assert int(told[1]) == math.ceil(float(minutes))


@pytest.mark.parametrize(
    "name", [name for name, said in recipes.descriptions().items() if "seed 0" in said]
)
def test_what_a_recipe_expects_of_seed_0_is_what_its_gates_run_has_found(name: str) -> None:
    told = TOLD.search(" ".join(recipes.descriptions()[name].split()))
    assert told is not None
    result = ROOT / "benchmarks/results/gates" / f"{told[2]}-seed0.json"
    found = json.loads(result.read_text("utf-8"))
    measures = {one["name"]: one for one in found["measures"]}

    lines = re.findall(r"(.+?)(?: \(([^()]*)\))?(?:; |\.$)", told[1])

    schedule = read_recipe(name).schedule
    assert found["recipe"] == name
    assert (found["steps"], found["batch_size"]) == (schedule.steps, schedule.batch_size)
    assert len(lines) >= 1
    for line, controls in lines:
        measured = measures[NUMBER.match(line)[1]]  # type: ignore[index]
        beside = {**measured["controls"], measured["name"]: measured["value"]}
        for one in filter(None, (line, *controls.split("; "))):
            what, value = NUMBER.match(one).groups()  # type: ignore[union-attr]
            digit = 10 ** -len(value.partition(".")[2])
            assert float(value) == pytest.approx(beside[what], rel=0, abs=0.51 * digit), what


@pytest.mark.parametrize("name", recipes.named())
def test_a_recipe_for_gpus_is_of_nobodys_data_and_says_what_its_paper_reports(name: str) -> None:
    recipe = read_recipe(name)
    small = "minutes on 2 cores" in recipe.description

    folders = (recipe.data.train, recipe.data.test)

    assert small == (name.endswith("-small") or name == "tectum-tiny")
    if small:
        return
    assert folders == ("data/robots/train", "data/robots/test")
    for words in ("not run here", "LeRobot v3.0", "--set data.train=FOLDER", "arXiv:"):
        assert words in recipe.description, words
