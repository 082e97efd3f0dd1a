"""The words of samples: one of their task's sentences each, in tokens.

Letters: I instructions, B samples, L text tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_core.tokenizer import Tokenizer
from tectum_train.augment import Draws
from tectum_train.data.samples import Samples
from tectum_train.recipe import Recipe

__all__ = ["Spoken", "Words", "mirrored"]


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
        said = samples.instructions
        flip = recipe.augmentation.flip
        other = [mirrored(text, flip.words or {}) for text in said] if flip else said
        self._plain, self._turned = (_encoded(recipe, texts, tokenizer) for texts in (said, other))
        self._turned_task = _tasks_of(said, other, self._paraphrases)

    def of(self, index: NDArray[np.int64], draws: Draws, flipped: Tensor) -> Spoken:
        """One of each sample's task's sentences, mirrored where its picture is."""
        tasks = self._tasks[index]
        drawn = draws.uniform("sentence")[:, 0].tolist()
        sentence = torch.tensor(
            [
                int(self._paraphrases[int(task)][int(draw * len(self._paraphrases[int(task)]))])
                for task, draw in zip(tasks, drawn, strict=True)
            ]
        )
        ids, seen, content = (
            torch.where(flipped[:, None], turned[sentence], plain[sentence])
            for plain, turned in zip(self._plain, self._turned, strict=True)
        )
        task = torch.where(flipped, self._turned_task[sentence], torch.from_numpy(tasks))
        return Spoken(ids, seen, content, task)


def mirrored(text: str, words: dict[str, str]) -> str:
    """The text with these words exchanged, both ways; capitals at their beginning stay."""
    both = {**{b: a for a, b in words.items()}, **words}
    if not both:
        return text
    pattern = "|".join(re.escape(word) for word in sorted(both, key=len, reverse=True))

    def exchanged(found: re.Match[str]) -> str:
        word = found[0]
        other = both[word.lower()]
        return other.capitalize() if word[0].isupper() else other

    return re.sub(rf"\b({pattern})\b", exchanged, text, flags=re.IGNORECASE)


def _tasks_of(
    said: list[str], other: list[str], paraphrases: dict[int, NDArray[np.int64]]
) -> Tensor:
    """int64[I], the task of each mirrored sentence: that of who says the same, or a new one."""
    task_of = {int(place): task for task, places in paraphrases.items() for place in places}
    by_text = {text: task_of[place] for place, text in enumerate(said) if place in task_of}
    new = max(paraphrases, default=0) + 1
    tasks = []
    for place, (plain, turned) in enumerate(zip(said, other, strict=True)):
        own = task_of.get(place, 0)
        tasks.append(own if plain == turned else by_text.get(turned, new + own))
    return torch.tensor(tasks)


def _encoded(
    recipe: Recipe, instructions: list[str], tokenizer: Tokenizer | None
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
