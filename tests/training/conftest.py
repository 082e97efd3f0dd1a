"""What training's tests share: a tiny data set, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.training.ranks import Ranks


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Weights and inputs that a test draws are the same in every run."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The tiny recipe, as a file."""
    import yaml
    from tests.training.tiny import job

    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(job(tmp_path, tmp_path).model_dump(mode="json")), "utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with `train` and `test`, and room for decoded frames; never write into it."""
    from tests.training.tiny import write_data

    return write_data(tmp_path_factory.mktemp("tabletop"))


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """Two processes with gloo between them."""
    from tests.training.ranks import Ranks

    both = Ranks()
    yield both
    both.close()


@pytest.fixture(scope="session")
def three_ranks() -> Iterator[Ranks]:
    """Three of them: the next rank is not the one before."""
    from tests.training.ranks import Ranks

    all_three = Ranks(3)
    yield all_three
    all_three.close()
