"""Read a recipe from YAML, and change a leaf of it.

An unknown key is an error that names it. `--set path.to.key=value` changes one leaf.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tectum_train import recipes
from tectum_train.differences import differing
from tectum_train.recipe.whole import Recipe
from tectum_train.refusals import Change, Place, RecipeError, explained

__all__ = ["read_recipe", "resumed_recipe"]


class _Once(yaml.SafeLoader):
    """Refuses a key that is said twice, of which YAML's own loader keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, as long as all of its keys differ."""
        seen = set[str]()
        for key, _ in node.value:
            said = repr(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if said in seen:
                raise yaml.constructor.ConstructorError(
                    "in a mapping", node.start_mark, f"{said} is there twice", key.start_mark
                )
            seen |= {said} - {""}
        return super().construct_mapping(node, deep)


def read_recipe(
    name_or_path: str, changes: Sequence[str] = (), output: str | None = None
) -> Recipe:
    """Read a recipe.

    Args:
        name_or_path: one of `recipes.named()`, or a YAML file.
        changes: `path.to.key=value`, the value in YAML.
        output: folder for runs, in place of the recipe's.

    Raises:
        RecipeError: no such recipe, no YAML, an unknown key or a value that is not allowed.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        known = recipes.named()
        if (now := recipes.RENAMED.get(name_or_path)) is not None:
            raise RecipeError(
                f"no recipe named {name_or_path!r}: it is {now!r} now; a run that it began goes on "
                f"with {now} --set name={name_or_path}"
            )
        if name_or_path not in known:
            near = get_close_matches(name_or_path, known, n=3)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            raise RecipeError(
                f"no recipe named {name_or_path!r}; {meant}`tectum train --list` names all"
            )
        path = known[name_or_path]
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Once)  # noqa: S506  (a safe loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds no mapping")
    return _changed(tree, changes, path.name, output)


def resumed_recipe(
    name_or_path: str,
    changes: Sequence[str] = (),
    output: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Recipe:
    """Read a recipe as the run that it names was begun with; as `read_recipe` if there is none.

    A run is there once it has a checkpoint.

    Args:
        name_or_path: of the recipe.
        changes: they say which run (name, seed), and go on top of its own settings.
        output: folder for runs, in place of the recipe's.
        tell: called with what of the recipe is not used, or that a run has no checkpoint yet.

    Raises:
        RecipeError: as `read_recipe`, and for a run's recipe.json that cannot be read.
    """
    asked = read_recipe(name_or_path, changes, output)
    path = asked.folder / "recipe.json"
    if not path.is_file():
        return asked
    if not asked.checkpoint.exists():
        tell(f"{asked.folder} has no checkpoint yet: begins anew, with the settings given now")
        return asked
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds no mapping")
    # The folder was found there, wherever it was when the run began.
    begun = _changed(tree, changes, str(path), asked.output)
    others = [
        f"{key} is {json.dumps(own, ensure_ascii=False)} here, "
        f"{json.dumps(other, ensure_ascii=False)} in {name_or_path}"
        for key, own, other in differing(_settings(begun), _settings(asked))
    ]
    if others:
        tell(f"goes on with its own settings; the recipe now differs: {'; '.join(others)}")
    return begun


def _settings(recipe: Recipe) -> dict[str, Any]:
    """All but words."""
    return recipe.model_dump(mode="json", exclude={"description", "derived_from"})


def _changed(tree: dict[str, Any], changes: Sequence[str], name: str, output: str | None) -> Recipe:
    called = tree.get("name")
    made = [Change(change, _apply(tree, change)) for change in changes]
    if output is not None:
        tree["output"] = output
    if isinstance(called, str) and tree.get("name") != called and not tree.get("derived_from"):
        tree["derived_from"] = called
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(explained(error, Recipe, tree, name, made)) from error


def _apply(tree: dict[str, Any], change: str) -> Place:
    """Make a change; gives where it went."""
    path, equals, text = change.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set wants path.to.key=value, found {change!r}")
    try:
        value = yaml.load(text, _Once)  # noqa: S506
    except yaml.YAMLError as error:
        why = f": {error.problem}" if isinstance(error, yaml.constructor.ConstructorError) else ""
        raise RecipeError(f"--set {change}: the value is no YAML{why}") from error
    *parents, leaf = path.split(".")
    here: Any = tree
    place: Place = ()
    for key in parents:
        place = (*place, _step(here, key, change))
        here = _child(here, place[-1], change)
    place = (*place, _step(here, leaf, change))
    here[place[-1]] = value
    return place


def _step(here: Any, key: str, change: str) -> str | int:
    """The key itself, or the number of a list's entry."""
    return _index(here, key, change) if isinstance(here, list) else key


def _child(here: Any, step: Any, change: str) -> Any:
    """The mapping or list at a step; a section that is absent or null is made."""
    child = here[step] if isinstance(here, list) else here.get(step)
    if child is None:
        child = here[step] = {}
    if not isinstance(child, dict | list):
        raise RecipeError(f"--set {change}: there is nothing below {str(step)!r}")
    return child


def _index(place: list[Any], key: str, change: str) -> int:
    """An entry of a list by number, or by its `kind`."""
    for number, entry in enumerate(place):
        if isinstance(entry, dict) and entry.get("kind") == key:
            return number
    if key.isdigit() and int(key) < len(place):
        return int(key)
    kinds = [str(entry["kind"]) for entry in place if isinstance(entry, dict) and "kind" in entry]
    raise RecipeError(
        f"--set {change}: no entry {key!r}; allowed: {', '.join(kinds) or 'none is named'}, or a "
        f"number below {len(place)}"
    )
