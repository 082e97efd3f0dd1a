"""A world to act in, for a program in another environment: a JSON object a line, in and out.

    {"begin": 3}                     {"frame": "…", "goal": "…", "side": 96, "offset": [x, y, z]}
    {"act": [[0, 1, 0, -1], …]}      {"frame": "…", "side": 96, "offset": [x, y, z]}

Pictures are base64 of uint8[side, side, 3], RGB. `offset` leads from the hand to its goal, metres;
it is for judging, not for acting. What cannot be done is answered by {"error": "…"}. The end of
standard input ends the program.
"""

import argparse
import base64
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tabletop.families import NAMES

if TYPE_CHECKING:  # importing it opens graphics libraries
    from tabletop.reaching import Seen


class World(Protocol):
    """What is acted in."""

    def begin(self, seed: int, number: int) -> tuple["Seen", NDArray[np.uint8]]:
        """As Reaching.begin."""

    def act(self, actions: NDArray[np.float32]) -> "Seen":
        """As Reaching.act."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0 at the end of standard input."""
    parser = argparse.ArgumentParser(
        prog="python -m tabletop.live",
        description="Reaching, to be acted in: a JSON object a line on standard input and output.",
    )
    parser.add_argument("--task", choices=NAMES, default="button-press", help="whose scene")
    parser.add_argument("--size", type=int, default=96, metavar="PIXELS", help="side of a picture")
    parser.add_argument("--seed", type=int, default=0, help="everything random follows from it")
    options = parser.parse_args(arguments)
    os.environ.setdefault("MUJOCO_GL", "egl")  # a window-less renderer; the user's choice wins
    os.environ.setdefault("LP_NUM_THREADS", "1")
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries greet their users
    from tabletop.reaching import Reaching

    for answer in answered(sys.stdin, Reaching(options.task, options.size), options.seed):
        answers.write(answer + "\n")
        answers.flush()
    return 0


def answered(lines: Iterable[str], world: World, seed: int) -> Iterator[str]:
    """Each line's answer, as JSON."""
    begun = False
    for line in lines:
        try:
            answer = _answer(json.loads(line), world, seed, begun)
        except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
            answer = {"error": str(error)}
        begun = begun or "goal" in answer
        yield json.dumps(answer)


def _answer(asked: Any, world: World, seed: int, begun: bool) -> dict[str, Any]:
    """What is said to one line.

    Raises:
        ValueError: it cannot be done.
    """
    if not isinstance(asked, dict) or len(asked) != 1:
        raise ValueError("one of begin and act is needed")
    if "begin" in asked:
        seen, goal = world.begin(seed, int(asked["begin"]))
        return {**_told(seen), "goal": _packed(goal)}
    if "act" not in asked or not begun:
        raise ValueError("begin comes first, then act")
    return _told(world.act(_actions(asked["act"])))


def _actions(given: Any) -> NDArray[np.float32]:
    actions = np.asarray(given, np.float32)
    if actions.ndim != 2 or actions.shape[1] != 4 or not len(actions):
        raise ValueError(f"act takes lists of 4 numbers, found shape {list(actions.shape)}")
    if not np.isfinite(actions).all():
        raise ValueError("act takes finite numbers")
    return actions


def _told(seen: "Seen") -> dict[str, Any]:
    return {"frame": _packed(seen.frame), "side": len(seen.frame), "offset": list(seen.offset)}


def _packed(picture: NDArray[np.uint8]) -> str:
    return base64.b64encode(picture.tobytes()).decode()


if __name__ == "__main__":
    sys.exit(main())
