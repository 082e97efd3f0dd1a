"""What a run begins with in place of random numbers: the trunk of a bundle trained before.

A world model is learnt on a trunk that stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from tectum_core import embedded
from tectum_core.bundle import Bundle, Part, Repository, read_bundle
from tectum_core.model import PerceptionModel
from tectum_train.recipe import Recipe, RecipeError, expanded

__all__ = ["begin_with_trunk", "trunk_folder", "trunk_of"]

_TRUNK: tuple[Part, ...] = ("vision", "vision.pool")


def begin_with_trunk(model: PerceptionModel, recipe: Recipe) -> tuple[Part, ...]:
    """Give the model the image trunk of the bundle that `recipe.trunk` names, if it names one.

    Returns:
        The parts that came trained.

    Raises:
        RecipeError: it is not there, or its trunk or preprocessing is another than the recipe's.
        BundleError: it is no sound bundle.
    """
    bundle = trunk_of(recipe)
    if bundle is None:
        return ()
    model.vision.load_state_dict(bundle.model.vision.state_dict())
    return tuple(part for part in _TRUNK if bundle.config.training.learnt(part))


def trunk_of(recipe: Recipe) -> Bundle | None:
    """The bundle whose trunk the recipe begins with, if it names one.

    Raises:
        RecipeError: it is not there, or its trunk or preprocessing is another than the recipe's.
        BundleError: it is no sound bundle.
    """
    if recipe.trunk is None:
        return None
    bundle = _bundle(recipe.trunk)
    for what, own, other in (
        ("model.vision", recipe.model.vision, bundle.config.model.vision),
        ("images", recipe.images, bundle.config.images),
    ):
        if own != other:
            names = [name for name in type(own).model_fields if _at(own, name) != _at(other, name)]
            raise RecipeError(
                f"trunk: {what} of {recipe.trunk} differs from the recipe's in {', '.join(names)}"
            )
    return bundle


def _at(config: object, name: str) -> object:
    return cast("object", getattr(config, name))


def trunk_folder(trunk: str) -> Path:
    """Where the bundle lies that a recipe's `trunk` names; it need not be there."""
    return _located(trunk)[0]


def _bundle(trunk: str) -> Bundle:
    folder, version = _located(trunk)
    if not folder.exists():
        raise RecipeError(
            f"trunk: {trunk} is not there; a finished run leaves its bundle in its folder"
        )
    return read_bundle(folder, embedded.NAME if version else trunk, version)


def _located(trunk: str) -> tuple[Path, str | None]:
    """Its folder, and the version that it must be of, if it has one."""
    if trunk != "embedded":
        return expanded(trunk), None
    folder, version = Repository(embedded.repository()).locate(embedded.NAME, None)
    return Path(folder), version
