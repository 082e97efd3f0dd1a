"""What all rooms of the tests share.

The rooms are folders, not packages; what they share is imported as `tests.…` from the
repository's root. Nothing heavy is imported here: the SDK's tests run without torch.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parents[1]))
# Torch's threads, in this process and those it starts, would fight over the machine's few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Who runs the tests under nohup or behind `&` ignores signals, and what they start inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)

settings.register_profile("tectum", deadline=None, max_examples=50)
settings.load_profile("tectum")

if TYPE_CHECKING:
    from tectum_core.bundle import Bundle
    from tectum_core.predictor import Predictor


@pytest.fixture(scope="session")
def full_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained bundle that has every part; never write into it."""
    from tests.bundles import write_full

    folder = tmp_path_factory.mktemp("bundles") / "full"
    write_full(folder)
    return folder


@pytest.fixture(scope="session")
def bare_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained bundle that is a vision trunk and nothing else; never write into it."""
    from tests.bundles import write_bare

    folder = tmp_path_factory.mktemp("bundles") / "bare"
    write_bare(folder)
    return folder


@pytest.fixture(scope="session")
def full_bundle(full_folder: Path) -> Bundle:
    """The full bundle, read."""
    from tectum_core.bundle import read_bundle

    return read_bundle(full_folder, "full")


@pytest.fixture(scope="session")
def full(full_bundle: Bundle) -> Predictor:
    """The full bundle, ready to predict."""
    from tectum_core.predictor import Predictor

    return Predictor(full_bundle)


@pytest.fixture(scope="session")
def bare(bare_folder: Path) -> Predictor:
    """The bare bundle, ready to predict."""
    from tectum_core.bundle import read_bundle
    from tectum_core.predictor import Predictor

    return Predictor(read_bundle(bare_folder, "bare"))


@pytest.fixture(scope="session")
def repository(
    tmp_path_factory: pytest.TempPathFactory, full_folder: Path, bare_folder: Path
) -> Path:
    """A repository with `full`, which has every part, and `bare`, which has a trunk alone."""
    from tectum_core.bundle import Repository

    root = tmp_path_factory.mktemp("models")
    Repository(root).publish(full_folder, "full")
    Repository(root).publish(bare_folder, "bare")
    return root


@pytest.fixture(scope="module")
def few_draws() -> Iterator[None]:
    """Evaluation fits probes of few labels once, all in few steps: where it is not the matter."""
    from tectum_train.evaluation.measuring import probes
    from tectum_train.evaluation.trunk import neighbours

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_DRAWS", 1)
        patch.setattr(probes, "_MOST_STEPS", 10)
        yield
