"""Words to token ids, with the tokenizer the bundle carries.

A thin shell around Hugging Face's `tokenizers`: it adds the special tokens this
project relies on, cuts and pads to one length, and can train a small WordPiece
vocabulary on the instructions at hand. Knows no tensors.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import pairwise

from tokenizers import Tokenizer as _Tokenizer
from tokenizers import models, normalizers, pre_tokenizers, processors

from tectum_core.panics import NO_FAULTS

__all__ = ["EncodedText", "Tokenizer"]

_PAD, _UNKNOWN, _START, _END, _MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
_SPECIAL = (_PAD, _UNKNOWN, _START, _END, _MASK)


@dataclass(frozen=True, slots=True)
class EncodedText:
    """One text as the model reads it, not padded."""

    ids: list[int]
    """Token ids, special tokens included."""
    tokens: list[str]
    """The same as the tokenizer writes them."""
    content: list[int]
    """Places in `ids` that are the text's own, special tokens left out."""
    cut: int = 0
    """Tokens of the text that were too many for the model, and are not in `ids`."""


class Tokenizer:
    """The bundle's tokenizer.

    Raises:
        ValueError: the JSON is no tokenizer, or lacks [PAD].
    """

    json: str
    """What goes into the bundle: the text it was read from."""
    vocabulary_size: int
    """One more than the largest id; as many as there are entries, unless ids are left out."""

    def __init__(self, json: str) -> None:
        self.json = json
        try:
            self._tokenizer = _Tokenizer.from_str(json)
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            # A template may put in ids that no entry has; the empty text shows them.
            added = self._tokenizer.encode("").ids
        except NO_FAULTS:
            raise
        except BaseException as error:  # the library raises bare Exception, and panics
            raise ValueError(f"not a tokenizer: {error}") from error
        self.vocabulary_size = 1 + max([*self._tokenizer.get_vocab().values(), *added], default=-1)
        pad = self._tokenizer.token_to_id(_PAD)
        if pad is None:
            raise ValueError(f"the tokenizer has no {_PAD} token")
        self.pad_id: int = pad
        self.mask_id: int | None = self._tokenizer.token_to_id(_MASK)

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
        """A lower-cased WordPiece vocabulary of at most `vocabulary_size` entries from `texts`.

        Equal texts, in whatever order, give an equal tokenizer: a resumed run and every rank of a
        distributed one read the same ids.
        """
        normaliser = normalizers.BertNormalizer(lowercase=True)
        splitter = pre_tokenizers.BertPreTokenizer()
        words = Counter(
            word
            for text in texts
            for word, _ in splitter.pre_tokenize_str(normaliser.normalize_str(text))
        )
        pieces = [*_SPECIAL, *_learn_pieces(words, vocabulary_size - len(_SPECIAL))]
        ids = {piece: number for number, piece in enumerate(pieces)}
        tokenizer = _Tokenizer(models.WordPiece(ids, unk_token=_UNKNOWN))
        tokenizer.normalizer = normaliser
        tokenizer.pre_tokenizer = splitter
        tokenizer.add_special_tokens(list(_SPECIAL))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{_START} $A {_END}",
            special_tokens=[(_START, ids[_START]), (_END, ids[_END])],
        )
        return cls(tokenizer.to_str(pretty=False))

    def encode(self, text: str, max_tokens: int) -> EncodedText:
        """One text to ids; what goes beyond `max_tokens` is cut before the end token.

        Raises:
            ValueError: the tokenizer cannot read the text.
        """
        try:
            encoded = self._tokenizer.encode(text)
        except NO_FAULTS:
            raise
        except BaseException as error:  # as above
            raise ValueError(f"the tokenizer cannot read a text: {error}") from error
        special = encoded.special_tokens_mask
        ids, tokens = list(encoded.ids), list(encoded.tokens)
        # A [MASK] written in the text is content, although the library calls it special.
        content = [
            place
            for place, (is_special, token) in enumerate(zip(special, tokens, strict=True))
            if not is_special or token == _MASK
        ]
        cut = max(len(ids) - max_tokens, 0)
        if cut:
            tail = ids[content[-1] + 1 :] if content else []
            tail_tokens = tokens[len(ids) - len(tail) :]
            room = max_tokens - len(tail)
            ids, tokens = ids[:room] + tail, tokens[:room] + tail_tokens
            content = [place for place in content if place < room]
        return EncodedText(ids=ids, tokens=tokens, content=content, cut=cut)

    def pad(self, encoded: Sequence[Sequence[int]], length: int) -> list[list[int]]:
        """Rows of ids filled up to `length` on the right."""
        return [[*ids, *[self.pad_id] * (length - len(ids))] for ids in encoded]

    def token(self, token_id: int) -> str:
        """The token as the tokenizer writes it."""
        return str(self._tokenizer.id_to_token(token_id))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids back to a text, special tokens left out."""
        words: list[str] = []
        for token in map(self.token, ids):
            if token in (_PAD, _START, _END):
                continue
            if token.startswith("##") and words:
                words[-1] += token[2:]
            else:
                words.append(token)
        return " ".join(words)


def _learn_pieces(words: Mapping[str, int], room: int) -> list[str]:
    """At most `room` pieces: letters, then the most frequent neighbours joined, again and again.

    Ties go to the spelling that sorts first. The library's own trainer breaks them by a hash that
    is another in every run.

    Args:
        words: how often each occurs.
        room: pieces that fit.
    """
    split = {word: [word[0], *(f"##{letter}" for letter in word[1:])] for word in words}
    letters: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    holders: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for word, parts in split.items():
        for part in parts:
            letters[part] += words[word]
        for pair in pairwise(parts):
            pairs[pair] += words[word]
            holders[pair].add(word)
    found = sorted(letters, key=lambda letter: (-letters[letter], letter))[: max(room, 0)]
    known = set(found)
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapify(queue)
    while queue and len(found) < room:
        count, best = heappop(queue)
        if not count or -count != pairs[best]:
            continue  # the pair occurs more or less often since it was queued
        joined = best[0] + best[1].removeprefix("##")
        if joined not in known:  # two ways may lead to one spelling
            found.append(joined)
            known.add(joined)
        touched: set[tuple[str, str]] = set()
        for word in tuple(holders[best]):
            for pair in pairwise(split[word]):
                pairs[pair] -= words[word]
                holders[pair].discard(word)
                touched.add(pair)
            split[word] = _joined(split[word], best, joined)
            for pair in pairwise(split[word]):
                pairs[pair] += words[word]
                holders[pair].add(word)
                touched.add(pair)
        for pair in touched:
            heappush(queue, (-pairs[pair], pair))
    return found


def _joined(parts: list[str], pair: tuple[str, str], joined: str) -> list[str]:
    """The parts with each occurrence of the pair as one."""
    result: list[str] = []
    for part in parts:
        if result and (result[-1], part) == pair:
            result[-1] = joined
        else:
            result.append(part)
    return result
