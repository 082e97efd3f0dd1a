"""The gates: each condition just inside and just outside of what was demanded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tectum_train.evaluation import gates

A_BIT = 1e-6

# Where all pass, each exactly at its threshold.
IMAGE = {"mean patch": 0.70 / 0.99 + A_BIT, "another image's context": 0.85}
MOTION = {
    "frame-difference PCA, z's width": 0.80 - 0.40,
    "frame-difference PCA-256": 0.80 - 0.05,
    "o_t alone, pixels PCA-256": 0.80 - 0.40,
    "o_t alone, trunk tokens PCA-256": 0.80 - 0.40,
    "o_t alone, z of a still pair": 0.80 - 0.40,
    "shuffled o_t+1, refitted": 0.10,
    "random init": 0.99,
}
CARRIED = {
    "true frames, the same probe": 0.80,
    "z in its own scene": 0.0,
    "shuffled z": 0.40 - 0.25,
    "the pair's difference, pasted, PCA of z's width": 0.39,
}
FEW = {"frame-difference PCA-256": 0.5, "frame-difference PCA, z's width": 0.5}
WORDS = {"shuffled picture": 0.5, "no picture": 0.5}
TOLD = {"shuffled instruction": 0.5, "no instruction": 0.5}
FORESEEN = {"repeating": 1.0, "shuffled actions": 1.0}


def chance(controls: Mapping[str, float]) -> dict[str, float]:
    """Two standard errors of the difference to each."""
    return dict.fromkeys(controls, 0.01)


Verdict = Callable[[float, Mapping[str, float], Mapping[str, float]], bool]


def test_all_pass_at_what_was_demanded() -> None:
    assert gates.task_is_known(0.65, 40)
    assert gates.partner_is_told_apart(0.70, 40)
    assert gates.image_is_filled(0.70, IMAGE)
    assert gates.instruction_helps(0.49 - A_BIT, TOLD, chance(TOLD))
    assert gates.word_is_found(0.51 + A_BIT, WORDS, chance(WORDS))
    assert gates.word_surprises_less(0.49 - A_BIT, WORDS, chance(WORDS))
    assert gates.motion_is_in_z(0.80 + A_BIT, MOTION)
    assert gates.frame_is_predicted(0.35)
    assert gates.tokens_are_predicted(0.99, {"shuffled z": 1.0 + A_BIT})
    assert gates.few_labels_suffice(0.505 + A_BIT, FEW)
    assert gates.few_labels_suffice(0.20, dict.fromkeys(FEW, 0.0))
    assert gates.motion_is_carried_over(0.40, CARRIED)
    assert gates.latent_codes_are_used(4, 8)
    assert gates.latent_codes_are_varied(2, 8)
    assert gates.next_latent_is_known(0.80, FORESEEN, chance(FORESEEN))
    assert gates.later_latent_is_known(0.99 - A_BIT, FORESEEN, chance(FORESEEN))


CLIP = {
    "mean tubelet": 0.5 / 0.99 + A_BIT,
    "copying the nearest visible tubelet": 0.5 / 0.99 + A_BIT,
    "another clip's context": 0.85,
    "copying the hidden tubelet from the neighbouring frames": 0.0,
}
CODE = {"commonest code": 0.4, "another image's context": 0.4}


def test_clips_and_codes_pass_at_what_was_demanded() -> None:
    assert gates.clip_is_filled(0.5, CLIP)
    assert gates.code_is_guessed(0.41 + A_BIT, CODE, chance(CODE))
    assert gates.codes_are_used(0.90)
    assert gates.codes_are_varied(64, 256)
    assert gates.codes_are_painted(0.50)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean tubelet": 0.5 / 0.99 - A_BIT},
        {"copying the nearest visible tubelet": 0.5 / 0.99 - A_BIT},
        {"another clip's context": 0.85 - A_BIT},
    ],
)
def test_a_masked_clip_fails_by_any_one_condition(changes: dict[str, float]) -> None:
    assert not gates.clip_is_filled(0.5, CLIP | changes)


@pytest.mark.parametrize("name", CODE)
def test_a_code_is_guessed_above_either_control_beyond_chance(name: str) -> None:
    errors = chance(CODE)

    assert not gates.code_is_guessed(0.41 + A_BIT, CODE | {name: 0.4 + 2 * A_BIT}, errors)
    assert not gates.code_is_guessed(0.41 + A_BIT, CODE, errors | {name: 0.01 + 2 * A_BIT})


def test_a_codebook_fails_below_what_was_demanded() -> None:
    assert not gates.codes_are_used(0.90 - A_BIT)
    assert not gates.codes_are_varied(64 - A_BIT, 256)
    assert not gates.codes_are_painted(0.50 + A_BIT)


@pytest.mark.parametrize(
    ("verdict", "least"), [(gates.task_is_known, 0.65), (gates.partner_is_told_apart, 0.70)]
)
def test_a_task_wants_its_recall_and_forty_training_episodes(
    verdict: Callable[[float, int], bool], least: float
) -> None:
    assert verdict(least, 40)
    assert not verdict(least - A_BIT, 40)
    assert not verdict(1.0, 39)


@pytest.mark.parametrize(
    ("error", "changes"),
    [
        (0.70 + A_BIT, {"mean patch": 0.9}),
        (0.60, {"mean patch": 0.60}),
        (0.60, {"mean patch": 0.60 / 0.99 - A_BIT}),
        (0.70, {"another image's context": 0.85 - A_BIT}),
    ],
)
def test_a_masked_image_fails_by_any_one_condition(error: float, changes: dict[str, float]) -> None:
    assert not gates.image_is_filled(error, IMAGE | changes)


@pytest.mark.parametrize("controls", [(0.5, 0.01 + A_BIT), (0.49, 0.0), (0.48, 0.0)])
@pytest.mark.parametrize("name", TOLD)
def test_an_instruction_that_helps_no_more_than_chance_or_none_may_fails(
    name: str, controls: tuple[float, float]
) -> None:
    other, spread = controls

    assert not gates.instruction_helps(0.49, TOLD | {name: other}, chance(TOLD) | {name: spread})


def test_motion_wants_seven_tenths() -> None:
    nothing = dict.fromkeys(MOTION, 0.0)

    assert gates.motion_is_in_z(0.70, nothing)
    assert not gates.motion_is_in_z(0.70 - A_BIT, nothing)


@pytest.mark.parametrize("control", [name for name in MOTION if name != "random init"])
def test_motion_fails_by_any_one_control(control: str) -> None:
    assert gates.motion_is_in_z(0.80 + A_BIT, MOTION)
    assert not gates.motion_is_in_z(0.80 + A_BIT, MOTION | {control: MOTION[control] + 2 * A_BIT})


@pytest.mark.parametrize("control", MOTION)
def test_a_control_that_is_missing_passes_nobody(control: str) -> None:
    rest = {name: value for name, value in MOTION.items() if name != control}
    if control == "random init":
        assert gates.motion_is_in_z(0.80 + A_BIT, rest)
        return

    with pytest.raises(KeyError):
        gates.motion_is_in_z(0.80 + A_BIT, rest)


def test_the_next_frame_wants_at_most_0_35_of_copying() -> None:
    assert not gates.frame_is_predicted(0.35 + A_BIT)


@pytest.mark.parametrize(
    ("verdict", "controls"),
    [
        (gates.hidden_actions_are_filled, ("linear interpolation",)),
        (
            gates.actions_are_foretold,
            ("mean action", "repeating the last action", "no picture"),
        ),
        (gates.actions_are_decoded, ("mean action", "shuffled z")),
    ],
)
def test_an_error_below_a_control_by_less_than_chance_may_fails(
    verdict: Verdict, controls: tuple[str, ...]
) -> None:
    worse, errors = dict.fromkeys(controls, 9.0), dict.fromkeys(controls, 0.01)
    for control in controls:
        assert verdict(0.49 - A_BIT, worse | {control: 0.5}, errors)
        assert not verdict(0.49 + A_BIT, worse | {control: 0.5}, errors)
        assert not verdict(0.49 - A_BIT, worse | {control: 0.5}, errors | {control: 0.02})
        assert not verdict(0.0, worse | {control: 0.0}, dict.fromkeys(controls, 0.0))


@pytest.mark.parametrize("control", ["shuffled picture", "no picture"])
def test_words_told_no_better_than_chance_may_without_the_true_picture_fail(control: str) -> None:
    errors = chance(WORDS)

    assert not gates.word_is_found(0.51 - A_BIT, {**WORDS, control: 0.5}, errors)
    assert not gates.word_is_found(0.6, {**WORDS, control: 0.6 - 0.01 + A_BIT}, errors)
    assert not gates.word_surprises_less(0.4, {**WORDS, control: 0.4 + 0.01 - A_BIT}, errors)


def test_no_difference_at_all_is_none_beyond_chance() -> None:
    nothing = dict.fromkeys(WORDS, 0.0)

    assert not gates.word_is_found(0.0, nothing, nothing)
    assert not gates.word_surprises_less(0.0, nothing, nothing)


def test_a_difference_whose_errors_are_unknown_passes_nobody() -> None:
    assert not gates.word_is_found(0.9, WORDS, {})


def test_what_is_demanded_is_told_in_the_rules() -> None:
    assert gates.TASK_RULE == "≥ 0.65; ≥ 40 training episodes a task"
    assert gates.PAIR_RULE == "≥ 0.7; ≥ 40 training episodes a task"
    assert gates.IMAGE_RULE == "≤ 0.7, below mean patch by ≥ 1%; other context ≥ 0.85"
    assert gates.IMAGE_TOLD_RULE == (
        "below shuffled instruction and no instruction, each by ≥ two standard errors"
    )
    assert gates.MOTION_RULE == (
        "≥ 0.7, PCA of z's width + 0.4, PCA-256 + 0.05, best of o_t alone + 0.4; shuffled ≤ 0.1"
    )
    assert gates.FRAME_RULE == "≤ 0.35"


@pytest.mark.parametrize(
    ("error", "change"),
    [(0.80 + A_BIT, {}), (0.70, {"shuffled actions": 0.71 - A_BIT}), (0.70, {"repeating": 0.70})],
)
def test_the_next_latent_wants_a_fifth_less_than_repeating_and_actions_that_matter(
    error: float, change: dict[str, float]
) -> None:
    controls = {**FORESEEN, **change}

    assert not gates.next_latent_is_known(error, controls, chance(controls))


@pytest.mark.parametrize(
    ("error", "change"),
    [(0.99 + A_BIT, {}), (0.95, {"shuffled actions": 0.96 - A_BIT})],
)
def test_a_later_latent_wants_less_than_repeating_and_shuffled_actions(
    error: float, change: dict[str, float]
) -> None:
    controls = {**FORESEEN, **change}

    assert not gates.later_latent_is_known(error, controls, chance(controls))


def test_without_actions_nothing_is_shuffled() -> None:
    alone = {"repeating": 1.0}

    assert gates.next_latent_is_known(0.80, alone, chance(alone))
    assert gates.later_latent_is_known(0.99 - A_BIT, alone, chance(alone))
    assert not gates.later_latent_is_known(0.99 + A_BIT, alone, chance(alone))


def test_of_a_latent_whose_errors_nobody_knows_nothing_is_held() -> None:
    assert not gates.later_latent_is_known(0.5, FORESEEN, {})


# ---------------------------------------------------------------- latent actions


@pytest.mark.parametrize("other", [0.5, 1.0])
def test_tokens_want_less_than_copying_and_a_z_that_matters(other: float) -> None:
    assert not gates.tokens_are_predicted(0.99 * other + A_BIT, {"shuffled z": other})
    assert not gates.tokens_are_predicted(0.99 + A_BIT, {"shuffled z": 5.0})


def test_few_labels_are_held_to_a_network_by_what_is_decoded_from_the_same_ones() -> None:
    network, beside = "supervised network on these labels", "z on the network's labels"

    assert gates.few_labels_suffice(0.6, FEW | {network: 0.65, beside: 0.7})
    assert not gates.few_labels_suffice(0.7, FEW | {network: 0.65, beside: 0.65})


@pytest.mark.parametrize("name", [*FEW, "supervised network on these labels"])
@pytest.mark.parametrize(("value", "pixels"), [(0.5, 0.5), (0.5, 0.499), (0.2 - A_BIT, -1)])
def test_few_labels_want_something_known_and_more_than_pixels_tell(
    value: float, pixels: float, name: str
) -> None:
    assert not gates.few_labels_suffice(value, dict.fromkeys(FEW, -1.0) | {name: pixels})


@pytest.mark.parametrize(
    ("cosine", "control", "value"),
    [
        (0.40 - A_BIT, "shuffled z", -1.0),
        (0.40, "shuffled z", 0.15 + A_BIT),
        (0.40, "true frames, the same probe", 0.80 + A_BIT),
        (0.0, "true frames, the same probe", -0.5),
        (0.40, "the pair's difference, pasted, PCA of z's width", 0.40 - A_BIT),
    ],
)
def test_a_motion_in_another_scene_fails_by_any_one_control(
    cosine: float, control: str, value: float
) -> None:
    assert not gates.motion_is_carried_over(cosine, {**CARRIED, "shuffled z": -1, control: value})


def test_a_codebook_is_held_to_what_so_many_codes_can_fill() -> None:
    assert gates.codes_to_fill(8, 16_000) == 8
    assert gates.codes_to_fill(625, 4_000) == 400
    assert not gates.latent_codes_are_used(3, 8)
    assert not gates.latent_codes_are_varied(2 - A_BIT, 8)
