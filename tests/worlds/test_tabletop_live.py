"""The world that is acted in from outside: what it says to what it is told."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tabletop.live import answered


@dataclass
class Seen:
    """As reaching has it."""

    frame: NDArray[np.uint8]
    offset: tuple[float, float, float]


class Line:
    """A world in which the first number of an action moves the hand along a line."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self.place = 0.0

    def begin(self, seed: int, number: int) -> tuple[Seen, NDArray[np.uint8]]:
        self.begun.append((seed, number))
        self.place = 0.0
        return self._seen(), np.full((2, 2, 3), 9, np.uint8)

    def act(self, actions: NDArray[np.float32]) -> Seen:
        self.place += float(actions[:, 0].sum())
        return self._seen()

    def _seen(self) -> Seen:
        return Seen(np.full((2, 2, 3), int(self.place), np.uint8), (5 - self.place, 0.0, 0.0))


def told(*lines: str, world: Line | None = None) -> list[Any]:
    return [json.loads(answer) for answer in answered(lines, world or Line(), 7)]


def picture(packed: str) -> list[int]:
    return list(base64.b64decode(packed))


def test_an_episode_begins_with_what_is_seen_and_the_goal() -> None:
    world = Line()

    (answer,) = told('{"begin": 3}', world=world)

    assert world.begun == [(7, 3)]
    assert answer.keys() == {"frame", "goal", "side", "offset"}
    assert (answer["side"], answer["offset"]) == (2, [5, 0, 0])
    assert picture(answer["frame"]) == [0] * 12
    assert picture(answer["goal"]) == [9] * 12


def test_what_is_done_is_seen() -> None:
    _, answer = told('{"begin": 0}', '{"act": [[1, 0, 0, 0], [2, 0, 0, 0]]}')

    assert answer.keys() == {"frame", "side", "offset"}
    assert picture(answer["frame"]) == [3] * 12
    assert answer["offset"][0] == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hello", "Expecting value"),
        ("[]", "one of begin and act is needed"),
        ("{}", "one of begin and act is needed"),
        ('{"dance": 1}', "begin comes first"),
        ('{"act": [[1, 2]]}', "found shape [1, 2]"),
        ('{"act": []}', "found shape [0]"),
        ('{"act": [["a", 0, 0, 0]]}', "could not convert"),
        ('{"act": [[NaN, 0, 0, 0]]}', "finite numbers"),
        ('{"begin": null}', "int()"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_world_goes_on(line: str, words: str) -> None:
    _, wrong, right = told('{"begin": 0}', line, '{"act": [[1, 0, 0, 0]]}')

    assert words in wrong["error"]
    assert right["offset"][0] == 4


def test_nothing_is_done_before_an_episode_begins() -> None:
    (answer,) = told('{"act": [[1, 0, 0, 0]]}')

    assert answer == {"error": "begin comes first, then act"}
