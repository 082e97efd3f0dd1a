"""What a generated data set says about itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tectum_train.data import DataError
from tectum_train.world import read_world


def test_sentences_are_told_apart_by_whether_they_were_held_out(tiny_data: Path) -> None:
    world = read_world(tiny_data / "test")

    assert world.sentences("red-left", held_out=True) == ["red block goes left"]
    assert world.sentences("red-left", held_out=False) == [
        "push the red block left",
        "shove red to the left",
    ]
    assert world.sentences("nothing", held_out=True) == []


def test_partners_are_known_both_ways(tiny_data: Path) -> None:
    assert read_world(tiny_data / "test").partners == {0: 1, 1: 0, 2: 3, 3: 2}


def test_other_keys_are_the_generators_own_business(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "world.json").write_text(
        '{"families": [{"index": 3, "name": "rest", "partner": null, "colour": "red"}],'
        ' "instructions": [], "weather": "fine"}'
    )

    world = read_world(tmp_path)

    assert world.families[0].index == 3
    assert world.partners == {}


def test_a_folder_without_one_names_no_families(tmp_path: Path) -> None:
    assert read_world(tmp_path).families == ()


def test_one_that_does_not_hold_what_it_should_is_refused(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "world.json").write_text('{"families": [{"name": "rest"}]}')

    with pytest.raises(DataError, match=r"world\.json: families\.0\.index: Field required"):
        read_world(tmp_path)


@pytest.mark.parametrize(
    ("families", "words"),
    [
        ([(0, "open", "close")], "'open' has the partner 'close', which is no family"),
        ([(0, "open", None), (0, "close", None)], "one name or one index"),
        ([(0, "open", None), (1, "open", None)], "one name or one index"),
    ],
)
def test_families_that_contradict_each_other_are_refused_by_the_files_name(
    families: list[tuple[int, str, str | None]], words: str, tmp_path: Path
) -> None:
    (tmp_path / "meta").mkdir()
    tree = [{"index": index, "name": name, "partner": partner} for index, name, partner in families]
    text = json.dumps({"families": tree, "instructions": []})
    (tmp_path / "meta" / "world.json").write_text(text)

    with pytest.raises(DataError, match=rf"world\.json: .*{words}"):
        read_world(tmp_path)
