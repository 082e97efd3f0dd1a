"""A training run as data: its sections, the whole, and how it is read.

The recipes that come with the package are the YAML files of `tectum_train.recipes`.
"""

from tectum_train.paths import expanded
from tectum_train.recipe.places import PlacesConfig
from tectum_train.recipe.reading import read_recipe, resumed_recipe
from tectum_train.recipe.sections import ClipConfig, DataConfig, OptimiserConfig, ScheduleConfig
from tectum_train.recipe.whole import Recipe
from tectum_train.refusals import RecipeError

__all__ = [
    "ClipConfig",
    "DataConfig",
    "OptimiserConfig",
    "PlacesConfig",
    "Recipe",
    "RecipeError",
    "ScheduleConfig",
    "expanded",
    "read_recipe",
    "resumed_recipe",
]
