"""The generator's command: makes a training and a test set as LeRobot v3.0 folders.

Workers make episodes, this process writes them in order. Everything goes to a hidden folder first
and is moved into place when both sets are complete, so an interrupted run leaves nothing behind.
"""

import argparse
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tabletop.families import FAMILIES, NAMES, index_of
from tabletop.plan import SPLITS, EpisodeKey, episode_keys
from tabletop.recorder import Recorder
from tabletop.video import Encoding
from tabletop.world import CONTROL_RATE, ROBOT, describe, features

if TYPE_CHECKING:  # importing it opens graphics libraries, which only the workers need
    from tabletop.episodes import Episode

EXAMPLES = """\
examples:
  a data set to train on (about a quarter of an hour on two cores):
    python -m tabletop.generate --out data/tabletop
  a quick look at two tasks:
    python -m tabletop.generate --out look --tasks drawer-open,drawer-close \\
        --train-episodes-per-task 2 --test-episodes-per-task 1

tasks:
  """ + "\n  ".join(
    f"{family.name:15s}{'same scene as ' + family.partner if family.partner else ''}".rstrip()
    for family in FAMILIES
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        Exit status: 0 done, 2 wrong arguments, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    out: Path = options.out
    taken = [str(out / split) for split in SPLITS if (out / split).exists()]
    if taken:
        console.print(f"[red]already there: {', '.join(taken)}[/red]; choose another --out")
        return 2
    os.environ.setdefault("MUJOCO_GL", "egl")  # a window-less renderer; the user's choice wins
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa: processes share the cores, not threads
    signal.signal(signal.SIGTERM, _interrupt)

    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=out) as partial:
            _generate(options, Path(partial), console)
            for split in SPLITS:
                (Path(partial) / split).rename(out / split)
    except KeyboardInterrupt:
        if not existed:
            out.rmdir()
        console.print("interrupted: nothing was kept")
        return 130
    console.print(f"done in {(time.monotonic() - began) / 60:.1f} min: {out}/train, {out}/test")
    return 0


def _generate(options: argparse.Namespace, root: Path, console: Console) -> None:
    """Write both splits under `root`."""
    counts = {
        "train": options.train_episodes_per_task,
        "test": options.test_episodes_per_task,
    }
    pool = ProcessPoolExecutor(
        options.processes, get_context("spawn"), initializer=_ignore_interrupts
    )
    progress = Progress(
        TextColumn("{task.description:6s}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes, {task.fields[frames]} frames, {task.fields[failures]} failures"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    try:
        with progress:
            for split, count in counts.items():
                keys = episode_keys(options.seed, split, options.tasks, count)
                bar = progress.add_task(split, total=len(keys), frames=0, failures=0)
                _write_split(options, root / split, keys, pool, progress, bar)
    except KeyboardInterrupt:
        console.print("stopping: the episodes under way are finished first")
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write_split(
    options: argparse.Namespace,
    root: Path,
    keys: list[EpisodeKey],
    pool: ProcessPoolExecutor,
    progress: Progress,
    bar: TaskID,
) -> None:
    split = keys[0].split
    encoding = Encoding(quality=options.crf)
    attempts: dict[int, list[int]] = defaultdict(list)
    frames = 0
    with Recorder(
        root,
        rate=CONTROL_RATE,
        features=features(options.size),
        robot_type=ROBOT,
        split=split,
        encoding=encoding,
    ) as recorder:
        for key, episode in _in_order(pool, keys, options):
            recorder.add_episode(episode.columns, episode.instruction)
            attempts[key.family].append(episode.attempts)
            frames += len(episode.columns["action"])
            failures = sum(sum(tries) - len(tries) for tries in attempts.values())
            progress.update(bar, advance=1, frames=frames, failures=failures)
    record = describe(
        split=split,
        seed=options.seed,
        size=options.size,
        noise=options.noise,
        wander=options.wander,
        held_out_look=options.held_out_look,
        encoding=encoding,
        command=_command(options),
        attempts=attempts,
    )
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (root / "meta" / "world.json").write_text(text + "\n", encoding="utf-8")


def _in_order(
    pool: ProcessPoolExecutor, keys: list[EpisodeKey], options: argparse.Namespace
) -> Iterator[tuple[EpisodeKey, "Episode"]]:
    """Episodes in the order of their keys; only a few wait in memory."""
    waiting: deque[tuple[EpisodeKey, Future[Episode]]] = deque()
    for key in keys:
        asked = (options.size, options.noise, options.wander, options.held_out_look)
        work = pool.submit(_make, key, *asked)
        waiting.append((key, work))
        if len(waiting) > 4 * options.processes:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def _make(
    key: EpisodeKey, size: int, noise: float, wander: float, held_out_look: bool
) -> "Episode":
    """Runs in a worker."""
    from tabletop.episodes import make_episode

    return make_episode(key, size, noise, wander, held_out_look)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the whole process group; the parent alone decides what to do about it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """Let SIGTERM clean up as Ctrl-C does."""
    raise KeyboardInterrupt


def _command(options: argparse.Namespace) -> str:
    """The command that makes the same data again, with a placeholder for the folder."""
    words = ["python", "-m", "tabletop.generate", "--out", "DIR"]
    for name, value in sorted(vars(options).items()):
        if name not in ("out", "processes", "tasks", "held_out_look"):
            words += [f"--{name.replace('_', '-')}", str(value)]
    if options.held_out_look:
        words.append("--held-out-look")
    if options.tasks != tuple(range(len(FAMILIES))):
        words += ["--tasks", ",".join(NAMES[index] for index in options.tasks)]
    return shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tabletop.generate",
        description="Make episodes of a scripted expert in Meta-World, seen by a moving camera, "
        "as two LeRobot v3.0 folders: DIR/train and DIR/test. Test layouts and test sentences "
        "never occur in training.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--train-episodes-per-task",
        type=_positive,
        default=88,
        metavar="N",
        help="training episodes of each task (default %(default)s)",
    )
    parser.add_argument(
        "--test-episodes-per-task",
        type=_positive,
        default=12,
        metavar="N",
        help="test episodes of each task, on held-out layouts (default %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=_natural,
        default=0,
        help="everything random follows from it (default %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=_even,
        default=96,
        metavar="PIXELS",
        help="side of the square pictures, even (default %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=_positive,
        default=2,
        metavar="N",
        help="worker processes; the data do not depend on it (default %(default)s)",
    )
    parser.add_argument(
        "--noise",
        type=_magnitude,
        default=0.0,
        metavar="SIGMA",
        help="standard deviation of noise added to the expert's displacements, whose range is "
        "[-1, 1]; what is recorded is what was carried out (default %(default)s)",
    )
    parser.add_argument(
        "--wander",
        type=_magnitude,
        default=0.0,
        metavar="SHARE",
        help="share of stretches of ten steps in which the hand goes anywhere; above 0 an episode "
        "need not succeed (default %(default)s)",
    )
    parser.add_argument(
        "--held-out-look",
        action="store_true",
        help="tables and floors have rings or dots, which no episode has without this: to measure "
        "on a look that was never trained on",
    )
    parser.add_argument(
        "--crf",
        type=_natural,
        default=18,
        metavar="Q",
        help="H.264 quality: 18 looks like the original, 28 is small (default %(default)s)",
    )
    parser.add_argument(
        "--tasks",
        type=_tasks,
        default=tuple(range(len(FAMILIES))),
        metavar="NAME,NAME…",
        help="only these tasks (default: all, listed below)",
    )
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def _natural(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{number} is below 0")
    return number


def _even(text: str) -> int:
    if (number := _positive(text)) % 2:
        raise argparse.ArgumentTypeError(f"{number} is odd; the video format needs even sides")
    return number


def _magnitude(text: str) -> float:
    if not 0 <= (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{number} is outside [0, 1]")
    return number


def _tasks(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({index_of(name) for name in text.split(",")}))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
