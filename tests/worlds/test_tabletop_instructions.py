"""What the arm is told: enough ways to say it, and honest held-out ones."""

import re
from collections import Counter

import pytest

from tabletop.families import FAMILIES, NAMES, Family, index_of
from tabletop.instructions import INSTRUCTIONS, Paraphrases, draw_instruction, sentences
from tabletop.plan import EpisodeKey


def words(texts: tuple[str, ...]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}


def everything(paraphrases: Paraphrases) -> tuple[str, ...]:
    return paraphrases.train + paraphrases.held_out


def test_every_family_has_instructions_and_no_other_name_has() -> None:
    assert tuple(INSTRUCTIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_family_has_at_least_ten_training_and_four_held_out_sentences(name: str) -> None:
    assert len(INSTRUCTIONS[name].train) >= 10
    assert len(INSTRUCTIONS[name].held_out) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_held_out_sentences_use_only_words_that_the_family_trains_on(name: str) -> None:
    paraphrases = INSTRUCTIONS[name]

    assert words(paraphrases.held_out) <= words(paraphrases.train)


def test_no_sentence_occurs_twice_in_any_family_or_split() -> None:
    counts = Counter(text for group in INSTRUCTIONS.values() for text in everything(group))

    assert [text for text, count in counts.items() if count > 1] == []


def test_sentences_are_short_and_plain() -> None:
    for group in INSTRUCTIONS.values():
        for text in everything(group):
            assert re.fullmatch(r"[a-z]+(,? [a-z]+){1,11}", text), text


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.partner], ids=lambda f: f.name)
def test_partners_name_each_other_and_share_scene_and_many_words(family: Family) -> None:
    partner = FAMILIES[index_of(family.partner)]
    own = words(everything(INSTRUCTIONS[family.name]))
    other = words(everything(INSTRUCTIONS[partner.name]))

    assert partner.partner == family.name
    assert (partner.low, partner.high, partner.vector) == (family.low, family.high, family.vector)
    assert len(own & other) / len(own | other) > 0.4


def test_there_are_at_least_four_pairs_among_at_least_twelve_families() -> None:
    assert len(FAMILIES) >= 12
    assert sum(family.partner is not None for family in FAMILIES) >= 8


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_uses_its_own_sentences_evenly(split: str) -> None:
    for family in range(len(FAMILIES)):
        allowed = sentences(family, split)
        keys = [EpisodeKey(5, split, family, index) for index in range(2 * len(allowed))]

        assert Counter(map(draw_instruction, keys)) == dict.fromkeys(allowed, 2)


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'juggle'.*known tasks: drawer-open"):
        index_of("juggle")
