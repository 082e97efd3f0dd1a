"""Recipes: strict trees of YAML, one leaf of which `--set` changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.training.tiny import job

from tectum_train import recipes
from tectum_train.engine.building import check_parts
from tectum_train.masking import ImportanceMask
from tectum_train.objectives import Reads
from tectum_train.objectives.masked_image import MaskedImageConfig
from tectum_train.objectives.sim_clr import SimClrConfig
from tectum_train.recipe import Recipe, RecipeError, read_recipe


def changed(file: Path, *changes: str) -> Recipe:
    return read_recipe(str(file), changes)


def kinds(recipe: Recipe) -> list[str]:
    return [objective.kind for objective in recipe.objectives]


# ---------------------------------------------------------------- reading


def test_a_file_holds_what_was_written(file: Path, tmp_path: Path) -> None:
    assert read_recipe(str(file)) == job(tmp_path, tmp_path)


@pytest.mark.parametrize("name", recipes.named())
def test_every_recipe_of_the_package_reads_and_says_what_it_is(name: str) -> None:
    recipe = read_recipe(name)

    assert recipe.name == name
    assert recipe.description.strip()
    assert recipe.images.size == recipe.model.vision.image_size


@pytest.mark.parametrize("name", recipes.named())
def test_a_recipe_says_of_its_model_all_that_its_objectives_need(name: str) -> None:
    recipe = read_recipe(name).model_copy(update={"trunk": None})

    if "tokenizer" in {key for one in recipe.objectives for key in type(one).model_fields}:
        with pytest.raises(ValueError, match="image-tokenizer"):  # a run leaves it behind
            check_parts(recipe)
    else:
        check_parts(recipe)


@pytest.mark.parametrize("name", recipes.named())
def test_a_recipe_survives_json(name: str) -> None:
    recipe = read_recipe(name)

    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_mask_is_chosen_by_one_change() -> None:
    changes = ["objectives.masked_image.mask={kind: importance, hint: 0.25, ratios: [0.6, 0.9]}"]

    (masked,) = read_recipe("mae-small", changes).objectives

    assert isinstance(masked, MaskedImageConfig)
    assert masked.mask == ImportanceMask(hint=0.25, ratios=(0.6, 0.9))
    assert masked.reads == Reads.LATER


def test_the_package_has_the_embedded_models_recipe() -> None:
    assert "tectum-tiny" in recipes.named()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("clip-smal", "did you mean clip-small or .*[?] `"),
        ("zzz", "`tectum train --list` names all"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(RecipeError, match=f"no recipe named '{name}'; {near}"):
        read_recipe(name)


def test_the_old_name_of_a_recipe_is_answered_with_the_new_one() -> None:
    for old, new in recipes.RENAMED.items():
        with pytest.raises(
            RecipeError, match=f"named '{old}': it is '{new}' now.*--set name={old}"
        ):
            read_recipe(old)

        assert old not in recipes.named()
        assert read_recipe(new, [f"name={old}"]).folder.name == f"{old}-seed0"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"- a list", "holds no mapping"),
        (b"", "holds no mapping"),
        (b"name: [unclosed", "cannot be read"),
        (b"data:\n  train: a\n  test: b\n  train: c\n", "'train' is there twice"),
        (b"? [1, 2]\n: 3\n? [1, 2]\n: 4\n", "cannot be read"),
        (b"name: \xff\xfe", "cannot be read"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)

    with pytest.raises(RecipeError, match=words):
        read_recipe(str(path))


def test_a_recipe_is_utf_8_whatever_the_machine_speaks(file: Path) -> None:
    text = file.read_text("utf-8").replace("Six steps, for tests.", "Sechs Schläge, 把积木放好.")
    file.write_text(text, "utf-8")
    script = (
        "import sys; from tectum_train.recipe import read_recipe;"
        "print(ascii(read_recipe(sys.argv[1]).description))"
    )

    run = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", script, file],
        env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.stdout.strip() == ascii("Sechs Schläge, 把积木放好."), run.stderr[-500:]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent\.yaml cannot be read"):
        read_recipe(str(tmp_path / "absent.yaml"))


# ---------------------------------------------------------------- what is allowed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "schedule.stepz=5",
            r"unknown key schedule\.stepz; did you mean schedule\.steps\? allowed",
        ),
        ("nonsense=1", r"unknown key nonsense; allowed: name, .*, output$"),
        (
            "model.vision.transformer.widht=3",
            r"unknown key model\.vision\.transformer\.widht; "
            r"did you mean model\.vision\.transformer\.width\? allowed: width, depth",
        ),
        (
            "objectives.image_text.weigth=1",
            r"unknown key .*image_text\.weigth; did you mean objectives\.image_text\.weight\? "
            "allowed: weight, .*kind",
        ),
        (
            "model.latent_action.bottleneck.codes=1",
            r"unknown key model\.latent_action\.bottleneck\.codes; allowed: kind, width",
        ),
        ("schedule.steps=0", "found 0; allowed: greater than 0$"),
        ("schedule.steps=1.5", r"found 1\.5; allowed: a whole number$"),
        ("optimiser.lr=fast", 'found "fast"; allowed: a number$'),
        ("augmentation.colour=1.5", r"found 1\.5; allowed: at most 1$"),
        ("augmentation.zoom=1", "found 1; allowed: less than 1$"),
        ("optimiser.weight_decay=-1", "found -1; allowed: at least 0$"),
        ("name=[a]", r'found \["a"\]; allowed: text$'),
        ("model.text.causal=perhaps", 'found "perhaps"; allowed: true or false$'),
        ("schedule=1", r"found 1; allowed: a mapping such as {steps: …}$"),
        ("tasks={weighting: dwa}", r"allowed: a mapping such as {kind: dwa}$"),
        ("tasks={weighting: fast}", r"allowed: a mapping such as {kind: fixed}$"),
        ("tasks={alternate: [image_text]}", r"allowed: a mapping such as {pattern: …}$"),
        ("objectives=[image_text]", r"allowed: a mapping such as {kind: image_text}"),
        (
            "tasks={weighting: {kind: uncertainty, initial: 20}}",
            r"tasks\.weighting\.initial: found 20; allowed: at most 10$",
        ),
        ("data.pair_steps=[]", r"found \[\]; allowed: at least 1 of them$"),
        ("schedule.batch_size=1000000000", "allowed: at most 1048576$"),
        ("seed=-1", "found -1; allowed: at least 0$"),
        ("seed=9223372036854775808", "allowed: less than 9223372036854775808$"),
        ("data.pair_steps=4", "found 4; allowed: a list$"),
        ("precision=float16", r"found \"float16\"; allowed: 'float32' or 'bfloat16'$"),
        (
            "objectives.image_text.kind=guess",
            r"found \"guess\"; allowed: 'image_text', 'masked_image'",
        ),
        ("objectives.image_text.weight=0", "found 0; allowed: greater than 0$"),
        ("objectives=[]", r"found \[\]; allowed: at least 1 of them$"),
        ("schedule={}", r"schedule\.steps is missing, and has no default$"),
        ("objectives.0={}", r"objectives\.0\.kind is missing, and has no default; all"),
        ("optimiser.betas=[0.9]", r"optimiser\.betas\.1 is missing"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_is_allowed(
    file: Path, change: str, words: str
) -> None:
    with pytest.raises(RecipeError, match=words) as told:
        changed(file, change)

    assert f"--set {change}: " in str(told.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("images.size=48", r"images\.size: found 48; allowed: 32, model\.vision\.image_size"),
        ("augmentation.shift=32", r"shift: found 32; allowed: less than images\.size \(32\)"),
        ("name=../else", r"name: found '\.\./else'; allowed: letters, digits, '\.', '_', '-', at"),
        ("name=.", r"name: found '\.'; allowed: letters"),
        ("model.vision.patch_size=7", r"patch_size \(7\) must divide image_size \(32\)"),
        ("data.action_steps=99", r"action_steps \(99\) must equal model\.actions\.max_steps \(8\)"),
        ("data.action_steps=4", r"action_steps \(4\) must equal model\.actions\.max_steps \(8\)"),
        (
            "model.latent_action.decoded_steps=3",
            r"decoded_steps \(3\) may be at most data\.pair_steps \(2\)",
        ),
        ("data.action=null", r"latent_action\.decoded_steps need data\.action"),
        (
            "objectives.masked_image.mask={kind: importance, source: attention, momentum: 1}",
            r"objectives\.masked_image\.mask\.momentum: found 1; allowed: below 1",
        ),
    ],
)
def test_values_that_contradict_each_other_are_told_with_what_was_set(
    file: Path, change: str, words: str
) -> None:
    with pytest.raises(RecipeError, match=words) as told:
        changed(file, "seed=7", change)

    assert str(told.value).startswith("tiny.yaml with --set ")
    assert f"--set {change}: " in str(told.value)


def test_what_the_file_says_wrongly_is_told_with_the_files_name(file: Path) -> None:
    tree = yaml.safe_load(file.read_text("utf-8"))
    tree["schedule"] |= {"step": 60, "warmup_steps": -1}
    file.write_text(yaml.safe_dump(tree), "utf-8")

    with pytest.raises(RecipeError) as told:
        changed(file, "seed=7", "schedule.batch_size=0")

    assert sorted(str(told.value).splitlines()) == [
        "--set schedule.batch_size=0: found 0; allowed: greater than 0",
        "tiny.yaml: schedule.warmup_steps: found -1; allowed: at least 0",
        "tiny.yaml: unknown key schedule.step; did you mean schedule.steps? allowed: steps, "
        "batch_size, micro_batch, warmup_steps, final_share, checkpoint_every",
    ]


def test_what_was_found_is_told_in_a_line(file: Path) -> None:
    with pytest.raises(RecipeError, match=f'found "{"a" * 58}…; allowed: a number$'):
        changed(file, f"optimiser.lr={'a' * 100}")


def test_every_mistake_is_told_at_once(file: Path) -> None:
    with pytest.raises(RecipeError) as told:
        changed(file, "schedule.steps=-1", "seeed=1")

    assert "schedule.steps" in str(told.value)
    assert "seeed" in str(told.value)


# ---------------------------------------------------------------- --set


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("seed=7", ["seed"], 7),
        ("optimiser.lr=3e-4", ["optimiser", "lr"], 3e-4),  # YAML 1.1 reads this as text
        ("data.state=null", ["data", "state"], None),
        ("data.pair_steps=[2, 3]", ["data", "pair_steps"], (2, 3)),
        ("data.pair_steps.0=3", ["data", "pair_steps"], (3,)),
        ("description=a=b", ["description"], "a=b"),
        ("model.vision.transformer.depth=3", ["model", "vision", "transformer", "depth"], 3),
        ("model.text.causal=false", ["model", "text", "causal"], False),
    ],
)
def test_one_leaf_is_changed_and_no_other(
    file: Path, change: str, path: list[str], value: object
) -> None:
    before = read_recipe(str(file))

    after = changed(file, change)

    found: Any = after
    for key in path:
        found = getattr(found, key)
    assert found == value
    section = path[0]
    untouched = Recipe.model_fields.keys() - {section, "derived_from"}
    assert all(getattr(after, key) == getattr(before, key) for key in untouched)


def test_an_entry_of_a_list_is_found_by_kind_or_by_number(file: Path) -> None:
    by_kind = changed(file, "objectives.masked_image.text_share=0.25")
    by_number = changed(file, "objectives.1.text_share=0.25")

    assert by_kind == by_number
    assert by_kind.objectives[1] == MaskedImageConfig(text_share=0.25)


def test_a_whole_entry_can_be_replaced(file: Path) -> None:
    recipe = changed(file, "objectives.masked_image={kind: sim_clr, weight: 2}")

    assert recipe.objectives[1] == SimClrConfig(weight=2)
    assert kinds(recipe)[0] == "image_text"


def test_a_section_that_the_file_lacks_is_made(file: Path) -> None:
    tree = yaml.safe_load(file.read_text())
    del tree["optimiser"]
    file.write_text(yaml.safe_dump(tree))

    assert changed(file, "optimiser.weight_decay=0").optimiser.weight_decay == 0


def test_a_section_that_is_null_is_made_too(file: Path) -> None:
    video = "model.video_decoder.transformer"

    with pytest.raises(RecipeError, match=r"model\.video_decoder\.transformer\.depth is miss"):
        changed(file, "model.video_decoder=null", f"{video}.width=8")


def test_later_changes_win(file: Path) -> None:
    assert changed(file, "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("seed", "wants path.to.key=value, found 'seed'"),
        ("=3", "wants path.to.key=value, found '=3'"),
        ("", "wants path.to.key=value, found ''"),
        ("objectives.guess.weight=1", "no entry 'guess'; allowed: image_text, masked_image"),
        ("objectives.99.weight=1", "no entry '99'"),
        ("objectives.-1.weight=1", "no entry '-1'"),
        ("objectives.guess=1", "no entry 'guess'"),
        ("name.first=1", "name.first=1: there is nothing below"),
        ("name.first.second=1", "there is nothing below"),
        ("seed=[1", "seed=.1: the value is no YAML"),
        ("schedule={steps: 3, steps: 4}", "the value is no YAML: 'steps' is there twice"),
    ],
)
def test_a_malformed_change_is_quoted_back(file: Path, change: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        changed(file, change)
