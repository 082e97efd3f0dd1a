"""From a run to a bundle that proves itself, with a card that says where it comes from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.training.tiny import CAMERA, job, latent_action, parts, vision_alone, write_set

from tectum_core import golden
from tectum_core.architecture import ConvolutionDynamicsConfig, FsqBottleneck, VqBottleneck
from tectum_core.bundle import Bundle, Repository, read_bundle
from tectum_core.bundle.config import PARTS
from tectum_core.golden import GoldenMismatch, check_golden
from tectum_core.predictor import CapabilityMissing, Predictor
from tectum_train import export as exporting
from tectum_train.engine.building import Run
from tectum_train.engine.run import train
from tectum_train.evaluation.measuring.context import Columns
from tectum_train.export import as_bundle, export
from tectum_train.job import evaluate_bundles, run_job
from tectum_train.tasks import TasksConfig

pytestmark = pytest.mark.usefixtures("few_draws")
TABLE = "| measure | value |\n| --- | --- |\n| R@1 | 0.5 |\n"
TEXTS = ["push the red block left", "push the blue block right", "shove red", "one more"]


def quiet() -> Console:
    return Console(quiet=True)


def trained(data: Path, folder: Path, **changes: Any) -> Run:
    return train(job(data, folder, **{"schedule__steps": 2, **changes}), console=quiet())


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tiny_data, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    version = export(run, TEXTS, {"R@1": 0.5}, TABLE, folder)
    return read_bundle(folder, "tiny", version)


# ---------------------------------------------------------------- the bundle


def test_the_bundle_reproduces_its_golden_outputs(bundle: Bundle) -> None:
    report = check_golden(Predictor(bundle))

    assert report.outputs >= 9
    assert report.max_abs_difference == 0
    assert bundle.golden_texts == tuple(TEXTS[:3])


def test_its_weights_are_the_runs(run: Run, bundle: Bundle) -> None:
    ours, theirs = run.model.state_dict(), bundle.model.state_dict()

    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert run.tokenizer is not None
    assert bundle.tokenizer is not None
    assert bundle.tokenizer.json == run.tokenizer.json


def test_the_summary_says_how_it_was_trained(run: Run, bundle: Bundle) -> None:
    summary = bundle.config.training

    assert (summary.recipe, summary.steps, summary.seed) == ("tiny", 2, 0)
    assert summary.data == run.recipe.data.train
    assert summary.commit == run.config.training.commit
    assert summary.metrics == {"R@1": 0.5}
    assert summary.words_hidden == 0.15
    assert bundle.config.actions == run.scaling
    assert bundle.config.images == run.recipe.images


def test_the_card_says_only_what_is_true_of_this_bundle(run: Run, tmp_path: Path) -> None:
    renamed = run.recipe.model_copy(update={"name": "first-steps", "derived_from": "tiny"})

    export(replace(run, recipe=renamed), TEXTS, {}, TABLE, tmp_path / "bundle")

    card = read_bundle(tmp_path / "bundle", "first-steps").card
    assert card.startswith("# first-steps\n\n| | |\n| --- | --- |\n| recipe | tiny |\n")
    assert run.recipe.description not in card
    assert "| steps × batch | 2 × 8 |" in card
    assert f"| seed, commit | 0, {run.config.training.commit or 'unknown'} |" in card


def test_the_card_has_recipe_table_and_spaces(bundle: Bundle) -> None:
    card = bundle.card

    assert card.startswith("# tiny\n\n| | |\n| --- | --- |\n| recipe | tiny |\n")
    assert TABLE.strip() in card
    assert "image_text × 1, masked_image × 1, masked_language × 0.5" in card
    assert f"| parameters | {sum(p.numel() for p in bundle.model.parameters()):,} |" in card
    assert {space.name for space in bundle.spaces} == {
        "pooled", "tokens", "joint", "latent_action", "world_latent",
    }  # fmt: skip
    for space in bundle.spaces:
        assert f"- `{space.name}`: `{space.space_id}`, {space.width} numbers" in card


def test_the_card_says_how_objectives_learnt_together(run: Run, tmp_path: Path) -> None:
    told: dict[str, object] = {
        "weighting": {"kind": "dwa", "window": 4}, "normalise": "chance",
        "alternate": {"pattern": ["image_text", "masked_image"]},
        "sharing": {"kind": "distance", "strength": 0.5, "served": "image_text"},
    }  # fmt: skip
    tasks = TasksConfig.model_validate(told)
    many = replace(run, recipe=run.recipe.model_copy(update={"tasks": tasks}))
    export(many, TEXTS, {}, TABLE, tmp_path / "many")

    card = (tmp_path / "many" / "README.md").read_text()

    assert (
        "| learnt together | weights dwa (temperature 2.0, window 4); losses in units of chance; "
        "by turns image_text → masked_image; "
        "a trunk each, distance (strength 0.5, served image_text) |"
    ) in card


def test_the_card_says_how_much_data_and_what_made_them(
    run: Run, tiny_data: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(tiny_data / "train", tmp_path / "train"))
    world = data / "meta/world.json"
    told = {**json.loads(world.read_text()), "seed": 7, "command": "python -m drawn |\n --seed 7"}
    here = run.recipe.data.model_copy(update={"train": str(data)})
    moved = replace(run, recipe=run.recipe.model_copy(update={"data": here}))
    amount = f"| training data | {data}: 12 episodes, 240 frames, "

    for number, (content, ending) in enumerate(
        [
            (json.dumps(told), "; generator tests; its seed 7; by python -m drawn --seed 7 |"),
            ("{}", " |"),
            ("[]", " |"),
            ("{", " |"),
            ('{"generator_version": {"a": 1}, "seed": null}', " |"),
        ]
    ):
        world.write_text(content)
        export(moved, TEXTS, {}, TABLE, tmp_path / str(number))
        tasks = "4 tasks (8 sentences)" if number == 0 else "8 instructions"
        assert amount + tasks + ending in (tmp_path / str(number) / "README.md").read_text("utf-8")
    world.unlink()
    export(moved, TEXTS, {}, TABLE, tmp_path / "none")
    assert f"{amount}8 instructions |" in (tmp_path / "none" / "README.md").read_text("utf-8")


def test_a_very_long_instruction_is_cut_in_the_golden_texts(run: Run, tmp_path: Path) -> None:
    version = export(run, ["push " * 2000, *TEXTS], {}, TABLE, tmp_path / "bundle")

    texts = read_bundle(tmp_path / "bundle", "tiny", version).golden_texts
    assert [len(text) for text in texts] == [4096, len(TEXTS[0]), len(TEXTS[1])]


def test_equal_runs_make_equal_bundles(
    run: Run, bundle: Bundle, tiny_data: Path, tmp_path: Path
) -> None:
    twin = trained(tiny_data, tmp_path)

    version = export(twin, TEXTS, {"R@1": 0.5}, TABLE, tmp_path / "bundle")

    assert version == bundle.version


def test_a_bundle_that_does_not_reproduce_itself_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*given: Any) -> dict[str, torch.Tensor]:
        made = {**whole(*given)}
        made["output/pooled"] = made["output/pooled"] + 1
        return made

    whole = golden.make_golden
    monkeypatch.setattr(exporting, "make_golden", elsewhere)

    with pytest.raises(GoldenMismatch, match="pooled"):
        export(run, TEXTS, {}, TABLE, tmp_path / "bundle")


def test_one_instruction_is_enough(run: Run, tmp_path: Path) -> None:
    version = export(run, TEXTS[:1], {}, TABLE, tmp_path / "bundle")

    assert set(read_bundle(tmp_path / "bundle", "tiny", version).golden_texts) == {TEXTS[0]}


@pytest.mark.parametrize(
    "bottleneck", [VqBottleneck(codes=2, codebook_size=4), FsqBottleneck()], ids=["vq", "fsq"]
)
def test_codes_are_exported_too(bottleneck: Any, tiny_data: Path, tmp_path: Path) -> None:
    model = parts(latent_action=latent_action(bottleneck=bottleneck))

    version = export(trained(tiny_data, tmp_path, model=model), TEXTS, {}, TABLE, tmp_path / "b")

    assert check_golden(Predictor(read_bundle(tmp_path / "b", "tiny", version))).outputs >= 9


def test_vision_alone_needs_no_words(tiny_data: Path, tmp_path: Path) -> None:
    objectives = [{"kind": "masked_image"}]
    alone = trained(tiny_data, tmp_path, model=vision_alone(), objectives=objectives)

    export(alone, TEXTS, {}, TABLE, tmp_path / "bundle")

    made = read_bundle(tmp_path / "bundle", "tiny")
    assert made.golden_texts == ()
    assert made.tokenizer is None


def test_a_draft_has_no_golden_outputs_yet(run: Run) -> None:
    draft = as_bundle(run, TEXTS, {})

    assert draft.golden == {}
    assert draft.model is run.model


def test_an_unknown_commit_is_called_so(run: Run, tmp_path: Path) -> None:
    nobody = run.config.training.model_copy(update={"commit": ""})
    config = run.config.model_copy(update={"training": nobody})

    export(replace(run, config=config), TEXTS, {}, TABLE, tmp_path / "bundle")

    assert "| seed, commit | 0, unknown |" in (tmp_path / "bundle" / "README.md").read_text()


# ---------------------------------------------------------------- what was not trained


WORLD = {"world_model", "world_model.decoder"}
LATENT = {"latent_action", "latent_action.action_decoder", *WORLD}
ACTS = {"fusion.action_head", "fusion.actions.embed", "fusion.actions.embed_state"}
FUSION = {"fusion.token_head", "fusion.from_image", "fusion.from_text", *ACTS}
PAINTS = {"pixel_decoder", "pixel_decoder.from_text"}
SHOWN = {"image_share": 1, "text_share": 1, "state_share": 1}


@pytest.mark.parametrize(
    ("objectives", "untrained"),
    [
        ([{"kind": "latent_action"}], {*PARTS} - {"latent_action"}),
        (
            [{"kind": "world_model"}, {"kind": "masked_image", "text_share": 0}],
            {"joint", "pixel_decoder.from_text", *FUSION, *LATENT} - {"world_model"},
        ),
        (
            [{"kind": "world_model", "encoder": "trained", "decode_weight": 1}],
            {*PARTS} - {"vision", *WORLD},
        ),
        (
            [{"kind": "masked_image", "text_share": 1}, {"kind": "masked_action", **SHOWN}],
            {"joint", "fusion.token_head", *LATENT},
        ),
        (
            [{"kind": "image_text"}, {"kind": "masked_language", "image_share": 1}],
            {*PAINTS, *ACTS, *LATENT},
        ),
        (
            [{"kind": "image_text"}, {"kind": "masked_language", "image_share": 0}],
            {*PAINTS, *ACTS, *LATENT, "fusion.from_image"},
        ),
        (
            [{"kind": "masked_image", "text_share": 0}],
            {"joint", "pixel_decoder.from_text", *FUSION, *LATENT},
        ),
        (
            [
                {"kind": "masked_image", "text_share": 1},
                {"kind": "masked_action", **dict.fromkeys(SHOWN, 0)},
            ],
            {"joint", *FUSION, *LATENT} - {"fusion.action_head", "fusion.actions.embed"},
        ),
        # Nothing of what is hidden is read: its encoder has gradients, and all of them are 0.
        (
            [{"kind": "action_prediction"}],
            {"joint", "fusion.token_head", "fusion.actions.embed", *PAINTS, *LATENT},
        ),
    ],
)
def test_a_run_records_the_parts_that_its_objectives_left_random(
    objectives: list[dict[str, Any]], untrained: set[str], tiny_data: Path, tmp_path: Path
) -> None:
    made = trained(tiny_data, tmp_path, objectives=objectives)
    there = {part for part in PARTS if part in dict(made.model.named_modules())}

    assert set(made.config.training.untrained) == untrained & there

    again = train(made.recipe, resume=True, console=quiet())

    assert again.config.training.untrained == made.config.training.untrained


def test_a_decoder_that_was_never_shown_a_text_is_served_without_one(
    tiny_data: Path, tmp_path: Path
) -> None:
    shown_none = [{"kind": "masked_image", "text_share": 0}]
    made = trained(tiny_data, tmp_path, objectives=shown_none)
    export(made, TEXTS, {}, TABLE, tmp_path / "bundle")

    found = read_bundle(tmp_path / "bundle", "tiny")

    (row,) = [line for line in found.card.splitlines() if "not trained, not served" in line]
    assert "image decoder" not in row
    assert "reading of texts beside pictures" in row
    picture, hidden = np.zeros((32, 32, 3), np.uint8), torch.arange(16)[None] < 8
    assert Predictor(found).fill_images([picture], hidden).filled.size
    with pytest.raises(CapabilityMissing, match="reading of texts beside pictures was not trained"):
        Predictor(found).fill_images([picture], hidden, ["push the red block left"])


def test_a_run_that_learns_everything_leaves_nothing_random(bundle: Bundle) -> None:
    assert bundle.config.training.untrained == ()
    assert "| not trained, not served | nothing |" in bundle.card


def test_latent_actions_alone_become_a_bundle_without_picture_vectors(
    tiny_data: Path, tmp_path: Path
) -> None:
    nothing = dict.fromkeys(("text", "joint", "pixel_decoder", "fusion", "actions"))
    module = latent_action(decoded_steps=0, dynamics=ConvolutionDynamicsConfig(widths=(8, 16)))
    made = trained(
        tiny_data,
        tmp_path,
        model=parts(**nothing, latent_action=module),
        objectives=[{"kind": "latent_action"}],
    )
    folder = tmp_path / "bundle"
    export(made, TEXTS, {}, TABLE, folder)

    (measures,) = evaluate_bundles(
        [folder], tiny_data, CAMERA, Columns(), tmp_path / "frames", False, quiet()
    ).values()

    found = read_bundle(folder, "tiny")
    assert [space.name for space in found.spaces] == ["latent_action"]
    assert "vision trunk" in found.card
    assert "o_t alone, trunk tokens PCA-256" in measures[0].controls


# ---------------------------------------------------------------- whole jobs


def test_a_job_trains_measures_writes_and_publishes(tiny_data: Path, tmp_path: Path) -> None:
    recipe = job(tiny_data, tmp_path, schedule__steps=2)
    repository = tmp_path / "repository"

    left = run_job(recipe, "cpu", False, True, repository, quiet())
    assert left is not None
    folder, version = left

    assert Repository(repository).latest("tiny") == version
    made = read_bundle(folder, "tiny", version)
    assert "frame → task, R@1" in made.config.training.metrics
    assert "| frame → task, R@1 |" in made.card
    assert (folder.parent / "evaluation.json").exists()

    again = run_job(recipe, "cpu", True, False, repository, quiet())

    assert again == (folder, version), "resumed without an evaluation it keeps its numbers"
    assert "| frame → task, R@1 |" in read_bundle(folder, "tiny", version).card
    assert Repository(repository).latest("tiny") == version


def test_a_bundle_is_evaluated_from_its_folder_alone(
    bundle: Bundle, run: Run, tiny_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    export(run, TEXTS, {}, TABLE, folder)

    (measures,) = evaluate_bundles(
        [folder], tiny_data, CAMERA, Columns(), tmp_path / "frames", False, quiet()
    ).values()

    assert measures[0].name == "frame → task, R@1"
    names = {measure.name for measure in measures}
    assert len(names) == len(measures) == 36
    heads = ("masked image", "masked word", "masked actions", "hand in plane", "frozen trunk")
    assert all(any(head in name for name in names) for head in heads)


def test_a_data_set_of_one_task_trains_to_a_bundle(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_set(tmp_path / split, [(0, 0), (0, 0)])

    left = run_job(job(tmp_path, tmp_path, schedule__steps=1), "cpu", False, False, None, quiet())
    assert left is not None
    folder, version = left

    assert read_bundle(folder, "tiny", version).config.training.steps == 1
