"""What is asked: operations, sizes, priorities and deadlines, drawn by their shares."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tectum import Priority
from tectum_cli.load.pictures import sides

__all__ = ["CLASSES", "Question", "Traffic", "shares_from", "sizes_from", "times_from"]

CLASSES: Mapping[str, Priority] = {priority.name.lower(): priority for priority in Priority}
"""Priorities by the words for them."""
_LONGEST = 3_600_000
"""Milliseconds of the longest deadline."""
_SIZES = 16
"""Of pictures, at most."""

Word = TypeVar("Word")


@dataclass(frozen=True, slots=True)
class Question:
    """One call to be made."""

    op: str
    """What of, as the target names it."""
    priority: Priority
    deadline: float | None
    """Seconds after which the answer is worthless. None: whenever it comes."""
    size: int = 0
    """Which of the target's pictures."""


@dataclass(frozen=True)
class Traffic:
    """What calls are drawn from; shares need not sum to 1."""

    ops: Mapping[str, float]
    priorities: Mapping[Priority, float] = field(
        default_factory=lambda: {Priority.INTERACTIVE: 1.0}
    )
    deadlines: Mapping[Priority, float] = field(default_factory=dict)
    """Seconds, by priority; a class that is not named has none."""
    sizes: Sequence[float] = (1.0,)
    """Shares of the target's pictures."""

    def draw(self, dice: random.Random) -> Question:
        """The next call."""
        (op,) = dice.choices(list(self.ops), list(self.ops.values()))
        (priority,) = dice.choices(list(self.priorities), list(self.priorities.values()))
        (size,) = dice.choices(range(len(self.sizes)), self.sizes)
        return Question(op, priority, self.deadlines.get(priority), size)


def shares_from(text: str, allowed: Iterable[str]) -> dict[str, float]:
    """Read `control=1,interactive=99`; a word alone has a share of 1.

    Raises:
        ValueError: says which part is not as it should be, and what is allowed.
    """
    words = list(allowed)
    found = dict[str, float]()
    for word, number in _parts(text, words):
        found[word] = _share(word, number)
    if not found:
        raise ValueError(f"found none; allowed: at least one of {', '.join(words)}")
    return found


def sizes_from(text: str) -> dict[tuple[int, int], float]:
    """Read `224=8,640x480=2`: shares by width and height; a size alone has a share of 1.

    Raises:
        ValueError: says which part is not as it should be, and what is allowed.
    """
    found = dict[tuple[int, int], float]()
    for part in text.split(","):
        word, sign, number = (piece.strip() for piece in part.partition("="))
        size = sides(word)
        if size in found:
            raise ValueError(f"{word}: found twice; allowed: once")
        if len(found) == _SIZES:
            raise ValueError(f"found more than {_SIZES} sizes; allowed: 1 to {_SIZES}")
        found[size] = _share(word, number if sign else None)
    return found


def times_from(text: str, allowed: Iterable[str]) -> dict[str, float]:
    """Read `control=50,bulk=5000`, or `50` for all; milliseconds, told in seconds.

    Raises:
        ValueError: says which part is not as it should be, and what is allowed.
    """
    words = list(allowed)
    if text.strip() and "=" not in text:
        return dict.fromkeys(words, _time("deadline", text.strip()))
    found = dict[str, float]()
    for word, number in _parts(text, words):
        if number is None:
            raise ValueError(f"{word}: found no time; allowed: {word}=MILLISECONDS")
        found[word] = _time(word, number)
    return found


def _share(word: str, number: str | None) -> float:
    share = 1.0 if number is None else _number(word, number)
    if not 0 < share <= 1e6:
        raise ValueError(f"{word}: found {number}; allowed: above 0, at most 1000000")
    return share


def _time(word: str, text: str) -> float:
    milliseconds = _number(word, text)
    if not 0 < milliseconds <= _LONGEST:
        raise ValueError(f"{word}: found {text} ms; allowed: above 0, at most {_LONGEST}")
    return milliseconds / 1000


def _number(word: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{word}: found {text!r}; allowed: a number") from None


def _parts(text: str, words: Sequence[str]) -> list[tuple[str, str | None]]:
    found = list[tuple[str, str | None]]()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        word, sign, number = (piece.strip() for piece in part.partition("="))
        if word not in words:
            raise ValueError(f"found {word!r}; allowed: {', '.join(words)}")
        if any(word == earlier for earlier, _ in found):
            raise ValueError(f"{word}: found twice; allowed: once")
        found.append((word, number if sign else None))
    return found
