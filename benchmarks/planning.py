"""Does a world model help to act? Reaching in the simulator, planned over Rollout, and controls.

Each arm is given the same episodes: the same scene, camera, start and goal, none of which was
trained on, as many decisions, and the same stream of random numbers. Starts a worker with the
bundle, and the simulator in its own environment (`make .venv-world/.ready`); prints tables and
writes benchmarks/results/planning.md, and planning.json beside it for the table of `make gates`.
What was acted is kept as it is done: the same command goes on where one was cut off.

    python benchmarks/planning.py --bundle runs/world-model-plan-seed0/bundle [--episodes 40]

- `world model`: client/examples/reach_a_goal.py.
- `copy-last dynamics`: the same planner, over a model in which nothing moves: all candidates tie,
  and which are kept is a matter of the order in which they were drawn.
- `random actions`: drawn anew for each interval, as far as the planner may go.
- `standing still`: the distance at first.
- `straight to the goal`: knows where hand and goal are; what can be reached in so many decisions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

import tectum
from gates_planning import AFTER, Planned, Training, told
from gates_planning import Arm as Judged
from gates_rows import named
from gates_run import Places, identity_with, recipe_of
from machine import commit, heading, machine, today
from served import served
from serving_bare import NAME
from tectum_core.bundle import Repository
from tectum_train.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "client/examples/reach_a_goal.py"
RESULT = ROOT / "benchmarks/results/planning.md"
NEAR = 0.05
"""Metres from the goal that count as reached."""
ENOUGH = 40
"""Episodes from which on a result is written."""
FIRST = 3000
"""Its number, that of none on which the planner's settings were chosen."""
STEP = 0.01
"""Metres that an action of 1 moves the hand, at most."""
PLANNED, STILL, CEILING = "world model", "standing still", "straight to the goal"
CONTROLS = ("copy-last dynamics", "random actions", STILL)
RULE = (
    "PASS: against every control, the mean of the paired differences of the last distances is below"
    " 0, and so is its whole 95 % interval (Student's t)."
)
TRIED = """\
How recipe and planner were chosen, on 5 to 10 other episodes each; distances at first → at the end:

- trained on experts' episodes (`data/tabletop`, 400 steps of 64; held out 0.60 of repeating at
  0.125 s), 10 decisions, an action an interval, horizons 1, 2, 3: 18 → 34, 35, 36 cm;
- trained on 280 and 1,120 wandering episodes, 250 to 1,400 steps of 64, actions as a token of
  their own: 14 → 23 cm and more in 10 decisions; over 40 episodes 15.0 → 16.7 in 4. The model had
  learnt the experts' stretches; where an action was drawn and held its error was 0.78 to 0.96 of
  repeating, on training episodes as on others;
- actions added to every latent, steps of 32, 8,000 of them on the trunk's vectors as they were,
  without augmentation: drawn actions 0.5 of repeating on training episodes and 0.71 to 0.85 on
  others; 14 → 10.7 cm in 4 decisions, then away again: no episode had shown what a hand at rest
  sees;
- so of the table above: 1,680 episodes, whose stretches are slow too, and augmentation. Settings of
  the planner were chosen on 24 other episodes: over eight, horizon 2 from a spread of 0.5 9.3 cm,
  from 1 10.0, horizon 3 11.0; over sixteen, a least spread of 0 9.6 cm, 0.2 9.1, 0.3 10.2. The
  spread counts: over 40 episodes of yet another row (numbers 1000 to 1039) 9.4 cm from 0.5, and
  from 1 13.5, a FAIL;
- a trunk that learns with the world model (`trunk=null`, `encoder: trained`) foresees its own
  latents far better (0.22 of repeating at 0.125 s after 1,000 steps) and plans no better: over
  eight episodes (numbers 2500 to 2507) 10.5 cm, after 2,500 steps 10.0; the embedded trunk after
  4,500 steps 8.4.

What is left: some scenes are read wrongly from the first picture on, and the hand then goes away
from the goal.
"""
Arm = Callable[..., NDArray[np.float64]]
Ways = Mapping[str, Sequence[list[float]]]
"""By arm, each episode's distances to the goal, metres: at first and after each decision."""


def arms(client: tectum.Client, each: int, example: Mapping[str, Any]) -> dict[str, Arm]:
    """What decides, by its name."""
    low, high = example["LOW"], example["HIGH"]

    def nothing_moves(_: Any, __: Any, ___: Any, draw: np.random.Generator) -> Any:
        return example["plan"](lambda candidates: np.zeros(len(candidates)), each, draw)

    def drawn(_: Any, __: Any, ___: Any, draw: np.random.Generator) -> Any:
        return draw.uniform(low, high)[None].repeat(each, axis=0)

    def straight(seen: dict[str, Any], *_: Any) -> Any:
        towards = np.append(np.array(seen["offset"]) / (STEP * each), low[3])
        return np.clip(towards, low, high)[None].repeat(each, axis=0)

    return {
        PLANNED: partial(example["decide"], client, each),
        CONTROLS[0]: nothing_moves,
        CONTROLS[1]: drawn,
        CEILING: straight,
    }


class Kept:
    """What was acted so far: a line of JSON an episode, in a file that belongs to one bundle.

    Args:
        path: the file, made if it is not there.
        of: what its episodes were acted with; its first line.

    Raises:
        SystemExit: it belongs to something else.
    """

    def __init__(self, path: Path, of: dict[str, Any]) -> None:
        self._path = path
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        if lines and json.loads(lines[0]) != of:
            raise SystemExit(f"{path} holds another bundle's or planner's episodes: {lines[0]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.episodes: list[dict[str, list[float]]] = []
        for line in lines[1:]:
            try:
                self.episodes.append(json.loads(line))
            except ValueError:  # cut off while it was written
                break
        path.write_text(
            "".join(json.dumps(one) + "\n" for one in (of, *self.episodes)), encoding="utf-8"
        )

    def add(self, episode: dict[str, list[float]]) -> None:
        """One more: by arm, its way."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(episode) + "\n")
        self.episodes.append(episode)


def act(address: str, episodes: int, kept: Kept, example: Mapping[str, Any]) -> None:
    """Every arm's way in every episode, one episode after another so that all share the moment."""
    with tectum.Client(address) as client, example["Robot"]() as robot:
        world = client.get_model().input.world_model
        if world is None or world.actions != tectum.WorldActions.REAL:
            raise SystemExit("the bundle has no world model that reads the robot's own actions")
        for episode in range(len(kept.episodes), episodes):
            ways = {
                name: example["reach"](robot, FIRST + episode, world.history, arm)
                for name, arm in arms(client, world.action_steps, example).items()
            }
            kept.add(ways)
            ends = ", ".join(f"{name} {100 * way[-1]:.1f}" for name, way in ways.items())
            print(f"episode {episode}: from {100 * ways[PLANNED][0]:.1f} cm to {ends}", flush=True)


def table(ways: Ways) -> str:
    """How near each arm came, and what the planner is ahead of it by."""
    lines = [
        f"| arm | ends within {100 * NEAR:g} cm | distance at the end, cm | world model − it | |",
        "| --- | --- | --- | --- | --- |",
    ]
    planned = [way[-1] for way in ways[PLANNED]]
    for name, found in ways.items():
        ends = [way[-1] for way in found]
        reached = f"{sum(end <= NEAR for end in ends)} of {len(ends)}"
        cells = [name, reached, interval(ends), "", ""]
        if name != PLANNED:
            cells[3] = interval(np.subtract(planned, ends).tolist())
        if name in CONTROLS:
            cells[4] = verdict(planned, ends)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def verdict(planned: Sequence[float], control: Sequence[float]) -> str:
    """By RULE, from the last distances of the same episodes."""
    middle, half = mean_of(np.subtract(planned, control).tolist())
    return "PASS" if middle + half < 0 else "FAIL"


def interval(metres: Sequence[float]) -> str:
    """Mean and 95 % interval, in centimetres."""
    middle, half = mean_of(metres)
    return f"{100 * middle:.1f} [{100 * (middle - half):.1f}, {100 * (middle + half):.1f}]"


def rounded(metres: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and from where to where its 95 % interval goes: centimetres, to a tenth."""
    middle, half = mean_of(metres)
    middle, low, high = (round(100 * one, 1) for one in (middle, middle - half, middle + half))
    return middle, low, high


def mean_of(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % interval by Student's t."""
    spread = stdev(values) / len(values) ** 0.5
    return mean(values), float(t.ppf(0.975, len(values) - 1)) * spread


def ways_of(kept: Kept) -> Ways:
    """Of all arms, those that need not be acted among them, in the order in which they are told."""
    ways = {name: [episode[name] for episode in kept.episodes] for name in kept.episodes[0]}
    ways[STILL] = [[way[0]] for way in ways[PLANNED]]
    return {name: ways[name] for name in (PLANNED, *CONTROLS, CEILING)}


def concluded(ways: Ways) -> str:
    """PASS if it is that against every control."""
    ends = {name: [way[-1] for way in found] for name, found in ways.items()}
    passed = all(verdict(ends[PLANNED], ends[name]) == "PASS" for name in CONTROLS)
    return "PASS" if passed else "FAIL"


def training_of(bundle: Path, places: Places) -> Training | None:
    """The run that a bundle is of, as the row's recipe and what the run has in its place.

    Returns:
        None: the bundle lies in no run's folder, or in another version's.
    """
    path, row = bundle.parent / "recipe.json", named(AFTER)
    try:
        told = Recipe.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = tuple(_changes(_said(recipe_of(row, told.seed, places)), _said(told)))
    return Training(row.recipe, found, told.seed, identity_with(found, told.seed, places))


def _said(recipe: Recipe) -> dict[str, Any]:
    """All that decides what is trained, but for the seed."""
    said = recipe.model_dump(
        mode="json", exclude={"name", "derived_from", "description", "output", "seed"}
    )
    del said["data"]["cache"]
    return said


def _changes(before: dict[str, Any], after: dict[str, Any], within: str = "") -> Iterator[str]:
    """As `tectum train --set` takes them."""
    for key, value in after.items():
        old, path = before.get(key), within + key
        if isinstance(old, dict) and isinstance(value, dict) and old.keys() == value.keys():
            yield from _changes(old, value, f"{path}.")
        elif old != value:
            yield f"{path}={json.dumps(value)}"


def summed_up(
    kept: Kept,
    bundle: str,
    planner: Mapping[str, float],
    trained: Training | None = None,
) -> Planned:
    """The numbers of the table, for the one of `make gates`."""
    ways, arms = ways_of(kept), list[Judged]()
    planned = [way[-1] for way in ways[PLANNED]]
    for name, found in ways.items():
        ends = [way[-1] for way in found]
        ahead = None if name == PLANNED else rounded(np.subtract(planned, ends).tolist())
        held = verdict(planned, ends) if name in CONTROLS else ""
        arms.append(Judged(name, sum(end <= NEAR for end in ends), rounded(ends), ahead, held))
    return Planned(
        machine(), commit(), today(), bundle, dict(planner), len(planned), 100 * NEAR,
        tuple(arms), concluded(ways), trained,
    )  # fmt: skip


def report(kept: Kept, planner: str) -> str:
    """The result, as Markdown."""
    ways = ways_of(kept)
    passed = concluded(ways) == "PASS"
    return "\n".join(
        [
            heading("Planning over a world model"),
            f"{len(kept.episodes)} paired episodes of reaching in scenes, cameras and colours "
            f"never trained on, {len(ways[PLANNED][0]) - 1} decisions each. {planner}\n",
            table(ways),
            "Means with 95 % intervals; differences are of the same episodes. "
            f"{RULE} Verdict: **{'PASS' if passed else 'FAIL'}**.\n",
            TRIED,
        ]
    )


def main() -> int:
    """Act, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--keep", type=Path, default=ROOT / "runs/planning", help="what was acted")
    given = parser.parse_args()
    if given.episodes < 2:
        parser.error("an interval takes at least 2 episodes")
    example = runpy.run_path(str(EXAMPLE))
    sizes = ("HORIZON", "SPREAD", "LEAST_SPREAD", "CANDIDATES", "ELITES", "ROUNDS", "DECISIONS")
    settings = {name.lower().replace("_", " "): example[name] for name in sizes}
    trained = training_of(given.bundle, Places(runs=ROOT / "benchmarks/runs"))
    acted_by = (EXAMPLE, *sorted((ROOT / "worlds/tabletop").glob("*.py")))
    source = hashlib.sha256(b"".join(path.read_bytes() for path in acted_by)).hexdigest()[:12]
    with tempfile.TemporaryDirectory() as folder:
        version = Repository(folder).publish(given.bundle, NAME)
        kept = Kept(
            given.keep / f"{version}-{source}.jsonl",
            {"bundle": version, "first": FIRST, "source": source, **settings},
        )
        with served(Path(folder), NAME) as worker:
            act(worker.address, given.episodes, kept, example)
    planner = ", ".join(f"{value} {name}" for name, value in settings.items())
    text = report(kept, f"Bundle {version}, {told(trained)}; cross-entropy method: {planner}.")
    print(text)
    if len(kept.episodes) < ENOUGH:
        print(f"{len(kept.episodes)} episodes are too few for {RESULT}: {ENOUGH} are")
        return 0
    RESULT.write_text(text, encoding="utf-8")
    summary = summed_up(kept, version, settings, trained).as_json()
    RESULT.with_suffix(".json").write_text(summary, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
