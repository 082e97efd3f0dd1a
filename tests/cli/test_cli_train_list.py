"""`tectum train --list`: what recipes there are."""

from __future__ import annotations

import pytest
from tests.cli.running import invoke

from tectum_train import recipes


@pytest.mark.parametrize("arguments", [["--list"], []])
def test_recipes_are_listed_with_what_they_say(arguments: list[str]) -> None:
    result = invoke("train", *arguments)

    assert result.exit_code == 0
    assert all(name in result.stdout for name in recipes.named())
    assert "The embedded model" in result.stdout


def test_what_a_recipe_says_is_told_at_the_terminals_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "Broken where\nthe file was [narrow].\n\n  a line\n  of its own"
    monkeypatch.setattr(recipes, "descriptions", lambda: {"one": said})

    lines = [line.rstrip() for line in invoke("train", "--list").stdout.splitlines()]

    assert lines == [
        "one", "  Broken where the file was [narrow].", "", "    a line", "    of its own", "",
    ]  # fmt: skip
