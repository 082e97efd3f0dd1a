"""What differs between two trees of settings, by the names that `--set` takes."""

from __future__ import annotations

from typing import Any

import pytest

from tectum_train.differences import differences

ONE, OTHER = {"kind": "beit", "weight": 1}, {"kind": "dino", "weight": 1}
HEAVY = {"kind": "dino", "weight": 2}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ([ONE, OTHER], [ONE, HEAVY], ["objectives.dino.weight: 1 → 2"]),
        ([OTHER, OTHER], [OTHER, HEAVY], ["objectives.1.weight: 1 → 2"]),
        ([{"weight": 1}], [{"weight": 2}], ["objectives.0.weight: 1 → 2"]),
        ([ONE], [HEAVY], ['objectives.0.kind: "beit" → "dino"', "objectives.0.weight: 1 → 2"]),
        ([1, 2], [1, 3], ["objectives.1: 2 → 3"]),
        ([], [], []),
    ],
    ids=["kinds", "a kind twice", "no kinds", "other kinds", "numbers", "nothing"],
)
def test_entries_are_named_by_kinds_that_are_theirs_alone(
    old: list[Any], new: list[Any], told: list[str]
) -> None:
    assert list(differences({"objectives": old}, {"objectives": new})) == told
