"""The examples run, and stay as short as they say."""

import ast
import io
import re
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.client import fake_answers
from tests.client.fake_worker import FakeWorker

from tectum import Client
from tectum.v1 import model_pb2

EXAMPLES = Path(__file__).parents[2] / "client" / "examples"
EXAMPLE, REACHING = EXAMPLES / "robot_camera.py", EXAMPLES / "reach_a_goal.py"


def lines_of_code(source: str) -> int:
    """Lines that hold code: no blanks, comments or docstrings."""
    tree = ast.parse(source)
    docstrings = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    numbered = enumerate(source.splitlines(), start=1)
    return sum(bool(text.strip()) and number not in docstrings for number, text in numbered)


def film(path: Path, rate: int, frames: int) -> str:
    """A film of so many frames a second, each 20 brighter than the one before."""
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.full((48, 64, 3), 20 * number, np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        video.mux(stream.encode())
    return str(path)


@pytest.fixture
def video(tmp_path: Path) -> str:
    """A video of eight frames, as many a second as the example takes."""
    return film(tmp_path / "video.mp4", 30, 8)


def started(monkeypatch: pytest.MonkeyPatch, *arguments: str, example: Path = EXAMPLE) -> str:
    """What the example says when it is started so, and gives up."""
    monkeypatch.setattr(sys, "argv", [str(example), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(example), run_name="__main__")
    return str(ended.value.code)


def test_the_robot_camera_streams_a_video(
    worker: FakeWorker, video: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(EXAMPLE))["main"](video, worker.address)

    printed = capsys.readouterr().out.splitlines()
    assert re.match(r"frame 0 ok age \d+ ms norm 1\.000", printed[0])
    assert "latent" in printed[1]
    assert "over 0.0" in printed[1]
    dropped = int(printed[-1].removeprefix("gave way to newer frames: ").split()[0])
    assert len(printed) - 1 + dropped == 8


def test_the_robot_camera_asks_for_nothing_that_the_model_lacks(
    worker: FakeWorker, video: str, capsys: pytest.CaptureFixture[str]
) -> None:
    worker.models["tiny"].capabilities[:] = [model_pb2.CAPABILITY_PREDICT_LATENT_ACTIONS]

    runpy.run_path(str(EXAMPLE))["main"](video, worker.address)

    printed = capsys.readouterr().out
    assert "norm" not in printed
    assert "latent" in printed


def test_the_robot_camera_sees_a_film_in_the_films_own_time(tmp_path: Path) -> None:
    path = film(tmp_path / "fast.mp4", 80, 9)

    seen = list(runpy.run_path(str(EXAMPLE))["camera"](path))

    times = [frame.captured_at - seen[0].captured_at for frame in seen]
    shown = [round(float(frame.image.mean()) / 20) for frame in seen]
    assert shown == [0, 3, 6, 8], "the first frames at or after each thirtieth of a second"
    np.testing.assert_allclose(times, [number / 80 for number in shown], atol=1e-5)


def test_the_robot_camera_says_in_a_line_what_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = "usage: python robot_camera.py video.mp4 [host:port]"

    assert started(monkeypatch) == usage


def test_the_robot_camera_says_in_a_line_which_film_is_missing(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = started(monkeypatch, "nowhere.mp4", worker.address)

    assert said.startswith("robot_camera.py: ")
    assert said.endswith("No such file or directory: 'nowhere.mp4'")


def test_the_robot_camera_fits_on_a_page() -> None:
    robot, _, _ = EXAMPLE.read_text().partition('\nif __name__ == "__main__":')

    assert lines_of_code(robot) <= 32


# ---------------------------------------------------------------- planning


class Lamp:
    """A robot that sees how bright its lamp is, which the first number of an action changes."""

    def __init__(self) -> None:
        self.light, self.acted = 0.0, list[list[list[float]]]()

    def ask(self, begin: int | None = None, act: list[list[float]] | None = None) -> dict[str, Any]:
        if act is not None:
            self.acted.append(act)
            self.light += sum(step[0] for step in act)
        shown = {"frame": self.picture(self.light), "offset": [1 - self.light, 0, 0]}
        return shown if begin is None else {**shown, "goal": self.picture(1.0)}

    @staticmethod
    def picture(light: float) -> np.ndarray:
        return np.full((2, 2, 3), round(255 * min(max(light, 0), 1)), np.uint8)


def test_the_cross_entropy_method_finds_what_scores_least() -> None:
    example, target = runpy.run_path(str(REACHING)), np.array([0.5, -0.25, 0.75, -1.0])

    def score(candidates: np.ndarray) -> Any:
        return np.square(candidates[:, :4].mean(axis=1) - target).sum(axis=1)

    found = example["plan"](score, 4, np.random.default_rng(0))

    assert found.shape == (4, 4)
    assert (found == found[0]).all(), "one interval's actions are alike"
    assert score(found[None])[0] < 0.1 * score(np.array([[[0, 0, 0, -1]]]))[0]


def test_a_plan_stays_within_what_the_robot_can_do() -> None:
    example = runpy.run_path(str(REACHING))

    found = example["plan"](
        lambda candidates: -candidates[:, 0, 0] * 1e6, 1, np.random.default_rng(0)
    )

    assert (found >= example["LOW"]).all()
    assert (found <= example["HIGH"]).all()
    assert found[0, 0] > 0.9


def test_reaching_acts_on_what_the_worker_foresees(worker: FakeWorker) -> None:
    example, robot = runpy.run_path(str(REACHING)), Lamp()

    with Client(worker.address) as client:
        way = example["reach"](robot, 0, 2, partial(example["decide"], client, 1))

    assert len(way) == example["DECISIONS"] + 1
    assert way[-1] < 0.7 * way[0]
    requests = [seen.request for seen in worker.seen]
    assert [len(request.frames) for request in requests[:: example["ROUNDS"]]] == [
        1,
        *[2] * (example["DECISIONS"] - 1),
    ]
    assert not requests[0].HasField("past_actions")
    past = fake_answers.array(requests[-1].past_actions).astype(float)
    np.testing.assert_allclose(past, np.array(robot.acted[-2]), rtol=1e-6)


def test_a_model_that_reads_no_actions_cannot_be_planned_with(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.models["tiny"].input.ClearField("world_model")
    monkeypatch.setattr(subprocess, "Popen", StillBorn)

    said = started(monkeypatch, worker.address, example=REACHING)

    assert said.endswith("this model has no world model that reads the robot's own actions")


class StillBorn:
    """A program that is never asked anything."""

    def __init__(self, *_: object, **__: object) -> None:
        self.stdin, self.stdout = io.BytesIO(), io.BytesIO()

    def wait(self) -> int:
        return 0


def test_a_robot_that_has_ended_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", StillBorn)
    example = runpy.run_path(str(REACHING))

    with example["Robot"]() as robot, pytest.raises(ValueError, match="the robot has ended"):
        robot.ask(begin=0)
