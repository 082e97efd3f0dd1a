"""The words of samples, one of their task's sentences each, in tokens; and their mirror images.

Letters: I instructions, B samples, L text tokens, K tasks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_core.tokenizer import Tokenizer
from tectum_train.augment import Draws
from tectum_train.data.samples import Samples
from tectum_train.recipe import Recipe

__all__ = [
    "Spoken",
    "Words",
    "check_sided_labels",
    "check_sides",
    "heard",
    "mirrored",
    "mirrored_tasks",
    "sentences",
]

_SIDES = ("left", "right", "clockwise", "anticlockwise", "counterclockwise")
"""Words that say a side whatever else is said."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What is said of each sample."""

    ids: Tensor
    """int64[B, L]."""
    seen: Tensor
    """bool[B, L], False at padding."""
    content: Tensor
    """bool[B, L], True at the sentence's own tokens."""
    task: Tensor
    """int64[B], equal where the task is."""


class Words:
    """The instructions of a data set, encoded once; and their mirror images, if there are any."""

    def __init__(self, recipe: Recipe, samples: Samples, tokenizer: Tokenizer | None) -> None:
        feature = recipe.data.task
        self._tasks = samples.tasks(feature)
        self._paraphrases = samples.paraphrases(feature)
        said, pairs = samples.instructions, _exchanged(recipe)
        self._plain = self._turned = _encoded(recipe, said, tokenizer)
        if pairs:
            turned = [mirrored(text, pairs) for text in said]
            self._turned = _encoded(recipe, turned, tokenizer)
        self._mirror = mirrored_tasks(said, self._paraphrases, pairs)

    def of(self, index: NDArray[np.int64], draws: Draws, flipped: Tensor) -> Spoken:
        """One of each sample's task's sentences, mirrored where its picture is."""
        tasks = self._tasks[index].tolist()
        drawn = draws.uniform("sentence")[:, 0].tolist()
        sentence = torch.tensor(
            [
                int(self._paraphrases[task][int(draw * len(self._paraphrases[task]))])
                for task, draw in zip(tasks, drawn, strict=True)
            ]
        )
        ids, seen, content = (
            torch.where(flipped[:, None], turned[sentence], plain[sentence])
            for plain, turned in zip(self._plain, self._turned, strict=True)
        )
        turned_task = torch.tensor([self._mirror[task] for task in tasks])
        task = torch.where(flipped, turned_task, torch.tensor(tasks))
        return Spoken(ids, seen, content, task)


def sentences(recipe: Recipe, instructions: Sequence[str]) -> list[str]:
    """All that a run may hear: the instructions, and behind them those that mirrors add."""
    pairs = _exchanged(recipe)
    return list(dict.fromkeys([*instructions, *(mirrored(text, pairs) for text in instructions)]))


def heard(sentence: str) -> str:
    """A sentence as a tokenizer hears it: without capitals and without wide spaces."""
    return " ".join(sentence.lower().split())


def mirrored(text: str, pairs: Mapping[str, str]) -> str:
    """The text with these words exchanged, both ways; capitals at their beginning stay.

    Args:
        text: any.
        pairs: {left: right}, in small letters; words, or several with a space between.
    """
    both = {**{other: one for one, other in pairs.items()}, **pairs}
    if not both:
        return text
    words = sorted(both, key=len, reverse=True)  # the longest that fits is meant

    def exchanged(found: re.Match[str]) -> str:
        other = both[words[(found.lastindex or 1) - 1]]
        return other.capitalize() if found[0][0].isupper() else other

    return _whole(words).sub(exchanged, text)


def _whole(words: Sequence[str]) -> re.Pattern[str]:
    """Finds any of these words whole, the first that fits; each is a group."""
    pattern = "|".join("(" + r"\s+".join(map(re.escape, word.split())) + ")" for word in words)
    return re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE)


def check_sides(words: Mapping[str, str] | None, instructions: Sequence[str]) -> None:
    """That a mirror's words are those of the instructions.

    Args:
        words: that it exchanges; empty says that no sentence names a side, None says nothing.
        instructions: what a run hears.

    Raises:
        ValueError: a word is in none of them, or there are no words and one names a side.
    """
    for word in dict.fromkeys(one for pair in (words or {}).items() for one in pair):
        if not any(map(_whole([word]).search, instructions)):
            raise ValueError(
                f"found {word!r}, which no instruction says; allowed: words of the instructions, "
                "or nothing would be mirrored"
            )
    sided = _sided(instructions)
    if words is not None and not words and sided is not None:
        raise ValueError(
            f"found {{}}, but an instruction names a side: {sided!r}; allowed: the words that "
            "are exchanged, such as {left: right}"
        )


def check_sided_labels(
    labels: Mapping[str, Mapping[int, int]], learnt: str, instructions: Sequence[str]
) -> None:
    """That a mirror exchanges classes of what tells tasks, where these have sides.

    Args:
        labels: classes that it exchanges, of each label.
        learnt: the label that is the task of the data set's instructions.
        instructions: what they say.

    Raises:
        ValueError: one of them names a side, and no class is exchanged.
    """
    sided = _sided(instructions)
    if not labels.get(learnt) and sided is not None:
        raise ValueError(
            f"found no pairs of {learnt}, but an instruction names a side: {sided!r}; allowed: the "
            f"classes that are exchanged, such as {{{learnt}: {{0: 1}}}}"
        )


def _sided(instructions: Sequence[str]) -> str | None:
    return next(filter(_whole(_SIDES).search, instructions), None)


def mirrored_tasks(
    instructions: Sequence[str],
    paraphrases: Mapping[int, NDArray[np.int64]],
    pairs: Mapping[str, str],
) -> dict[int, int]:
    """What task each becomes where pictures are mirrored.

    Decided for a task as a whole, by its sentences that name a side. It stays what it is if there
    are none, or if it says their mirror images itself. It becomes the other task that says all of
    these and names no other side; if there is not exactly one such, it becomes a task of its own,
    whichever of its sentences is drawn. Mirrored twice, a task of the data set is itself again.

    Args:
        instructions: I.
        paraphrases: by task, the places of its sentences among them; K.
        pairs: words that are exchanged.
    """
    sided, turned = dict[int, frozenset[str]](), dict[int, frozenset[str]]()
    for task, places in paraphrases.items():
        said = [instructions[int(place)] for place in places]
        images = {heard(text): heard(mirrored(text, pairs)) for text in said}
        images = {text: image for text, image in images.items() if text != image}
        sided[task], turned[task] = frozenset(images), frozenset(images.values())
    saying: dict[frozenset[str], list[int]] = {}
    for task, names in sided.items():
        saying.setdefault(names, []).append(task)
    found, new = dict[int, int](), max(paraphrases, default=-1) + 1
    for number, task in enumerate(sorted(paraphrases)):
        others = saying.get(turned[task], [])
        if sided[task] == turned[task]:
            found[task] = task
        elif len(others) == 1 and len(saying[sided[task]]) == 1:
            found[task] = others[0]
        else:
            found[task] = new + number
    return found


def _exchanged(recipe: Recipe) -> dict[str, str]:
    """Words that the recipe's mirrors exchange."""
    flip = recipe.augmentation.flip
    return {} if flip is None else flip.words or {}


def _encoded(
    recipe: Recipe, instructions: Sequence[str], tokenizer: Tokenizer | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """int64[I, L] ids, bool[I, L] of those that are no padding, bool[I, L] of content."""
    text = recipe.model.text
    if tokenizer is None or text is None:
        nothing = torch.zeros(len(instructions), 1, dtype=torch.long)
        return nothing, nothing == 0, nothing > 0
    encoded = [tokenizer.encode(instruction, text.max_tokens) for instruction in instructions]
    ids = torch.tensor(tokenizer.pad([e.ids for e in encoded], text.max_tokens))
    seen = torch.zeros(ids.shape, dtype=torch.bool)
    content = torch.zeros(ids.shape, dtype=torch.bool)
    for row, one in enumerate(encoded):
        seen[row, : len(one.ids)] = True
        content[row, one.content] = True
    return ids, seen, content
