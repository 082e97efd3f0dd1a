"""Whether a model and two splits belong together, told before anything is measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.training.evaluation.scene import FPS, recorded
from tests.training.tiny import latent_action, parts, world_model

from tectum_core.architecture import ModelConfig
from tectum_train.data import DataError
from tectum_train.data.samples import Samples
from tectum_train.engine.states import StateFeatures
from tectum_train.evaluation.measuring.context import Columns
from tectum_train.evaluation.measuring.fits import check_fits, check_seeds, frame_steps, pair_steps

COLUMNS = Columns(state="state", action="action", family="family")
FAMILIES = [
    {"index": 2, "name": "up", "partner": None},
    {"index": 5, "name": "off", "partner": None},
]


def split(
    root: Path,
    *,
    fps: float = FPS,
    families: list[dict[str, Any]] | None = FAMILIES,
    held_out: Sequence[str] = (),
    learnt: Sequence[str] = (),
    instructions: Sequence[str] = ("do it",),
    frames: NDArray[np.uint8] | None = None,
    **changes: Any,
) -> Samples:
    """Two episodes, filmed by every split anew; a change of None leaves a feature out."""
    columns = {
        "state": np.zeros((9, 4), np.float32),
        "action": np.zeros((9, 4), np.float32),
        "camera.extrinsics": np.zeros((9, 16), np.float32),
        "family": np.repeat([2, 5], [5, 4]),
        **changes,
    }
    (root / "meta").mkdir(parents=True)
    if families is not None:
        sentences = [
            {"text": text, "family": "up", "held_out": text in held_out}
            for text in (*held_out, *learnt)
        ]
        world = {"families": families, "instructions": sentences}
        (root / "meta" / "world.json").write_text(json.dumps(world))
    present = {name: values for name, values in columns.items() if values is not None}
    frames = film(root.name) if frames is None else frames
    return recorded([5, 4], present, frames, instructions, root, fps)


def film(name: str) -> NDArray[np.uint8]:
    """uint8[9, 2, 2, 3], other pictures for another name."""
    return np.random.default_rng([*name.encode()]).integers(0, 256, (9, 2, 2, 3), np.uint8)


def moving(seed: int) -> NDArray[np.float32]:
    """States or actions that differ from frame to frame."""
    return np.random.default_rng(seed).normal(size=(9, 4)).astype(np.float32)


def model(interval: float = 2 / FPS, tolerance: float = 0.001, **changes: Any) -> ModelConfig:
    latent = latent_action(interval=interval, tolerance=tolerance)
    return ModelConfig.model_validate(parts(latent_action=latent, **changes))


@pytest.fixture
def train(tmp_path: Path) -> Samples:
    return split(tmp_path / "train")


def test_splits_that_fit_are_not_refused(train: Samples, tmp_path: Path) -> None:
    check_fits(model(), COLUMNS, train, split(tmp_path / "test"), step_interval=1 / FPS)

    assert pair_steps(model(), FPS) == 2


def test_two_frames_are_never_less_than_a_step_apart() -> None:
    short = model(interval=0.1 / FPS, world_model=world_model(interval=0.1 / FPS))

    assert short.world_model is not None
    assert pair_steps(short, FPS) == frame_steps(short.world_model, FPS) == 1


def test_splits_of_two_rates_are_refused(train: Samples, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test has 40 frames a second and .*train 80"):
        check_fits(model(), COLUMNS, train, split(tmp_path / "test", fps=40))


@pytest.mark.parametrize(("interval", "fits"), [(0.026, True), (0.0261, False), (0.03, False)])
def test_a_pair_must_come_within_the_models_tolerance(
    interval: float, fits: bool, train: Samples, tmp_path: Path
) -> None:
    test = split(tmp_path / "test")
    if fits:
        check_fits(model(interval), COLUMNS, train, test)
        return

    with pytest.raises(DataError, match=r"a pair is 0\.025 s apart at best.*interval is 0\.0"):
        check_fits(model(interval), COLUMNS, train, test)


@pytest.mark.parametrize(("interval", "fits"), [(0.125, True), (0.1255, True), (0.13, False)])
def test_frames_come_as_far_apart_as_the_world_models(
    interval: float, fits: bool, train: Samples, tmp_path: Path
) -> None:
    test, asked = split(tmp_path / "test"), model(world_model=world_model(interval=interval))
    if fits:
        check_fits(asked, COLUMNS, train, test)
        return

    with pytest.raises(DataError, match=r"two frames are 0\.125 s apart at best.*is 0\.13 s"):
        check_fits(asked, COLUMNS, train, test)


def test_actions_of_another_rate_than_the_models_are_refused(
    train: Samples, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"80 actions a second; the model knows actions 0\.1 s"):
        check_fits(model(), COLUMNS, train, split(tmp_path / "test"), step_interval=0.1)


@pytest.mark.parametrize(
    ("feature", "found", "wanted"),
    [("action", 3, 4), ("state", 7, 4), ("camera.extrinsics", 12, 16)],
)
@pytest.mark.parametrize("odd", ["train", "test"])
def test_features_of_another_width_are_refused_in_either_split(
    feature: str, found: int, wanted: int, odd: str, tmp_path: Path
) -> None:
    strange: dict[str, Any] = {feature: np.zeros((9, found))}
    train, test = (
        split(tmp_path / name, **(strange if name == odd else {})) for name in ("train", "test")
    )

    with pytest.raises(DataError, match=f"{odd}: {feature} has {found} numbers; {wanted} are"):
        check_fits(model(), COLUMNS, train, test)


def test_what_is_missing_or_never_read_is_no_contradiction(train: Samples, tmp_path: Path) -> None:
    odd = split(tmp_path / "test", families=None, action=None, state=np.zeros((9, 7)))
    deaf = model(actions={"dimensions": 4, "max_steps": 8})

    check_fits(deaf, COLUMNS, train, odd)

    assert not odd.has("action")


SEEING = {"dimensions": 4, "state_dimensions": 8, "max_steps": 8}
BOTH = StateFeatures("state", "lens")


def test_a_state_of_robot_and_camera_is_as_wide_as_both(tmp_path: Path) -> None:
    train, test = (split(tmp_path / name, lens=np.ones((9, 4))) for name in ("train", "test"))

    check_fits(model(actions=SEEING), COLUMNS, train, test, shown=BOTH)

    alone = model(actions=SEEING | {"state_dimensions": 4})
    check_fits(alone, COLUMNS, train, test, shown=StateFeatures(None, "lens"))
    with pytest.raises(DataError, match="train: state has 4 numbers; 8 are wanted"):
        check_fits(model(actions=SEEING), COLUMNS, train, test)


@pytest.mark.parametrize(("feature", "found", "wanted"), [("state", 8, 4), ("lens", 9, 4)])
def test_a_robot_or_camera_of_another_width_is_refused(
    feature: str, found: int, wanted: int, tmp_path: Path
) -> None:
    columns: dict[str, Any] = {"lens": np.ones((9, 4)), feature: np.ones((9, found))}
    train, test = (split(tmp_path / name, **columns) for name in ("train", "test"))

    with pytest.raises(DataError, match=f"{feature} has {found} numbers; {wanted} are wanted"):
        check_fits(model(actions=SEEING), COLUMNS, train, test, shown=BOTH)


@pytest.mark.parametrize("nameless", ["train", "test"])
def test_families_that_one_split_alone_names_are_no_contradiction(
    nameless: str, tmp_path: Path
) -> None:
    train, test = (
        split(tmp_path / name, families=None if name == nameless else FAMILIES)
        for name in ("train", "test")
    )

    check_fits(model(), COLUMNS, train, test)

    assert not (tmp_path / nameless / "meta" / "world.json").exists()


def test_other_families_are_refused(train: Samples, tmp_path: Path) -> None:
    test = split(tmp_path / "test", families=FAMILIES[::-1])

    with pytest.raises(DataError, match="test names other task families than"):
        check_fits(model(), COLUMNS, train, test)


@pytest.mark.parametrize("odd", ["train", "test"])
def test_frames_of_a_family_without_a_name_are_refused(odd: str, tmp_path: Path) -> None:
    strange = dict[str, Any](family=np.repeat([2, 3], [5, 4]))
    train, test = (
        split(tmp_path / name, **(strange if name == odd else {})) for name in ("train", "test")
    )

    told = rf"{odd}: family has \[3\], which meta/world.json does not"
    with pytest.raises(DataError, match=told):
        check_fits(model(), COLUMNS, train, test)


# ---------------------------------------------------------------- the splits are apart


def test_one_folder_is_not_two_splits_by_whatever_name(train: Samples, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(train.dataset.root)
    linked = recorded([5, 4], {}, film("link"), root=tmp_path / "link")

    for test in (train, linked):
        with pytest.raises(DataError, match=r"is the folder that is learnt from; .*--test of"):
            check_fits(model(), COLUMNS, train, test)


def test_a_filmed_episode_is_known_again_at_another_place(train: Samples, tmp_path: Path) -> None:
    frames = film("test")
    frames[:5] = train.frames[:5]
    elsewhere = recorded([4, 5], {}, np.roll(frames, 4, axis=0), root=tmp_path)

    told = r"1 of the 2 episodes of .* are in .*train too, .*: number 1 is number 0 there; leave"
    with pytest.raises(DataError, match=told):
        check_fits(model(), COLUMNS, train, elsewhere)


@pytest.mark.parametrize("feature", ["state", "action"])
def test_an_episode_that_was_filmed_anew_is_known_by_its_numbers(
    feature: str, tmp_path: Path
) -> None:
    known, others = moving(1), moving(2)
    known[7] = known[6]  # it rests for a step
    others[5:] = known[5:]
    train, test = (
        split(tmp_path / name, **dict[str, Any]({feature: values}))
        for name, values in (("train", known), ("test", others))
    )

    with pytest.raises(DataError, match=r"1 of the 2 .*number 1 is number 1 there"):
        check_fits(model(), COLUMNS, train, test)


def test_what_stands_still_for_another_time_is_another_episode(
    train: Samples, tmp_path: Path
) -> None:
    train.frames[:5] = train.frames[0]
    frames = film("test")
    frames[:4] = train.frames[0]
    shorter = recorded([4, 5], {}, frames, root=tmp_path)

    check_fits(model(), COLUMNS, train, shorter)

    assert np.array_equal(shorter.frames[:4], train.frames[:4])


def test_an_episodes_numbers_are_known_in_whatever_width_they_are_kept(tmp_path: Path) -> None:
    known, others = moving(1), moving(2).astype(np.float64)
    others[5:] = known[5:]
    train, test = split(tmp_path / "train", state=known), split(tmp_path / "test", state=others)

    with pytest.raises(DataError, match=r"1 of the 2 .*number 1 is number 1 there"):
        check_fits(model(), COLUMNS, train, test)


def test_episodes_that_begin_alike_and_go_on_otherwise_are_two(
    train: Samples, tmp_path: Path
) -> None:
    frames = film("test")
    frames[:3], frames[5:7] = train.frames[:3], train.frames[5:7]

    check_fits(model(), COLUMNS, train, split(tmp_path / "test", frames=frames))

    assert np.array_equal(frames[0], train.frames[0])


def test_what_several_episodes_may_have_in_common_does_not_make_them_one(tmp_path: Path) -> None:
    buttons = np.tile(np.array([[0], [1], [0]]), (3, 4))
    train, test = (
        split(tmp_path / name, action=buttons, state=np.ones((9, 4))) for name in ("train", "test")
    )

    check_fits(model(), COLUMNS, train, test)

    assert train.has("action")


def test_a_held_out_sentence_must_not_have_been_heard(tmp_path: Path) -> None:
    train = split(tmp_path / "train", instructions=("lift it", "Raise  the cup"))
    test = split(tmp_path / "test", held_out=("take it up", "raise the cup"))

    told = r"train has 'raise the cup' among its instructions \(1 such in all\).*test/meta/world"
    with pytest.raises(DataError, match=told):
        check_fits(model(), COLUMNS, train, test)


def test_a_sentence_that_is_not_held_out_may_be_heard(tmp_path: Path) -> None:
    train = split(tmp_path / "train", instructions=("lift it",))
    test = split(tmp_path / "test", held_out=("take it up",), learnt=("lift it",))

    check_fits(model(), COLUMNS, train, test)

    assert "lift it" in (test.dataset.root / "meta" / "world.json").read_text()


def test_a_held_out_sentence_must_not_be_heard_in_a_mirror(tmp_path: Path) -> None:
    train = split(tmp_path / "train", instructions=("push it Left", "lift it"))
    test = split(tmp_path / "test", held_out=("push it right", "move it right"))

    check_fits(model(), COLUMNS, train, test)

    told = r"'push it right' among its .*, as augmentation\.flip\.words mirrors them \(1 such in"
    with pytest.raises(DataError, match=told):
        check_fits(model(), COLUMNS, train, test, exchanged={"left": "right"})


def test_a_sentence_may_be_held_out_by_the_set_that_is_learnt_from(tmp_path: Path) -> None:
    train = split(tmp_path / "train", instructions=("lift it",), held_out=("take it up",))
    test = split(tmp_path / "test", instructions=("take it up",), held_out=("take it up",))

    check_fits(model(), COLUMNS, train, test)

    assert test.instructions == ["take it up"]


# ---------------------------------------------------------------- several bundles


def seeded(seed: int, model: str = "m", images: str = "i", recipe: str = "r") -> Any:
    training = SimpleNamespace(recipe=recipe, steps=5, seed=seed)
    return SimpleNamespace(config=SimpleNamespace(training=training, model=model, images=images))


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"model": "x"}, "model"),
        ({"images": "x"}, "images"),
        ({"images": "x", "recipe": "x"}, "recipe, images"),
    ],
)
def test_bundles_of_other_shapes_or_pictures_are_of_another_recipe(
    changes: dict[str, str], differing: str
) -> None:
    check_seeds([("one", seeded(1)), ("two", seeded(2)), ("three", seeded(3))])

    told = rf"three is of another recipe than one \({differing} differ\)"
    with pytest.raises(ValueError, match=told):
        check_seeds([("one", seeded(1)), ("two", seeded(2)), ("three", seeded(3, **changes))])


def test_of_three_bundles_no_two_may_be_of_one_seed() -> None:
    with pytest.raises(ValueError, match="three and two are both of seed 2"):
        check_seeds([("one", seeded(1)), ("two", seeded(2)), ("three", seeded(2))])
