"""The product, started once for whoever asks for it, and ended as its users end it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.journeys.product import Pair, Up


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`tectum up` with the embedded model, which says all it does; Ctrl-C ends it well."""
    with Up(tmp_path_factory.mktemp("product"), "--log-level", "debug") as up:
        yield up
        code = up.ctrl_c()
        assert code == 0, up.running.output[-2000:]
        assert up.running.family() == [], "it left processes behind"
        assert "Traceback" not in up.running.output


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Pair]:
    """A worker with `full` and `bare`, and a gateway before it, both with their usual settings."""
    folder = tmp_path_factory.mktemp("served")
    with Pair(folder, repository, ["--model", "full", "--model", "bare"], []) as pair:
        yield pair
