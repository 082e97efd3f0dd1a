"""`tectum publish`: what proves itself is published and can be served, and nothing else is."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.cli.running import Worker, invoke
from tests.training.tiny import write_untrained_bundle

from tectum import Client
from tectum_core.bundle import Repository
from tectum_core.bundle.files import content_version


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of a run that was called first-steps."""
    folder = tmp_path / "run of one" / "bundle"
    folder.parent.mkdir()
    write_untrained_bundle(folder)
    return called(folder, "first-steps")


def called(folder: Path, name: str) -> Path:
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    tree["training"]["recipe"] = name
    path.write_text(json.dumps(tree))
    return folder


def refused(bundle: Path, *arguments: object) -> str:
    repository = bundle.parent / "models"
    result = invoke("publish", bundle, "--repository", repository, *arguments)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert not repository.exists()
    return result.stderr


def test_a_bundle_is_published_and_the_line_that_is_printed_serves_it(
    bundle: Path, tmp_path: Path
) -> None:
    repository, version = tmp_path / "models of one", content_version(bundle)

    result = invoke("publish", bundle, "--repository", repository)

    assert result.exit_code == 0, result.output
    proved, published, line = result.stdout.splitlines()
    assert proved.startswith("reproduces its ")
    assert published == f"published first-steps@{version} to {repository}"
    assert Repository(repository).latest("first-steps") == version
    command = shlex.split(line.removeprefix("serve it: "))
    assert command[:2] == ["tectum", "serve"]
    given = dict(zip(command[2::2], command[3::2], strict=True))
    served = Worker(Path(given["--repository"]), given["--model"])
    with served as worker, Client(worker.address) as client:
        assert client.get_model("first-steps").version == version


def test_a_runs_folder_stands_for_the_bundle_in_it(bundle: Path, tmp_path: Path) -> None:
    result = invoke("publish", bundle.parent, "--repository", tmp_path / "models")

    assert result.exit_code == 0, result.output
    assert f"published first-steps@{content_version(bundle)} to " in result.stdout


def test_it_can_be_called_otherwise(bundle: Path, tmp_path: Path) -> None:
    result = invoke("publish", bundle, "--repository", tmp_path / "models", "--name", "second")

    assert result.exit_code == 0, result.output
    assert Repository(tmp_path / "models").names() == ["second"]
    assert "--model second\n" in result.stdout


def test_what_does_not_reproduce_its_golden_outputs_is_not_published(bundle: Path) -> None:
    path = bundle / "golden.safetensors"
    golden = load_file(path)
    with safe_open(path, framework="pt") as file:
        texts = file.metadata()
    save_file({**golden, "output/pooled": golden["output/pooled"] + 1}, path, texts)

    assert "does not reproduce its golden outputs here" in refused(bundle)


def test_a_folder_that_is_no_bundle_is_not_published(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()

    assert "holds no bundle: config.json is missing; allowed: the folder of a" in refused(empty)
    assert "nowhere is not there; allowed: the folder of a fi" in refused(tmp_path / "nowhere")


def test_a_bundle_without_a_name_wants_one(bundle: Path) -> None:
    called(bundle, "")

    assert "does not say what its run was called; give it a --name" in refused(bundle)


def test_a_name_that_no_repository_takes_is_refused(bundle: Path) -> None:
    assert "'../out' is no bundle name" in refused(bundle, "--name", "../out")


def test_a_trained_bundle_comes_with_the_lines_that_publish_and_serve_it(
    tiny_data: Path, tmp_path: Path
) -> None:
    import yaml
    from tests.training.tiny import job

    recipe = tmp_path / "tiny.yaml"
    tree = job(tiny_data, tmp_path, schedule__steps=1).model_dump(mode="json")
    recipe.write_text(yaml.safe_dump(tree))

    told = invoke("train", recipe, "--no-evaluate").stdout.splitlines()

    folder = tmp_path / "runs" / "tiny-seed0" / "bundle"
    assert told[-2:] == [
        f"publish it: tectum publish {folder} --repository models",
        "serve it: tectum serve --repository models --model tiny",
    ]
