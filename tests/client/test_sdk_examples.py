"""The examples run, and stay as short as they say."""

import ast
import runpy
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


@pytest.fixture
def video(tmp_path: Path) -> str:
    """A video of eight frames."""
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(8):
            picture = np.full((48, 64, 3), 20 * shade, np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        video.mux(stream.encode())
    return str(path)


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


def test_the_robot_camera_fits_on_a_page() -> None:
    assert lines_of_code(EXAMPLE.read_text()) <= 32
