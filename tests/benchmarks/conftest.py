"""What the benchmarks' tests share: a tiny data set, made once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with `train` and `test`, and room for decoded frames; never write into it."""
    from tests.training.tiny import write_data

    return write_data(tmp_path_factory.mktemp("tabletop"))
