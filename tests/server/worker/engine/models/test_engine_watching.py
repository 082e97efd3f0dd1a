"""Looking at a repository: each name by itself, and what is amiss is said once."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tectum_core.bundle import Repository
from tectum_server.worker.engine.models.watching import Watch


def cannot(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have some names' versions asked of a remote that fails."""
    latest = Repository.latest

    def asked(self: Repository, name: str) -> str:
        if name in names:
            raise TimeoutError(f"{name} timed out")
        return latest(self, name)

    monkeypatch.setattr(Repository, "latest", asked)


async def test_a_name_that_cannot_be_looked_up_is_not_known_and_the_others_are(
    root: Path, bare_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = Repository(root).publish(bare_folder, "leg")
    watch = Watch(Repository(root), 1.0)

    cannot(monkeypatch, "arm")
    found = await watch.look()
    watch.close()

    assert found == {"arm": None, "leg": version}


async def test_a_name_that_cannot_be_looked_up_is_logged_once_until_it_could_be_again(
    root: Path,
    bare_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Repository(root).publish(bare_folder, "leg")
    watch = Watch(Repository(root), 1.0)

    with caplog.at_level(logging.ERROR):
        for failing in (("arm",), ("arm",), ("arm", "leg"), (), ("arm",)):
            with monkeypatch.context() as patch:
                cannot(patch, *failing)
                await watch.look()
    watch.close()

    said = [(r.__dict__["model"], r.__dict__["reason"]) for r in caplog.records]
    assert said == [("arm", "arm timed out"), ("leg", "leg timed out"), ("arm", "arm timed out")]
    assert {r.message for r in caplog.records} == {"a model's latest version cannot be looked up"}
