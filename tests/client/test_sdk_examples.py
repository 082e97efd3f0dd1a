"""The examples run, and stay as short as they say."""

import ast
import runpy
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from tests.client.fake_worker import FakeWorker

from tectum.v1 import model_pb2

EXAMPLE = Path(__file__).parents[2] / "client" / "examples" / "robot_camera.py"


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


def started(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What the example says when it is started so, and gives up."""
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    return str(ended.value.code)


def test_the_robot_camera_streams_a_video(
    worker: FakeWorker, video: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(EXAMPLE))["main"](video, worker.address)

    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("frame 0 ok age 3 ms norm 1.000")
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
