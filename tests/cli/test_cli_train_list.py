"""`tectum train --list`: what recipes there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.running import invoke

from tectum_cli.extras import console
from tectum_train import recipes


@pytest.mark.parametrize("arguments", [["--list"], []])
def test_recipes_are_listed_a_line_each(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", 80)

    result = invoke("train", *arguments)

    assert result.exit_code == 0
    *lines, blank, more = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(recipes.named())
    assert all(line.endswith((".", ":")) for line in lines), lines
    assert "The embedded model" in result.stdout
    assert (blank, more) == (
        "", "tectum train --list NAME says all of one: command, time, expected numbers.",
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [["--list", "clip-small"], ["clip-small", "--list"]])
def test_all_that_a_recipe_says_is_a_name_away(arguments: list[str]) -> None:
    said = " ".join(recipes.descriptions()["clip-small"].split())

    result = invoke("train", *arguments)

    assert result.exit_code == 0
    assert " ".join(result.stdout.split()) == said
    assert "  tectum train clip-small" in result.stdout.splitlines()


def test_a_recipe_in_a_file_says_what_it_is_too(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(recipes.named()["clip-small"].read_text("utf-8"), "utf-8")

    assert invoke("train", "--list", path).stdout == invoke("train", "--list", "clip-small").stdout


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    result = invoke("train", "--list", "clip-smal")

    assert result.exit_code == 1
    assert "no recipe named 'clip-smal'; did you mean clip-small or " in result.stderr


def test_what_a_recipe_says_is_told_at_the_terminals_width_and_commands_stay_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = f"  a command that is {'very ' * 20}long"
    said = f"Broken where\nthe file was [narrow]. {'More ' * 20}\n\n{command}\n\nThe\nend."
    monkeypatch.setattr(recipes, "descriptions", lambda: {"one": said})
    monkeypatch.setattr(console, "width", 80)

    lines = [line.rstrip() for line in invoke("train", "--list", "one").stdout.splitlines()]

    assert lines[0].startswith("Broken where the file was [narrow]. More More")
    assert max(len(line) for line in lines if line != command) <= 80
    assert lines[-4:] == ["", command, "", "The end."]
