"""In which numbers losses are computed is said in one place."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from tectum_train.losses import codes, contrastive, distillation, masked, precision, temporal


@pytest.mark.parametrize("room", [codes, contrastive, distillation, masked, temporal])
def test_every_room_widens_by_the_same_function(room: ModuleType) -> None:
    assert vars(room)["wide"] is precision.wide
    assert "_wide" not in vars(room)


def test_halves_become_floats_and_doubles_stay() -> None:
    assert precision.wide(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert precision.wide(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
