"""Paths in recipes: home and environment stand for themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tectum_train.recipe import expanded


def test_home_and_environment_are_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("SCRATCH", "/scratch")

    assert expanded("~/runs") == Path("/home/somebody/runs")
    assert expanded("$SCRATCH/runs") == Path("/scratch/runs")
