"""What the engine's tests share: stopping a run where one wants, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tectum_train.engine.progress import RunProgress


@pytest.fixture
def after_step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Do something once when step `number` (from 0) has been taken, before it is saved."""

    def arrange(number: int, action: Any) -> None:
        whole = RunProgress.step

        def step(self: RunProgress, at: int, *args: Any) -> None:
            whole(self, at, *args)
            if at == number:
                monkeypatch.setattr(RunProgress, "step", whole)
                action()

        monkeypatch.setattr(RunProgress, "step", step)

    return arrange


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert "batches" not in {thread.name for thread in threading.enumerate()}
