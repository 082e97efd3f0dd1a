"""What a recipe may say of mirrors, and what it then means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tectum_train.augment import FlipConfig

WORDS = st.text(st.characters(categories=["Ll", "Lu"]), min_size=1, max_size=6)


def test_a_mirror_says_nothing_that_it_is_not_told() -> None:
    flip = FlipConfig()

    assert (flip.actions, flip.states, flip.words) == (None, None, None)
    assert FlipConfig(words={}).words == {}


@pytest.mark.parametrize("change", [{"share": 0.0}, {"share": 1.1}, {"actions": [-1]}])
def test_shares_and_places_are_what_they_can_be(change: Any) -> None:
    with pytest.raises(ValidationError):
        FlipConfig.model_validate(change)


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ({"left": "right"}, {"left": "right"}),
        ({"Left": "RIGHT"}, {"left": "right"}),
        ({" left ": "right"}, {"left": "right"}),
        ({"left  hand": "right hand"}, {"left hand": "right hand"}),
        ({"left": "right", "right": "left"}, {"left": "right"}),
        ({"left": "right", "Left": "right"}, {"left": "right"}),
        ({"left": "right", "east": "west"}, {"left": "right", "east": "west"}),
    ],
)
def test_words_are_pairs_in_small_letters_each_of_them_once(
    told: dict[str, str], meant: dict[str, str]
) -> None:
    assert FlipConfig(words=told).words == meant


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            {"left": "right", "port": "right"},
            "'right' is exchanged with 'left' and with 'port'; allowed: one word for each",
        ),
        (
            {"left": "right", "Left": "starboard"},
            "'left' is exchanged with 'right' and with 'starboard'",
        ),
        ({"left": "right", "right": "wrong"}, "'right' is exchanged with 'left' and with 'wrong'"),
        ({"left": "Left"}, "'left': 'Left' are no two words that are exchanged"),
        ({"": "right"}, "'': 'right' are no two words"),
        ({"left": "  "}, "'left': '  ' are no two words"),
    ],
)
def test_words_that_would_lose_their_opposite_are_refused(told: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        FlipConfig(words=told)


@given(st.dictionaries(WORDS, WORDS, max_size=4))
def test_what_is_meant_is_meant_the_second_time_too(told: dict[str, str]) -> None:
    try:
        flip = FlipConfig(words=told)
    except ValidationError:
        return

    assert flip.words is not None
    named = [word for pair in flip.words.items() for word in pair]
    assert len(set(named)) == len(named)
    assert FlipConfig.model_validate_json(flip.model_dump_json()) == flip


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"exchanged_actions": {0: 7, 7: 1}}, "exchanged_actions: found {0: 7, 7: 1}; allowed: ea"),
        ({"exchanged_states": {0: 7, 7: 0}}, "allowed: each number in one pair, and with another"),
        ({"exchanged_states": {3: 3}}, "exchanged_states: found {3: 3}; allowed: each number in"),
        (
            {"exchanged_actions": {0: 7, 1: 8}, "actions": [0, 1, 8]},
            "actions: found [0, 1, 8]; allowed: both or neither of 0 and 7, which are exchanged",
        ),
    ],
)
def test_exchanges_whose_mirror_has_another_mirror_are_refused(
    told: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError) as error:
        FlipConfig.model_validate(told)

    assert words in str(error.value)


def test_numbers_may_be_exchanged_and_change_their_sign() -> None:
    flip = FlipConfig(actions=(0, 7, 14), exchanged_actions={0: 7, 1: 8})

    assert (flip.negated("actions"), flip.negated("states")) == ((0, 7, 14), ())
    assert (flip.exchanged("actions"), flip.exchanged("states")) == ({0: 7, 1: 8}, {})
    assert [flip.changes(what) for what in ("actions", "states", "words")] == [True, False, False]
    assert FlipConfig(exchanged_states={0: 7}).changes("states")
    assert FlipConfig.model_validate_json(flip.model_dump_json()) == flip
