"""What is asked: shares and times as a command line says them, and what is drawn from them."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum import Priority
from tectum_cli.load.traffic import (
    CLASSES,
    Question,
    Traffic,
    shares_from,
    sizes_from,
    times_from,
)

WORDS = ("control", "interactive", "bulk")


def test_a_word_alone_has_a_share_of_one() -> None:
    assert shares_from("control, bulk=2.5", WORDS) == {"control": 1.0, "bulk": 2.5}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "found none; allowed: at least one of control, interactive, bulk"),
        ("urgent=1", "found 'urgent'; allowed: control, interactive, bulk"),
        ("bulk=0", "bulk: found 0; allowed: above 0, at most 1000000"),
        ("bulk=-1", "bulk: found -1; allowed: above 0, at most 1000000"),
        ("bulk=nan", "bulk: found nan; allowed: above 0, at most 1000000"),
        ("bulk=much", "bulk: found 'much'; allowed: a number"),
        ("bulk=1,bulk=2", "bulk: found twice; allowed: once"),
    ],
)
def test_a_share_that_is_none_is_named(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("(", r"\(")):
        shares_from(text, WORDS)


def test_a_size_alone_has_a_share_of_one_and_several_have_theirs() -> None:
    assert sizes_from("224") == {(224, 224): 1.0}
    assert sizes_from("224=8, 640x480=2") == {(224, 224): 8.0, (640, 480): 2.0}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "found ''; allowed: WIDTHxHEIGHT"),
        ("224,", "found ''; allowed: WIDTHxHEIGHT"),
        ("224=0", "224: found 0; allowed: above 0, at most 1000000"),
        ("224,224x224=2", "224x224: found twice; allowed: once"),
        (",".join(map(str, range(1, 18))), "found more than 16 sizes; allowed: 1 to 16"),
    ],
)
def test_a_size_that_is_none_is_named(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        sizes_from(text)


def test_sizes_are_drawn_by_their_shares() -> None:
    traffic, dice = Traffic({"embed_images": 1.0}, sizes=(9.0, 1.0)), random.Random(0)

    drawn = Counter(traffic.draw(dice).size for _ in range(2000))

    assert set(drawn) == {0, 1}
    assert drawn[0] / 2000 == pytest.approx(0.9, abs=0.03)


def test_a_time_alone_is_that_of_every_class() -> None:
    assert times_from("50", WORDS) == dict.fromkeys(WORDS, 0.05)


def test_times_are_read_in_milliseconds_and_told_in_seconds() -> None:
    assert times_from("control=50,bulk=5000", WORDS) == {"control": 0.05, "bulk": 5.0}
    assert times_from("", WORDS) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bulk=", "bulk: found ''; allowed: a number"),
        ("0", "deadline: found 0 ms; allowed: above 0, at most 3600000"),
        ("bulk=inf", "bulk: found inf ms; allowed: above 0, at most 3600000"),
        ("bulk=5,control", "control: found no time; allowed: control=MILLISECONDS"),
    ],
)
def test_a_time_that_is_none_is_named(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        times_from(text, WORDS)


@given(st.dictionaries(st.sampled_from(WORDS), st.floats(0.001, 1000), min_size=1))
def test_what_is_written_of_shares_is_what_is_read(shares: dict[str, float]) -> None:
    assert shares_from(",".join(f"{word}={share}" for word, share in shares.items()), WORDS) == (
        shares
    )


def test_calls_are_drawn_by_their_shares_and_have_their_classes_deadlines() -> None:
    traffic = Traffic(
        {"embed_images": 3, "embed_texts": 1},
        {Priority.CONTROL: 1, Priority.BULK: 1},
        {Priority.CONTROL: 0.05},
    )
    dice = random.Random(0)

    drawn = [traffic.draw(dice) for _ in range(4000)]

    ops = Counter(question.op for question in drawn)
    assert ops["embed_images"] == pytest.approx(3000, rel=0.05)
    assert {(one.priority, one.deadline) for one in drawn} == {
        (Priority.CONTROL, 0.05),
        (Priority.BULK, None),
    }


def test_the_same_seed_draws_the_same_calls() -> None:
    traffic = Traffic({"a": 1, "b": 2}, {Priority.CONTROL: 1, Priority.BULK: 3})

    def drawn() -> list[Question]:
        dice = random.Random(7)
        return [traffic.draw(dice) for _ in range(20)]

    assert drawn() == drawn()


def test_every_priority_has_a_word() -> None:
    assert set(CLASSES.values()) == set(Priority)
