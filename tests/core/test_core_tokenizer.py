"""Words to ids and back: the end token survives cutting, a written [MASK] is content."""

import json
import subprocess
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bundles import tokenizer

from tectum_core.tokenizer import Tokenizer

WORDS = ("open", "close", "push", "pull", "the", "red", "drawer", "button", "quickly")
TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=20).map(" ".join)
PAD, START, END, MASK = (
    json.loads(tokenizer().json)["model"]["vocab"][name]
    for name in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
)


@given(TEXT)
def test_known_words_come_back_as_they_were(text: str) -> None:
    assert tokenizer().decode(tokenizer().encode(text, 1000).ids) == text


@given(st.text(max_size=200), st.integers(2, 30))
def test_any_text_begins_with_the_start_and_ends_with_the_end_token(
    text: str, longest: int
) -> None:
    encoded = tokenizer().encode(text, longest)

    assert encoded.ids[0] == START
    assert encoded.ids[-1] == END
    assert 2 <= len(encoded.ids) <= longest
    assert len(encoded.tokens) == len(encoded.ids)
    assert all(tokenizer().token(i) == t for i, t in zip(encoded.ids, encoded.tokens, strict=True))


@given(TEXT, st.integers(3, 12))
def test_cutting_keeps_the_beginning_of_the_text(text: str, longest: int) -> None:
    whole, cut = tokenizer().encode(text, 1000), tokenizer().encode(text, longest)

    kept = min(len(whole.ids), longest) - 1
    assert cut.ids[:kept] == whole.ids[:kept]
    assert cut.ids[kept:] == [END]
    assert cut.content == list(range(1, kept))
    assert (whole.cut, cut.cut) == (0, len(whole.ids) - len(cut.ids))


def test_a_text_that_fits_exactly_is_not_cut() -> None:
    encoded = tokenizer().encode("open the drawer", 5)

    assert encoded.tokens == ["[CLS]", "open", "the", "drawer", "[SEP]"]
    assert encoded.content == [1, 2, 3]


def test_a_written_mask_is_content() -> None:
    encoded = tokenizer().encode("open the [MASK]", 12)

    assert encoded.ids == [START, *encoded.ids[1:3], MASK, END]
    assert encoded.content == [1, 2, 3]
    assert tokenizer().decode(encoded.ids) == "open the [MASK]"


@pytest.mark.parametrize("special", ["[PAD]", "[CLS]", "[SEP]"])
def test_other_special_tokens_in_a_text_are_content_that_is_not_written_back(
    special: str,
) -> None:
    encoded = tokenizer().encode(f"open {special} drawer", 12)

    assert encoded.tokens == ["[CLS]", "open", special, "drawer", "[SEP]"]
    assert encoded.content == [1, 2, 3]
    assert tokenizer().decode(encoded.ids) == "open drawer"


def test_an_empty_text_has_no_content() -> None:
    assert tokenizer().encode("", 12).content == []


def test_case_does_not_matter() -> None:
    assert tokenizer().encode("OPEN the Drawer", 12) == tokenizer().encode("open the drawer", 12)


def test_unknown_words_are_split_or_unknown_but_never_lost() -> None:
    encoded = tokenizer().encode("open the 漢", 12)

    assert encoded.tokens[-2] == "[UNK]"
    assert tokenizer().decode(encoded.ids) == "open the [UNK]"


def test_word_pieces_are_joined_again() -> None:
    pieces = tokenizer().encode("reddo", 12)

    assert any(token.startswith("##") for token in pieces.tokens)
    assert tokenizer().decode(pieces.ids) == "reddo"


@given(st.lists(st.lists(st.integers(5, 50), max_size=9), min_size=1, max_size=5))
def test_padding_fills_on_the_right_and_nothing_else(rows: list[list[int]]) -> None:
    padded = tokenizer().pad(rows, 9)

    assert all(len(row) == 9 for row in padded)
    assert [
        found[: len(row)] == row and set(found[len(row) :]) <= {PAD}
        for found, row in zip(padded, rows, strict=True)
    ] == [True] * len(rows)


def test_what_the_bundle_carries_reads_as_the_same_tokenizer() -> None:
    again = Tokenizer(tokenizer().json)

    assert again.encode("close the [MASK]", 12) == tokenizer().encode("close the [MASK]", 12)
    assert again.vocabulary_size == tokenizer().vocabulary_size
    assert (again.pad_id, again.mask_id) == (PAD, MASK)
    assert again.json == tokenizer().json


def test_the_bundle_carries_the_text_that_was_read_letter_by_letter() -> None:
    laid_out = json.dumps(json.loads(tokenizer().json), indent=4)

    assert Tokenizer(laid_out).json == laid_out  # another version of the library writes another


def test_a_vocabulary_reaches_to_its_largest_id_whatever_lies_below() -> None:
    told = json.loads(tokenizer().json)
    told["model"]["vocab"]["zebra"] = 5000

    sparse = Tokenizer(json.dumps(told))

    assert sparse.vocabulary_size == 5001
    assert max(sparse.encode("the zebra", 12).ids) == 5000


def test_padding_and_truncation_of_the_file_are_switched_off() -> None:
    told = json.loads(tokenizer().json)
    told["truncation"] = {
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip

    encoded = Tokenizer(json.dumps(told)).encode("open the red drawer", 12)

    assert len(encoded.ids) == 6


def test_a_vocabulary_is_as_large_as_asked_at_most() -> None:
    texts = [f"word{number} other{number}" for number in range(200)]

    assert Tokenizer.train(texts, 64).vocabulary_size == 64
    assert Tokenizer.train(texts, 12).vocabulary_size == 12  # not even all letters
    assert Tokenizer.train(["open the drawer"], 64).vocabulary_size < 64


@given(st.lists(st.text("abcde ", max_size=12), min_size=1, max_size=12), st.randoms())
def test_equal_texts_in_any_order_give_an_equal_tokenizer(texts: list[str], random: Random) -> None:
    shuffled = random.sample(texts, len(texts))

    assert Tokenizer.train(shuffled, 20).json == Tokenizer.train(texts, 20).json


def test_another_process_learns_the_same_tokenizer() -> None:
    program = (
        "from tectum_core.tokenizer import Tokenizer\n"
        "print(Tokenizer.train(['open close push pull the red blue green'] * 3, 60).json)"
    )
    run = [sys.executable, "-c", program]

    elsewhere = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()

    assert elsewhere == Tokenizer.train(["open close push pull the red blue green"] * 3, 60).json


@given(st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=8))
def test_every_word_it_learnt_from_can_be_written(words: list[str]) -> None:
    learnt = Tokenizer.train([" ".join(words)], 200)

    encoded = learnt.encode(" ".join(words), 1000)
    assert "[UNK]" not in encoded.tokens
    assert learnt.decode(encoded.ids) == " ".join(words)
    assert len(encoded.content) == len(words)  # with room enough each is one piece


def test_the_most_frequent_neighbours_are_joined_first() -> None:
    learnt = json.loads(Tokenizer.train(["ab ab ab", "cd cd", "ce"], 12).json)["model"]["vocab"]

    assert list(learnt)[5:] == ["##b", "a", "c", "##d", "##e", "ab", "cd"]


@pytest.mark.parametrize("text", ["", "{}", "no json", '{"model": 3}'])
def test_what_is_no_tokenizer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a tokenizer"):
        Tokenizer(text)


def test_a_tokenizer_without_padding_is_refused() -> None:
    told = json.loads(tokenizer().json)
    told["added_tokens"] = [t for t in told["added_tokens"] if t["content"] != "[PAD]"]
    told["model"]["vocab"]["padding"] = told["model"]["vocab"].pop("[PAD]")

    with pytest.raises(ValueError, match=r"has no \[PAD\] token"):
        Tokenizer(json.dumps(told))


def panicking(charsmap: str) -> str:
    """A tokenizer.json whose normaliser makes the library panic."""
    told = json.loads(tokenizer().json)
    told["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    return json.dumps(told)


def test_what_makes_the_library_panic_is_refused_as_no_tokenizer() -> None:
    with pytest.raises(ValueError, match="not a tokenizer: Precompiled"):
        Tokenizer(panicking("////fw=="))


def test_a_text_that_makes_the_library_panic_is_refused() -> None:
    found = Tokenizer(panicking("AAAAAA=="))  # an empty table, into which the first letter reaches

    with pytest.raises(ValueError, match="the tokenizer cannot read a text: index out of bounds"):
        found.encode("open the drawer", 12)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_who_ends_the_program_is_not_held_up_by_a_tokenizer(ending: type[BaseException]) -> None:
    class Interrupted:
        def encode(self, _: str) -> None:
            raise ending

    found = Tokenizer(tokenizer().json)
    found._tokenizer = Interrupted()  # type: ignore[assignment]

    with pytest.raises(ending):
        found.encode("open", 12)
