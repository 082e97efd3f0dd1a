"""A setting that nothing reads is refused by name, unless it is as usual."""

from __future__ import annotations

from typing import Any

import pytest
from tests.training.refused import recipe, why
from tests.training.tiny import parts, video, vision_alone

from tectum_train.recipe import Recipe


@pytest.mark.parametrize(
    ("one", "name", "value"),
    [
        ({"kind": "world_model"}, "momentum", 0.5),
        ({"kind": "latent_action"}, "momentum", 0.5),
        ({"kind": "masked_image"}, "text_share", 0.3),
        ({"kind": "masked_action"}, "state_share", 0.3),
        ({"kind": "action_prediction"}, "state_share", 0.3),
        ({"kind": "image_text"}, "exchange", "gather"),
        ({"kind": "dino", "patch_weight": 0}, "patch_head", "own"),
        ({"kind": "supervised", "classes": {"task_family": 4}}, "hidden", 64),
        ({"kind": "r3m", "language_weight": 0}, "hidden", 64),
        ({"kind": "r3m", "language_weight": 0}, "layers", 2),
        ({"kind": "r3m", "layers": 1}, "hidden", 64),
        ({"kind": "sim_clr", "layers": 1}, "hidden", 64),
    ],
    ids=str,
)
def test_a_setting_that_would_do_nothing_is_refused_by_name(
    one: dict[str, Any], name: str, value: object
) -> None:
    decoder = vision_alone()["pixel_decoder"]
    actions = {"dimensions": 4, "max_steps": 8}
    model = parts(pixel_decoder=decoder, actions=actions)
    beside = {"kind": "masked_language"}

    told = why({**one, name: value}, beside, model=model)

    assert f"{one['kind']}.{name}: found {value}; allowed: w" in told
    usual = recipe(one, beside, model=model)
    assert Recipe.model_validate_json(usual.model_dump_json()) == usual


@pytest.mark.parametrize("limit", [0.5, 8.0])
def test_quantiles_end_where_the_data_do(limit: float) -> None:
    bins = {"count": 8, "spacing": "quantiles", "limit": limit}
    actions = {"dimensions": 4, "state_dimensions": 4, "max_steps": 8, "bins": bins}

    told = why({"kind": "masked_action"}, model=parts(actions=actions))

    assert f"model.actions.bins.limit: found {limit:g}; allowed: with spacing 'uniform'" in told
    assert recipe({"kind": "masked_action"}, model=parts(actions=actions | {"bins": {"count": 8}}))


# ---------------------------------------------------------------- what decoders do with settings


@pytest.mark.parametrize(
    ("kind", "part"), [("masked_image", "pixel_decoder"), ("video_mae", "video_decoder")]
)
def test_what_a_plain_target_does_not_know_is_refused_by_name(kind: str, part: str) -> None:
    films = {**vision_alone(), **video()}
    plain = {**films[part], "normalised_target": False}

    told = why({"kind": kind, "statistics_weight": 0.2}, model={**films, part: plain})
    floor = why({"kind": kind}, model={**films, part: {**plain, "variance_floor": 0.01}})

    assert f"{kind}.statistics_weight: found 0.2; allowed: where the decoder's norm" in told
    assert f"model.{part}.variance_floor: found 0.01; allowed: where normalised_target is" in floor
    assert recipe({"kind": kind}, model={**films, part: plain})


def test_words_that_no_clip_is_filled_in_with_are_refused() -> None:
    films = {**parts(), **video()}
    films["video_decoder"] = {**films["video_decoder"], "text_context": True}

    assert "model.video_decoder.text_context: found true; allowed: false" in why(
        {"kind": "video_mae"}, model=films
    )


# ---------------------------------------------------------------- changes that somebody sees


@pytest.mark.parametrize(
    "change",
    [
        {"shift": 1}, {"zoom": 0.1}, {"crop": {}}, {"colour": 0.1}, {"grey": 0.1},
        {"blur": 0.1}, {"flip": {"actions": [], "states": [], "words": {}}},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["sim_clr", "mo_co", "dino"])
def test_changes_to_frames_that_nobody_sees_are_refused(kind: str, change: dict[str, Any]) -> None:
    told = why({"kind": kind}, augmentation=change)

    assert f"augmentation.{next(iter(change))}: found " in told
    assert f"allowed: where an objective sees frames; {kind} see views" in told
    assert recipe({"kind": kind}, {"kind": "masked_image"}, augmentation=change)
    assert recipe({"kind": kind}, augmentation={"shift": 0, "colour": 0, "hue": 0})  # none


def test_changes_to_views_that_nobody_compares_are_refused() -> None:
    change = {"views": {"colour": 0.8}}

    told = why({"kind": "masked_image"}, augmentation=change)

    assert "augmentation.views.colour: found 0.8; allowed: where an objective compares vi" in told
    assert recipe({"kind": "masked_image"}, {"kind": "sim_clr"}, augmentation=change)


@pytest.mark.parametrize("change", [{"hue": 0.3}, {"colour": 0.8}, {"saturation": 0.5}], ids=str)
def test_how_colours_change_is_refused_where_no_views_do(change: dict[str, Any]) -> None:
    (name,) = change
    still = {"colour_share": 0, **change}

    told = why({"kind": "sim_clr"}, augmentation={"views": still})

    assert f"augmentation.views.{name}: found {change[name]}; allowed: where augmentation" in told
    assert recipe({"kind": "sim_clr"}, augmentation={"views": {"colour_share": 0}})
    assert recipe({"kind": "sim_clr"}, augmentation={"views": {**still, name: 0}})


def test_a_share_of_views_whose_colours_change_by_nothing_is_refused() -> None:
    still = {"colour": 0, "hue": 0}

    told = why({"kind": "sim_clr"}, augmentation={"views": {**still, "colour_share": 0.5}})

    assert "augmentation.views.colour_share: found 0.5; allowed: where colour, hue or" in told
    for views in (still, {**still, "colour_share": 0}, {**still, "saturation": 0.2}):
        assert recipe({"kind": "sim_clr"}, augmentation={"views": views})


@pytest.mark.parametrize(
    "change", [{"crop_size": 16}, {"crop_area": [0.1, 0.2]}, {"small": {"blur": 0.1}}], ids=str
)
def test_what_small_views_are_like_is_refused_where_there_are_none(change: dict[str, Any]) -> None:
    name = next(iter(change))

    told = why({"kind": "dino"}, augmentation={"views": change})

    assert f"augmentation.views.{name}: found " in told
    assert "allowed: where augmentation.views.crops is not 0" in told
    assert recipe({"kind": "dino"}, augmentation={"views": {"crops": 2, "crop_size": 16, **change}})


@pytest.mark.parametrize("name", ["actions", "states", "words"])
def test_what_a_mirror_does_to_what_nobody_reads_is_refused(name: str) -> None:
    flip = {name: {"left": "right"} if name == "words" else [0]}
    told = why(
        {"kind": "masked_image"}, model=vision_alone(), augmentation={"flip": flip},
        data__action=None, data__state=None,
    )  # fmt: skip

    assert f"augmentation.flip.{name}: found " in told
    assert f"allowed: null, since this recipe reads no {name}" in told
