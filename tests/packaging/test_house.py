"""The house as a whole: files of a readable length, and a public surface that exists."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest
from tests.checkout import ROOT, files

LONGEST = 400
HAND_WRITTEN = {".py", ".proto", ".md", ".yaml", ".yml"}
GENERATED = ("client/tectum/v1/", "docs/recipes.md")


def test_no_hand_written_file_is_longer_than_a_person_reads() -> None:
    lengths = {
        name: len((ROOT / name).read_text(encoding="utf-8").splitlines())
        for name in files()
        if Path(name).suffix in HAND_WRITTEN and not name.startswith(GENERATED)
    }

    assert lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_nothing_that_runs_writes_or_reads_pickle() -> None:
    for name in files():
        if name.endswith(".py") and name.split("/")[0] in {
            "client", "core", "training", "server", "cli",
        }:  # fmt: skip
            text = (ROOT / name).read_text(encoding="utf-8")
            for word in ("import pickle", "torch.load(", "torch.save(", "allow_pickle=True"):
                assert word not in text, name


def test_test_modules_have_names_of_their_own() -> None:
    # The tests' rooms are folders, not packages: two modules of one name could not be imported.
    names = [Path(name).name for name in files() if Path(name).name.startswith("test_")]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "package",
    ["tectum", "tectum_core.bundle", "tectum_core.model", "tectum_train.data",
     "tectum_train.objectives", "tectum_server.worker", "tectum_server.gateway", "tectum_cli"],
)  # fmt: skip
def test_what_a_package_promises_it_has(package: str) -> None:
    module = importlib.import_module(package)

    promised = getattr(module, "__all__", [])
    assert all(hasattr(module, name) for name in promised)
    assert list(promised) == sorted(set(promised))


def contract(name: str) -> dict[str, list[str]]:
    """One of import-linter's contracts."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (found,) = [c for c in settings["tool"]["importlinter"]["contracts"] if c["name"] == name]
    return dict(found)


@pytest.mark.parametrize(
    "name",
    [
        "The contract's stubs know nothing of the SDK",
        "The worker knows the core and the contract, never the SDK",
    ],
)
def test_whoever_may_not_know_the_sdk_may_know_no_module_of_it(name: str) -> None:
    modules = {f"tectum.{path.stem}" for path in (ROOT / "client" / "tectum").glob("[a-z]*.py")}

    assert modules <= set(contract(name)["forbidden_modules"])


def test_no_objective_is_left_out_of_their_independence() -> None:
    folder = ROOT / "training" / "tectum_train" / "objectives"
    shared = {"base", "batch", "hiding", "weighted"}
    own = {f"tectum_train.objectives.{p.stem}" for p in folder.glob("[a-z]*.py")} - {
        f"tectum_train.objectives.{name}" for name in shared
    }

    listed = set(contract("Objectives know their base and the core, never each other")["modules"])
    assert listed == own
    # What they share is no objective itself, and knows none.
    for name in shared:
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        assert "kind: Literal" not in text
        assert not [module for module in own if f"from {module} import" in text]
