"""Whether the images do what they are for, hardened as compose.yaml hardens them.

Builds them with scripts/images.sh, starts worker and gateway in a private network without a way
out, calls them from a third container, stops them, and trains two steps. Prints what it found and
exits 1 if any check fails. What it started is gone afterwards. `make images-test` calls it.

    python docker/check_images.py [--no-build] [--report FILE.md]

ENGINE, DEVICE, TORCH_INDEX, PYTHON_IMAGE, TAG and BUILD_ARGS mean what scripts/images.sh says.
RUN_ARGS are further arguments for every container, split at blanks: "--gpus all".
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import yaml

from engine import Engine, Failed, Room, until

ROOT = Path(__file__).parents[1]
IMAGES = ("worker", "gateway", "train")
COMPILERS = "cc gcc c++ g++ clang tcc nvcc"
WRITE = """
import errno
try:
    open("/opt/tectum/written", "w")
except OSError as error:
    print(errno.errorcode[error.errno])
else:
    print("written")
"""


class Check(NamedTuple):
    """One line of the report."""

    image: str
    what: str
    passed: bool
    seen: str


class Report:
    """What was found, in the order in which it was."""

    def __init__(self) -> None:
        self.images: list[Sequence[str]] = []
        self.checks: list[Check] = []

    def add(self, image: str, what: str, passed: bool, seen: str) -> None:
        """Note a check, and say so at once."""
        self.checks.append(Check(image, what, passed, " ".join(seen.split())))
        print(f"{'PASS' if passed else 'FAIL'}  {image}: {what} ({seen})", flush=True)

    def check(self, image: str, what: str, run: Callable[..., str], *given: object) -> bool:
        """Run a check that says what it saw, or raises Failed; whether it passed."""
        try:
            seen = run(*given)
        except Failed as error:
            self.add(image, what, False, str(error))
            return False
        self.add(image, what, True, seen)
        return True

    @property
    def passed(self) -> bool:
        """Whether everything did."""
        return all(check.passed for check in self.checks)

    def markdown(self) -> str:
        """Both tables."""
        images = table(("image", "size", "build"), self.images)
        checks = [
            (check.image, check.what, "PASS" if check.passed else "FAIL", check.seen)
            for check in self.checks
        ]
        return f"{images}\n{table(('image', 'check', 'result', 'seen'), checks)}"


def main() -> None:
    """Build, check, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--no-build", action="store_true", help="check the images that are there")
    parser.add_argument("--report", type=Path, help="also write the tables to this Markdown file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is removed

    names = {image: script("--name", image) for image in IMAGES}
    engine = Engine(runner(script("--engine")), os.environ.get("RUN_ARGS", "").split())
    report = Report()
    for image, name in names.items():
        took = "not built" if options.no_build else f"{build(image) / 60:.1f} min"
        report.images.append((name, f"{engine.size(name) / 1e6:.0f} MB", took))
    try:
        serving(report, engine, names)
        training(report, engine, names["train"])
    except Failed as error:
        report.add("all", "the engine does as told", False, str(error))
    report.check("gateway", "has no torch", no_torch, engine, names["gateway"])
    for image, name in names.items():
        report.check(image, "has no compiler", no_compiler, engine, name)

    print(f"\n{report.markdown()}")
    if options.report:
        options.report.write_text(f"{heading(engine)}\n{report.markdown()}", encoding="utf-8")
    sys.exit(not report.passed)


def serving(report: Report, engine: Engine, names: dict[str, str]) -> None:
    """Worker and gateway side by side, from their start to their end."""
    with Room(engine, f"tectum-check-{os.getpid()}") as room:
        begun = time.monotonic()
        worker = room.start(names["worker"], "worker", TECTUM_ALLOW_ANONYMOUS="1")
        gateway = room.start(names["gateway"], "gateway", TECTUM_WORKER="worker:50051")
        for image, container in (("worker", worker), ("gateway", gateway)):
            if not report.check(image, "becomes healthy", healthy, engine, container, begun):
                return
        for image, container in (("worker", worker), ("gateway", gateway)):
            harmless(
                report,
                image,
                partial(engine.do, "exec", container),
                partial(engine.do, "exec", "--user", "0", container),
            )
        report.check(
            "gateway", "can be called from its network", probe, report, room, names["gateway"]
        )
        report.check("worker", "ends with 0 on SIGTERM", ended, engine, "worker", worker)
        report.check("gateway", "is unhealthy without its worker", unhealthy, engine, gateway)
        report.check("gateway", "ends with 0 on SIGTERM", ended, engine, "gateway", gateway)


def training(report: Report, engine: Engine, image: str) -> None:
    """Two steps on the embedded world, which the container may only read."""
    place = ("--network", "none", "--tmpfs", "/tectum")
    harmless(
        report,
        "train",
        partial(engine.once, image, options=place),
        partial(engine.once, image, options=(*place, "--user", "0")),
    )
    world = ("--volume", f"{ROOT / 'worlds' / 'embedded'}:/data:ro")
    report.check("train", "trains two steps", two_steps, engine, image, (*place, *world))


def two_steps(engine: Engine, image: str, options: Sequence[str]) -> str:
    """Train the embedded model's recipe, only shorter; Failed unless a bundle comes of it."""
    changes = ("data.train=/data/train", "data.test=/data/test", "schedule.steps=2",
               "schedule.warmup_steps=1", "schedule.batch_size=8")  # fmt: skip
    settings = [word for change in changes for word in ("--set", change)]
    said = engine.once(
        image, "tectum", "train", "tectum-tiny", "--no-evaluate", *settings,
        options=options, seconds=900,
    )  # fmt: skip
    if not re.search(r"^bundle \w+ in ", said, re.MULTILINE):
        raise Failed(f"it said {said[-300:]}")
    return said.splitlines()[-1]


def harmless(
    report: Report, image: str, inside: Callable[..., str], as_root: Callable[..., str]
) -> None:
    """What its process may not do, by the kernel's own account; `as_root` as its strongest user."""
    report.check(image, "runs without any right", rights, inside)
    report.check(image, "has a read-only root", unwritable, as_root)


def unwritable(as_root: Callable[..., str]) -> str:
    """As root, so that what refuses is the read-only file system and not the file's owner."""
    found = as_root("python", "-c", WRITE)
    if found != "EROFS":
        raise Failed(f"writing into the image: {found}")
    return found


def rights(inside: Callable[..., str]) -> str:
    """The user of its first process; Failed if that is root or can become it."""
    status = inside("cat", "/proc/1/status")
    found = dict(line.split(":", 1) for line in status.splitlines())
    users = set(found["Uid"].split())
    if "0" in users:
        raise Failed(f"user ids {' '.join(sorted(users))}")
    for name in ("CapPrm", "CapEff", "CapBnd"):
        if int(found[name], 16):
            raise Failed(f"{name} is {found[name].strip()}")
    if found["NoNewPrivs"].strip() != "1":
        raise Failed("it may gain privileges")
    return f"user {users.pop()}, no capability"


def healthy(engine: Engine, container: str, begun: float) -> str:
    """Wait for the image's own HEALTHCHECK; how long the container took since `begun`."""
    until(lambda: engine.healthy(container), 180, "healthy")
    return f"after {time.monotonic() - begun:.0f} s"


def unhealthy(engine: Engine, container: str) -> str:
    """Wait until HEALTHCHECK fails; how long that took."""
    begun = time.monotonic()
    until(lambda: not engine.healthy(container), 60, "unhealthy")
    return f"after {time.monotonic() - begun:.0f} s"


def probe(report: Report, room: Room, image: str) -> str:
    """Run probe.py in the gateway's image, inside the network, and note each of its checks."""
    read = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text(encoding="utf-8"))
    targets = [target for job in read["scrape_configs"]
               for group in job["static_configs"] for target in group["targets"]]  # fmt: skip
    said = room.engine.once(
        image, "python", "-", *targets,
        options=("--network", room.name),
        given=(ROOT / "docker" / "probe.py").read_text(encoding="utf-8"),
        seconds=300,
    )  # fmt: skip
    found = [json.loads(line) for line in said.splitlines()]
    for one in found:
        report.add(**one)
    return f"{len(found)} checks"


def grace(service: str) -> int:
    """Seconds that compose.yaml gives a service to finish; without its word, Compose gives ten."""
    read = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    return int(read["services"][service].get("stop_grace_period", "10s").removesuffix("s"))


def ended(engine: Engine, service: str, container: str) -> str:
    """Ask it to stop as Compose would; Failed unless it finishes by itself, and well."""
    begun = time.monotonic()
    code = engine.stop(container, grace(service))
    if code:
        raise Failed(f"ended with {code}")
    return f"in {time.monotonic() - begun:.0f} s"


def no_torch(engine: Engine, image: str) -> str:
    """Failed if torch can be imported."""
    program = "import importlib.util; print(importlib.util.find_spec('torch'))"
    found = engine.once(image, "python", "-c", program, options=("--network", "none"))
    if found != "None":
        raise Failed(found)
    return "not importable"


def no_compiler(engine: Engine, image: str) -> str:
    """Failed if any of COMPILERS is on the path."""
    program = f"for name in {COMPILERS}; do command -v $name; done; true"
    found = engine.once(image, "sh", "-c", program, options=("--network", "none"))
    if found:
        raise Failed(found)
    return f"none of {COMPILERS}"


def script(*arguments: str) -> str:
    """What scripts/images.sh says; its complaint is ours."""
    done = subprocess.run(
        [ROOT / "scripts" / "images.sh", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.strip()


def build(image: str) -> float:
    """Build one image, its log going where ours goes; the seconds it took."""
    begun = time.monotonic()
    done = subprocess.run([ROOT / "scripts" / "images.sh", image], check=False)
    if done.returncode:
        sys.exit(f"images: {image} was not built")
    return time.monotonic() - begun


def runner(builder: str) -> str:
    """The engine that runs what `builder` built; buildah itself runs nothing."""
    if Path(builder).name != "buildah":
        return builder
    return shutil.which("podman") or sys.exit("images: buildah builds, but podman runs: install it")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that reads well as plain text."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    cells = [
        [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)] for line in lines
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def heading(engine: Engine) -> str:
    """What a result is quoted with: machine, engine, commit, date, command."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    command = shlex.join(["python", *sys.argv])
    processor = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text("utf-8"))
    return (
        f"# Images\n\n{processor[1] if processor else platform.machine()}, {os.cpu_count()} cores; "
        f"{engine.do('--version')}; commit {described.stdout.strip() or 'unknown'}, "
        f"{datetime.now(UTC):%Y-%m-%d}; `{command}`\n"
    )


if __name__ == "__main__":
    main()
