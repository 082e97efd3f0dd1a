"""What a recipe says of augmentation must be read by somebody, and suit model and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.bundles import vision
from tests.training.tiny import job, parts

from tectum_core.architecture import StemConfig
from tectum_train.objectives import Reads
from tectum_train.objectives.sim_clr import SimClrConfig
from tectum_train.recipe import Recipe, RecipeError, read_recipe

VIEWING: dict[str, Any] = {"objectives": [{"kind": "sim_clr"}]}
WORDS = {"actions": [0], "states": [0], "words": {"left": "right"}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A recipe that compares views, as a file."""
    path = tmp_path / "tiny.yaml"
    tree = job(tmp_path, tmp_path, **VIEWING).model_dump(mode="json")
    path.write_text(yaml.safe_dump(tree), "utf-8")
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SimCLR be an objective that reads small views."""
    monkeypatch.setattr(SimClrConfig, "reads", property(lambda _: Reads.VIEWS | Reads.CROPS))


def refused(file: Path, *changes: str) -> str:
    with pytest.raises(RecipeError) as told:
        read_recipe(str(file), changes)
    return str(told.value)


# ---------------------------------------------------------------- small views


def test_small_views_that_nobody_reads_are_refused(file: Path) -> None:
    assert refused(file, "augmentation.views.crops=4").endswith(
        "augmentation.views.crops: found 4; allowed: 0, as no objective reads small views (sim_clr)"
    )


@pytest.mark.usefixtures("small")
def test_small_views_that_somebody_reads_are_not(file: Path) -> None:
    recipe = read_recipe(
        str(file), ["augmentation.views.crops=4", "augmentation.views.crop_size=16"]
    )

    assert recipe.augmentation.views.crops == 4


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [4, 20, 33, 40])
def test_a_small_view_is_whole_patches_and_no_larger_than_a_whole_one(
    size: int, file: Path
) -> None:
    told = refused(file, "augmentation.views.crops=1", f"augmentation.views.crop_size={size}")

    assert told.endswith(
        f"augmentation.views.crop_size: found {size}; allowed: multiples of "
        "model.vision.patch_size (8) up to model.vision.image_size (32)"
    )


@pytest.mark.usefixtures("small")
def test_whole_patches_are_what_a_stem_can_halve(tmp_path: Path) -> None:
    stem = vision(stem=StemConfig(widths=(8, 8, 8)), patch_size=8)
    views = {"crops": 1, "crop_size": 12}

    with pytest.raises(ValueError, match=r"crop_size: found 12; allowed: multiples of .* \(8\)"):
        job(tmp_path, tmp_path, model=parts(vision=stem), augmentation={"views": views}, **VIEWING)


# ---------------------------------------------------------------- the camera's numbers


def seeing(folder: Path, dimensions: int, **changes: Any) -> Recipe:
    actions = {"dimensions": 4, "state_dimensions": dimensions, "max_steps": 8}
    return job(
        folder, folder, data__intrinsics="camera.intrinsics", model=parts(actions=actions),
        **changes,
    )  # fmt: skip


def test_a_state_holds_the_cameras_four_numbers_behind_the_robots(tmp_path: Path) -> None:
    assert seeing(tmp_path, 8).data.intrinsics
    assert seeing(tmp_path, 4, data__state=None).data.intrinsics


@pytest.mark.parametrize(
    ("dimensions", "changes"), [(0, {}), (3, {}), (4, {}), (8, {"data__state": None})]
)
def test_a_state_too_small_or_too_large_for_them_is_refused(
    dimensions: int, changes: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"state_dimensions must count both, and is {dimensions}"):
        seeing(tmp_path, dimensions, **changes)


def test_a_model_without_actions_has_no_state_for_them(tmp_path: Path) -> None:
    alone = parts(actions=None, latent_action=None)

    with pytest.raises(ValueError, match=r"data\.intrinsics are four numbers of the state"):
        job(tmp_path, tmp_path, data__intrinsics="camera.intrinsics", model=alone, **VIEWING)


# ---------------------------------------------------------------- mirrors


@pytest.mark.parametrize("lacking", ["actions", "states", "words"])
def test_a_mirror_must_say_what_it_does_to_all_that_is_read(lacking: str, tmp_path: Path) -> None:
    told = {name: value for name, value in WORDS.items() if name != lacking}

    with pytest.raises(
        ValueError, match=rf"augmentation\.flip\.{lacking}: found null; allowed: wh"
    ):
        job(tmp_path, tmp_path, augmentation={"flip": told})


def test_a_mirror_must_say_what_it_does_to_labels(tmp_path: Path) -> None:
    supervised = [{"kind": "supervised", "classes": {"task_family": 4}}]

    with pytest.raises(
        ValueError, match=r"augmentation\.flip\.labels: found null; allowed: wh.* {} if"
    ):
        job(tmp_path, tmp_path, objectives=supervised, augmentation={"flip": WORDS})

    told = WORDS | {"labels": {"task_family": {0: 1, 2: 3}}}
    kept = job(tmp_path, tmp_path, objectives=supervised, augmentation={"flip": told})
    assert Recipe.model_validate_json(kept.model_dump_json()) == kept


@pytest.mark.parametrize("pairs", ["{0: 1, 1: 2}", "{0: 0}", "{0: 2, 1: 2}"])
def test_a_class_that_is_exchanged_twice_is_told_with_its_label(pairs: str, file: Path) -> None:
    told = refused(file, f"augmentation.flip={{labels: {{side: {pairs}}}}}")

    assert "augmentation.flip.labels: side: {" in told
    assert "exchanges a class twice, or with itself" in told


def test_a_mirror_that_says_it_all_is_kept(tmp_path: Path) -> None:
    recipe = job(tmp_path, tmp_path, augmentation={"flip": WORDS})

    assert recipe.augmentation.flip is not None
    assert recipe.augmentation.flip.words == {"left": "right"}
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_words_that_lose_their_opposite_are_told_with_their_key(file: Path) -> None:
    told = refused(file, "augmentation.flip={words: {left: right, port: right}}")

    assert "augmentation.flip.words: 'right' is exchanged with 'left' and with 'port'" in told


# ---------------------------------------------------------------- what nobody would see


@pytest.mark.parametrize(
    "objectives", [[{"kind": "action_prediction"}], [{"kind": "latent_action"}]]
)
def test_noise_on_actions_that_nobody_is_shown_is_refused(objectives: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"action_noise: found 0.1; allowed: 0, as no objective"):
        job(tmp_path, tmp_path, augmentation__action_noise=0.1, objectives=objectives)


@pytest.mark.parametrize("kind", ["masked_action", "world_model"])
def test_noise_on_actions_that_are_shown_is_kept(kind: str, tmp_path: Path) -> None:
    shown = [{"kind": kind}, {"kind": "image_text"}]

    recipe = job(tmp_path, tmp_path, augmentation__action_noise=0.1, objectives=shown)

    assert recipe.augmentation.action_noise == 0.1


def test_pairs_in_other_colours_want_colours_that_change(tmp_path: Path) -> None:
    apart = {"objectives": [{"kind": "latent_action", "appearance": "apart"}]}

    with pytest.raises(ValueError, match="appearance 'apart' needs colours"):
        job(tmp_path, tmp_path, augmentation={"colour": 0, "hue": 0}, **apart)
    assert job(tmp_path, tmp_path, augmentation={"colour": 0, "hue": 0.1}, **apart)
