"""README's lines, as printed: a reader who pastes one gets what it promises."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import typer
from tests.bundles import picture, png
from tests.checkout import ROOT
from tests.cli.running import PATIENCE
from tests.journeys.product import Up, tectum

from tectum_cli.app import app
from tectum_train import recipes
from tectum_train.recipe import Recipe, read_recipe

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
LINES = [
    line.partition(" #")[0].strip()
    for language, block in BLOCKS
    if language != "python"
    for line in block.replace("\\\n", " ").splitlines()
]
PROSE = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
INLINE = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", PROSE)]
EXAMPLES = ROOT / "client" / "examples"


def starting(word: str, *places: list[str]) -> list[str]:
    """Commands that start with a word."""
    return list(
        dict.fromkeys(line for place in places for line in place if line.startswith(f"{word} "))
    )


CURL, MAKE = starting("curl", LINES), starting("make", LINES, INLINE)
SOURCE = starting("source", LINES)
TECTUM = starting("tectum", LINES, INLINE)
CONTAINERS = starting("docker", LINES)
"""Tried by `make images-test`, which needs an engine for them."""


def test_every_line_of_the_readme_is_of_a_kind_that_is_tried_here() -> None:
    assert set(LINES) - {""} <= {*CURL, *MAKE, *SOURCE, *TECTUM, *CONTAINERS}
    assert CURL
    assert MAKE
    assert TECTUM


# ---------------------------------------------------------------- what must come first


def test_the_command_is_on_the_path_before_it_is_used(tmp_path: Path) -> None:
    (line,) = SOURCE
    (folder,) = re.findall(r"^VENV := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line == f"source {folder}/bin/activate"
    assert LINES.index(line) < min(map(LINES.index, starting("tectum", LINES)))

    done = subprocess.run(
        ["bash", "-c", f"{line.replace(folder, sys.prefix)} && command -v tectum"],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == Path(sys.prefix) / "bin" / "tectum"


def test_what_is_trained_on_is_made_before() -> None:
    (train,) = (line for line in TECTUM if "--publish" in line)
    recipe = read_recipe(shlex.split(train)[2], ())

    assert LINES.index("make world") < LINES.index(train)
    makefile = (ROOT / "Makefile").read_text()
    (out,) = re.findall(r"cd worlds && .* --out \.\./(\S+)$", makefile, re.MULTILINE)
    assert (recipe.data.train, recipe.data.test) == (f"{out}/train", f"{out}/test")


def test_nothing_is_installed_from_an_index_that_does_not_have_it() -> None:
    sources = re.findall(r"pip install (\S+?)`", README)

    assert sources
    assert all(source.strip("'").startswith(".") for source in sources)


# ---------------------------------------------------------------- Call it


def test_the_python_lines_do_what_their_comments_say(
    product: Up, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = (block for language, block in BLOCKS if language == "python")
    # A busy machine may take longer than a robot can wait.
    source = source.replace("127.0.0.1:50051", product.worker).replace("5.0)", f"{PATIENCE})")
    found: dict[str, Any] = {}
    monkeypatch.chdir(ROOT)

    exec(compile(source, "README.md", "exec"), found)

    (width,) = re.findall(r"float32\[1, (\d+)\]", README)
    assert found["vectors"].vectors.shape == (1, int(width))
    assert found["vectors"].vectors.dtype == np.float32
    assert f"{found['interval']} s, five frames" in source
    assert found["later"] == 5
    (steps,) = re.findall(r"of the (\d+) steps between", source)
    assert len(found["change"].decoded_actions) == int(steps)
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{len(found['frames']) - 1} ok")


@pytest.mark.parametrize("line", CURL)
def test_the_curl_lines_are_answered(product: Up, line: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (tmp_path / "frame.png").write_bytes(png(picture()))

    done = subprocess.run(
        ["bash", "-c", line.replace("localhost:8000", product.gateway)],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert "detail" not in answer, answer
    assert "info" in answer or answer["data"]
    if "right_given_left" in answer:
        (row,) = answer["right_given_left"]
        assert len(row) > 1, "one alone is as likely as can be, whatever it is"


def test_the_robots_example_streams_a_video_to_it(product: Up, tmp_path: Path) -> None:
    said = (EXAMPLES / "README.md").read_text()
    (line,) = re.findall(r"^python (robot_camera.*)$", said, re.MULTILINE)
    (film,) = re.findall(r"^FILM=(\S+)$", said, re.MULTILINE)
    assert (EXAMPLES / film).is_file()
    with av.open(str(tmp_path / "video.mp4"), "w") as video:
        stream = video.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for seed in range(8):
            frame = av.VideoFrame.from_ndarray(picture(seed, 48, 64), format="rgb24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    line = line.replace("127.0.0.1:50051", product.worker).replace("$FILM", "video.mp4")
    script, *arguments = line.split()

    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    *frames, last = done.stdout.splitlines()
    assert frames
    assert all(line.startswith("frame ") for line in frames)
    assert len(frames) + int(last.removeprefix("gave way to newer frames: ").split()[0]) == 8, (
        "each frame is answered or gave way"
    )


# ---------------------------------------------------------------- Two commands


@pytest.mark.parametrize("line", MAKE)
def test_make_knows_what_it_is_asked_for(line: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    _, verb, *rest = line.split(" ", 2)
    changes = re.findall(r"[A-Z_]+=.*?(?=\s[A-Z_]+=|$)", " ".join(rest))

    done = subprocess.run(
        ["make", "--dry-run", "--always-make", verb, *changes],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert all(change.partition("=")[2] in done.stdout for change in changes)


def test_the_addresses_are_those_that_it_says(product: Up) -> None:
    said = product.running.output
    ports = {"50051": product.port, "8000": product.gateway_port, "9464": product.metrics_port}
    addresses = re.findall(r"(?:http://)?127\.0\.0\.1:(\d+)(/\w+)?`", README)

    assert {port for port, _ in addresses} == set(ports)
    for port, path in addresses:
        assert f"127.0.0.1:{ports[port]}{path}" in said
        if path:
            assert product.http.get(f"http://127.0.0.1:{ports[port]}{path}").status_code == 200
    assert product.http.get("/docs").status_code == 200


# ---------------------------------------------------------------- Train it


@pytest.mark.parametrize("line", TECTUM)
def test_the_command_takes_these_arguments(line: str) -> None:
    group: Any = typer.main.get_command(app)
    _, name, *arguments = shlex.split(line)

    context = group.commands[name].make_context(name, arguments)  # raises what is wrong with them

    assert (context.info_name, context.args) == (name, [])  # nothing is left over


def test_the_recipes_are_listed() -> None:
    assert "tectum train --list" in TECTUM

    done = tectum("train", "--list")

    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in recipes.named())


def test_what_one_line_writes_is_what_the_next_one_reads() -> None:
    (train,) = (shlex.split(line) for line in TECTUM if "--publish" in line)
    (evaluate,) = (shlex.split(line) for line in TECTUM if line.startswith("tectum eval"))
    _, serve = (shlex.split(line) for line in TECTUM if line.startswith("tectum serve"))

    recipe = trained_by(train)

    assert evaluate[2] == bundle_of(recipe)
    assert after("--repository", serve) == after("--publish", train)
    assert after("--model", serve) == [recipe.name]


def test_what_the_first_steps_write_is_what_is_published_and_served() -> None:
    (train,) = (shlex.split(line) for line in TECTUM if "name=first-steps" in line)
    (publish,) = (shlex.split(line) for line in TECTUM if line.startswith("tectum publish"))
    serve, _ = (shlex.split(line) for line in TECTUM if line.startswith("tectum serve"))

    recipe = trained_by(train)

    assert publish[2] == bundle_of(recipe)
    assert after("--repository", serve) == after("--repository", publish)
    assert after("--model", serve) == [recipe.name]


def trained_by(train: list[str]) -> Recipe:
    """What a line of `tectum train` trains."""
    return read_recipe(train[2], after("--set", train))


def bundle_of(recipe: Recipe) -> str:
    """Where a run leaves its bundle."""
    return f"{recipe.output}/{recipe.name}-seed{recipe.seed}/bundle"


def after(flag: str, words: list[str]) -> list[str]:
    """What a flag is given, each time."""
    return [words[place + 1] for place, word in enumerate(words) if word == flag]


def test_every_link_and_file_that_is_named_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    links += [words[words.index("-f") + 1] for words in map(str.split, CONTAINERS) if "-f" in words]

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
