"""Model-predictive control: reach what a picture shows, by asking what would be seen.

    python reach_a_goal.py [host:port] [episodes]

The cross-entropy method draws actions, asks the worker's world model what each would lead to if it
were held, and how far that is from the goal's picture, and draws again around the best. The outcome
is carried out for an interval, then all begins anew with what is seen now. The robot is a
simulated one: worlds/README.md in the checkout says how to install it.

Source: V-JEPA 2-AC (arXiv:2506.09985), section 3.2.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, Self, cast

import numpy as np

from tectum import Client, TectumError, WorldActions

ROOT = Path(__file__).resolve().parents[2]
HORIZON, CANDIDATES, ELITES, ROUNDS = 2, 32, 6, 3
SPREAD, LEAST_SPREAD = 0.5, 0.2
"""Standard deviation of the first round's actions, as goals are nearer than a hand can go; and what
the best leave of it, or a far goal would not be reached."""
DECISIONS = 4
LOW, HIGH = np.array([-1.0, -1.0, -1.0, -1.0]), np.array([1.0, 1.0, 1.0, -1.0])
"""Of an action: where the hand goes, 1 is a centimetre, and a gripper that stays open."""


class Robot:
    """The simulated one, a program of its own: an object of JSON a line, in and out."""

    def __init__(self, python: str = str(ROOT / ".venv-world/bin/python")) -> None:
        self._world = subprocess.Popen(  # noqa: S603 - a program of the checkout's own
            [python, "-m", "tabletop.live"],
            cwd=ROOT / "worlds",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._says = cast("IO[bytes]", self._world.stdout)
        self._hears = cast("IO[bytes]", self._world.stdin)

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Tell it one thing, and read its answer."""
        self._hears.write(f"{json.dumps(asked)}\n".encode())
        self._hears.flush()
        line = self._says.readline() or '{"error": "the robot has ended"}'
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        for name in {"frame", "goal"} & answer.keys():
            pixels = np.frombuffer(base64.b64decode(answer[name]), np.uint8)
            answer[name] = pixels.reshape(answer["side"], answer["side"], 3)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hears.close()
        self._world.wait()
        self._says.close()


def plan(
    score: Callable[[np.ndarray], np.ndarray], each: int, draw: np.random.Generator
) -> np.ndarray:
    """The cross-entropy method.

    Args:
        score: how bad each of float[K, horizon · each, A] is: float[K].
        each: actions of one interval of the model's.
        draw: what it draws with.

    Returns:
        float[each, A], what to do now.
    """
    mean, spread = np.zeros(len(LOW)), np.full(len(LOW), SPREAD)
    for _ in range(ROUNDS):
        drawn = np.clip(mean + spread * draw.normal(size=(CANDIDATES, len(LOW))), LOW, HIGH)
        held = drawn[:, None].repeat(HORIZON * each, axis=1)
        best = drawn[np.argsort(score(held), kind="stable")[:ELITES]]
        mean, spread = best.mean(axis=0), best.std(axis=0).clip(LEAST_SPREAD)
    return mean[None].repeat(each, axis=0)


def decide(
    client: Client,
    each: int,
    seen: dict[str, Any],
    frames: list[np.ndarray],
    done: list[np.ndarray],
    draw: np.random.Generator,
) -> np.ndarray:
    """What to do next, as the world model foresees it: float[each, A]."""
    past = np.concatenate(done) if done else None

    def score(candidates: np.ndarray) -> np.ndarray:
        found = client.rollout(frames, candidates, past_actions=past, goal=seen["goal"])
        return found.goal_distances[:, -1]

    return plan(score, each, draw)


def reach(
    robot: Robot, episode: int, history: int, decision: Callable[..., np.ndarray]
) -> list[float]:
    """One episode; gives the distance to the goal at first and after each decision, metres.

    Args:
        robot: to be moved.
        episode: which one.
        history: frames that a decision looks back on at most.
        decision: as `decide`, from its third argument on.
    """
    draw, seen = np.random.default_rng(episode), robot.ask(begin=episode)
    frames, done = [seen["frame"]], list[np.ndarray]()
    distances = [float(np.linalg.norm(seen["offset"]))]
    for _ in range(DECISIONS):
        done.append(decision(seen, frames, done, draw))
        seen |= robot.ask(act=done[-1].tolist())
        frames = [*frames, seen["frame"]][-history:]
        done = done[len(done) + 1 - len(frames) :]
        distances.append(float(np.linalg.norm(seen["offset"])))
    return distances


def main(address: str = "127.0.0.1:50051", episodes: str = "3") -> None:
    """Reach some goals and print how far away the hand was."""
    with Client(address) as client, Robot() as robot:
        world = client.get_model().input.world_model
        if world is None or world.actions != WorldActions.REAL:
            raise ValueError("this model has no world model that reads the robot's own actions")
        decision = partial(decide, client, world.action_steps)
        for episode in range(int(episodes)):
            way = reach(robot, episode, world.history, decision)
            told = " ".join(f"{100 * distance:.1f}" for distance in way)
            print(f"episode {episode}, centimetres from the goal: {told}")


if __name__ == "__main__":
    if len(sys.argv) > 3:
        sys.exit("usage: python reach_a_goal.py [host:port] [episodes]")
    try:
        main(*sys.argv[1:])
    except (TectumError, OSError, ValueError) as error:
        sys.exit(f"reach_a_goal.py: {error}")
