"""The wheel, installed alone: the SDK and nothing of the other rooms' needs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.checkout import ROOT

PACKAGES = {
    "tectum": ROOT / "client",
    "tectum_core": ROOT / "core",
    "tectum_train": ROOT / "training",
    "tectum_server": ROOT / "server",
    "tectum_cli": ROOT / "cli",
}
pytestmark = pytest.mark.slow


def done(command: Sequence[object], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [str(part) for part in command],
        capture_output=True, text=True, timeout=600, check=False, **options,
    )  # fmt: skip


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release is."""
    folder = tmp_path_factory.mktemp("wheel")

    built = done([sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT])

    assert built.returncode == 0, built.stdout + built.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def names(wheel: Path) -> set[str]:
    """What lies in it."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that has the wheel, what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    assert done([sys.executable, "-m", "venv", folder]).returncode == 0
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile"]

    installed = done([*pip, wheel, "--constraint", ROOT / "constraints.txt"])

    assert installed.returncode == 0, installed.stderr
    return folder / "bin"


def sources(package: str) -> set[str]:
    """A package's files as git would have them."""
    root = PACKAGES[package]
    listed = done(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", package], cwd=root
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return {line for line in listed.stdout.splitlines() if (root / line).is_file()}


# ---------------------------------------------------------------- what lies in it


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_every_package_is_in_the_wheel(names: set[str], package: str) -> None:
    missing = sources(package) - names

    assert missing == set()


def test_the_embedded_bundle_is_in_the_wheel(names: set[str]) -> None:
    folder = ROOT / "core" / "tectum_core" / "embedded"
    files = {
        path.relative_to(ROOT / "core").as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert "tectum_core/embedded/__init__.py" in files
    assert files <= names


def test_recipes_and_type_marks_are_in_the_wheel(names: set[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert "tectum_train/recipes/tectum-tiny.yaml" in names


def test_nothing_else_is_in_the_wheel(names: set[str]) -> None:
    folders = {name.split("/")[0] for name in names}

    assert {name for name in folders if not name.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_licence_goes_with_it(names: set[str]) -> None:
    assert [name for name in names if name.endswith("dist-info/licenses/LICENSE")]


# ---------------------------------------------------------------- installed alone


def test_the_sdk_is_importable_whole(bare: Path) -> None:
    program = "import tectum; print(len([getattr(tectum, name) for name in tectum.__all__]))"

    result = done([bare / "python", "-W", "error", "-c", program])

    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 50


def test_nothing_heavy_was_installed(bare: Path) -> None:
    listed = done([bare / "python", "-m", "pip", "list", "--format", "freeze"])

    installed = {line.split("==")[0].lower() for line in listed.stdout.splitlines()}
    assert {"tectum", "numpy", "grpcio", "protobuf"} <= installed
    assert installed.isdisjoint(
        {
            "torch", "pillow", "pydantic", "fastapi", "typer", "rich", "av", "tokenizers",
            "safetensors", "kornia", "pyarrow", "msgspec", "uvicorn", "prometheus-client",
        }
    )  # fmt: skip


def test_the_bare_command_names_the_extra_that_brings_it(bare: Path) -> None:
    result = done([bare / "tectum"])

    assert result.returncode == 1
    assert "install tectum[cli], in a checkout with pip install '.[cli]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_another_room_says_what_it_lacks_by_its_import(bare: Path) -> None:
    result = done([bare / "python", "-c", "import tectum_core.model"])

    assert result.returncode == 1
    assert "No module named" in result.stderr


# ---------------------------------------------------------------- the metadata


def test_requirements_are_the_sdks_and_the_rest_are_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        lines = archive.read(name).decode().splitlines()
    required = [line for line in lines if line.startswith("Requires-Dist:")]

    base = {line.split()[1].split(">")[0] for line in required if "extra ==" not in line}
    assert base == {
        "googleapis-common-protos", "grpcio", "grpcio-status", "numpy", "protobuf",
    }  # fmt: skip
    extras = {line.split(":")[1].strip() for line in lines if line.startswith("Provides-Extra:")}
    assert {"worker", "gateway", "train", "cli", "dev"} <= extras
