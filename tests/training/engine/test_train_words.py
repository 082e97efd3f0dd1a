"""The words of samples, and what a mirror makes of them and of their tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.checkout import ROOT
from tests.training.tiny import job

from tabletop.families import FAMILIES, NAMES  # type: ignore[import-not-found]
from tabletop.instructions import INSTRUCTIONS  # type: ignore[import-not-found]
from tectum_core.tokenizer import Tokenizer
from tectum_train.augment import Draws, FlipConfig
from tectum_train.data import LeRobotDataset
from tectum_train.data.samples import Samples
from tectum_train.engine import words
from tectum_train.engine.building import open_samples
from tectum_train.engine.words import (
    Words,
    check_sides,
    heard,
    mirrored,
    mirrored_tasks,
    sentences,
)
from tectum_train.recipe import Recipe, RecipeError

SIDES = {"left": "right"}
TALK = st.lists(st.sampled_from(["left", "right", "push", "it", "Left", "left-hand"]), max_size=6)


def tasks(*said: list[str], pairs: dict[str, str] = SIDES) -> list[int]:
    """What each of these tasks, told by its sentences, becomes."""
    texts = [text for one in said for text in one]
    ends = np.cumsum([len(one) for one in said])
    places = {number: np.arange(end - len(said[number]), end) for number, end in enumerate(ends)}
    return list(mirrored_tasks(texts, places, pairs).values())


# ---------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("push it left", "push it right"),
        ("right of the left cup", "left of the right cup"),
        ("Left, then right!", "Right, then left!"),
        ("LEFT", "Right"),
        ("the leftover brightness", "the leftover brightness"),
        ("left-handed", "right-handed"),
        ("open the drawer", "open the drawer"),
        ("", ""),
    ],
)
def test_words_are_exchanged_both_ways_and_whole(text: str, image: str) -> None:
    assert mirrored(text, SIDES) == image


def test_the_longest_words_that_fit_are_meant() -> None:
    pairs = {"left": "right", "left arm": "other arm"}

    assert mirrored("the left arm goes left", pairs) == "the other arm goes right"
    assert mirrored("the other  arm", pairs) == "the left arm"


def test_without_pairs_a_text_stays_as_it_is() -> None:
    assert mirrored("push it left", {}) == "push it left"


def test_letters_that_only_look_alike_in_capitals_are_no_error() -> None:
    assert mirrored("push it rıght", SIDES) in ("push it rıght", "push it left")


def complaint(pairs: dict[str, str] | None, said: list[str]) -> str:
    """What is wrong with a mirror's words; empty: nothing."""
    try:
        check_sides(pairs, said)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("pairs", "said", "told"),
    [
        ({"left": "rigth"}, ["push it left", "push it right"], "found 'rigth', which no instruct"),
        ({"port": "right"}, ["push it right"], "found 'port', which no instruction says; allowed"),
        ({"left": "right"}, ["the leftover", "the right one"], "found 'left', which"),
        (
            {},
            ["open it", "Turn it Clockwise."],
            "an instruction names a side: 'Turn it Clockwise.'",
        ),
        ({}, ["turn counter-clockwise"], "allowed: the words that are exchanged"),
    ],
)
def test_words_that_would_mirror_nothing_are_refused(
    pairs: dict[str, str], said: list[str], told: str
) -> None:
    assert told in complaint(pairs, said)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ({"left": "right", "far left": "far right"}, ["Left, Right", "far  left, FAR RIGHT"]),
        ({}, ["open the drawer", "the leftover brightness"]),
        (None, ["push it left"]),
    ],
)
def test_words_of_the_instructions_and_none_where_no_side_is_named_are_fine(
    pairs: dict[str, str] | None, said: list[str]
) -> None:
    assert complaint(pairs, said) == ""


@given(TALK)
def test_a_text_mirrored_twice_is_heard_as_it_was(talk: list[str]) -> None:
    text = " ".join(talk)

    assert heard(mirrored(mirrored(text, SIDES), SIDES)) == heard(text)


# ---------------------------------------------------------------- tasks


def test_a_task_that_names_no_side_stays_what_it_is() -> None:
    assert tasks(["open the drawer", "pull it"], ["close the drawer"]) == [0, 1]


def test_tasks_that_say_each_others_mirror_images_are_exchanged() -> None:
    assert tasks(["push it left"], ["push it right"]) == [1, 0]
    assert tasks(
        ["push it left", "to the left", "shove it"], ["to the Right", "push it  right", "move"]
    ) == [1, 0]


def test_a_task_that_names_both_sides_alike_stays_what_it_is() -> None:
    assert tasks(["push it left", "push it right", "push it"], ["open"]) == [0, 1]


def test_a_mirrored_sentence_that_nobody_says_makes_one_new_task_for_all_of_its_paraphrases() -> (
    None
):
    assert tasks(["twist it left", "move it left", "twist it"], ["open"]) == [2, 1]


def test_tasks_that_agree_on_some_sentences_alone_are_not_exchanged() -> None:
    """A window pushed left is closed, but the hand that opens it stands to the left of it."""
    opening = ["push the window right", "put the hand left of it and open the window"]
    closing = ["push the window left", "put the hand right of it and close the window"]

    assert tasks(opening, closing) == [2, 3]
    assert tasks(opening[:1], closing) == [2, 3]
    assert tasks(opening[:1], closing[:1]) == [1, 0]


def test_sentences_that_name_two_other_tasks_make_a_new_one() -> None:
    assert tasks(["go left", "turn left"], ["go right"], ["turn right"]) == [3, 4, 5]


def test_of_two_tasks_that_say_the_same_none_is_chosen() -> None:
    assert tasks(["go left"], ["go right"], ["go right", "move"]) == [3, 4, 5]


@given(st.lists(st.lists(TALK.map(" ".join), min_size=1, max_size=3), min_size=1, max_size=5))
def test_a_task_mirrored_twice_is_itself_and_new_ones_are_nobody_elses(
    said: list[list[str]],
) -> None:
    found = tasks(*said)

    own = range(len(said))
    assert all(found[other] == task for task, other in enumerate(found) if other in own)
    assert len(set(found)) == len(found)


def test_numbers_of_tasks_may_be_any() -> None:
    places = {7: np.array([0]), 3: np.array([1]), -2: np.array([2])}

    found = mirrored_tasks(["go left", "turn left", "open"], places, SIDES)

    assert found == {7: 10, 3: 9, -2: -2}


# ---------------------------------------------------------------- the tabletop's own


def tabletop(names: list[str]) -> dict[str, str]:
    """By family's name, what it becomes: a family's name, or `new`."""
    found = tasks(*(list(INSTRUCTIONS[name].train) for name in names))
    return {
        name: names[other] if other < len(names) else "new"
        for name, other in zip(names, found, strict=True)
    }


def test_of_the_tabletops_tasks_those_that_name_a_side_get_a_mirror_of_their_own() -> None:
    found = tabletop(list(NAMES))

    sided = {"window-open", "window-close", "faucet-open", "faucet-close", "dial-turn"}
    assert {name for name, other in found.items() if other == "new"} == sided
    assert all(other == name for name, other in found.items() if name not in sided)


def test_the_embedded_worlds_tasks_keep_their_paraphrases_together() -> None:
    dataset = LeRobotDataset(ROOT / "worlds" / "embedded" / "train")
    total = sum(episode.length for episode in dataset.episodes)
    samples = Samples(dataset, np.zeros((total, 1, 1, 3), np.uint8))
    paraphrases = samples.paraphrases("task_family")

    found = mirrored_tasks(samples.instructions, paraphrases, SIDES)

    def names_a_side(task: int) -> bool:
        texts = [samples.instructions[int(place)] for place in paraphrases[task]]
        return any(mirrored(text, SIDES) != text for text in texts)

    # Windows are slid to other sides and stay what they are: none of them is another's mirror.
    new = {task for task, other in found.items() if other != task}
    assert new == {task for task in paraphrases if names_a_side(task)}
    assert {FAMILIES[task].name for task in new} >= {"window-open", "window-close"}
    assert len({*found.values()} - {*paraphrases}) == len(new)


# ---------------------------------------------------------------- of samples


@pytest.fixture(scope="module")
def samples(tiny_data: Path) -> Samples:
    return open_samples(job(tiny_data, tiny_data), "train", lambda *_: None)


def recipe(data: Path, **flip: Any) -> Recipe:
    told = {"actions": [0], "states": [0], "words": SIDES, **flip}
    return job(data, data, data__task="task_family", augmentation={"flip": told})


def drawn(count: int = 60) -> tuple[np.ndarray, Draws]:
    index = np.arange(count) * 4
    return index, Draws(0, np.zeros_like(index), index)


def test_mirrored_samples_say_mirrored_sentences_of_mirrored_tasks(
    tiny_data: Path, samples: Samples
) -> None:
    tokenizer = Tokenizer.train(samples.instructions, 120)
    index, draws = drawn()
    flipped = torch.arange(len(index)) % 2 == 0

    plain, turned = (
        Words(recipe(tiny_data), samples, tokenizer).of(index, draws, which)
        for which in (torch.zeros(len(index), dtype=torch.bool), flipped)
    )

    for row, task in enumerate(samples.tasks("task_family")[index].tolist()):
        before, after = (tokenizer.decode(one.ids[row].tolist()) for one in (plain, turned))
        assert plain.task[row] == task
        assert after == (mirrored(before, SIDES) if flipped[row] else before)
        # Left and right of red are tasks 0 and 1, of blue 2 and 3.
        assert turned.task[row] == (task ^ 1 if flipped[row] else task)


def test_without_a_mirror_instructions_are_encoded_once(
    tiny_data: Path, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.train(samples.instructions, 120)
    encoded: list[list[str]] = []
    whole = words._encoded

    def counted(recipe: Recipe, instructions: list[str], tokenizer: Tokenizer | None) -> Any:
        encoded.append(instructions)
        return whole(recipe, instructions, tokenizer)

    monkeypatch.setattr(words, "_encoded", counted)

    for plain in (job(tiny_data, tiny_data), recipe(tiny_data, words={})):
        Words(plain, samples, tokenizer)
        assert encoded == [samples.instructions]
        encoded.clear()
    Words(recipe(tiny_data), samples, tokenizer)
    assert len(encoded) == 2


def test_a_tokenizer_learns_the_words_that_mirrors_add(tiny_data: Path) -> None:
    said = ["twist the knob to the left", "open the drawer"]

    learnt = Tokenizer.train(sentences(recipe(tiny_data), said), 120)

    assert sentences(recipe(tiny_data), said) == [*said, "twist the knob to the right"]
    assert sentences(job(tiny_data, tiny_data), said) == said
    right = learnt.encode("right", 8).ids
    assert learnt.decode(right) == "right"


def test_words_of_the_recipe_are_understood_whatever_their_capitals() -> None:
    pairs = FlipConfig(words={"Left": "RIGHT"}).words

    assert mirrored("Push it LEFT, then right", pairs or {}) == "Push it Right, then left"


def test_a_mirror_without_its_words_is_refused_as_training_data_are_opened(tiny_data: Path) -> None:
    told = r"augmentation\.flip\.words: found \{\}, but an instruction names a side: 'push the red"
    wrong = recipe(tiny_data, words={})

    with pytest.raises(RecipeError, match=told):
        open_samples(wrong, "train", lambda *_: None)

    assert open_samples(wrong, "test", lambda *_: None).instructions  # who measures mirrors nothing
