"""What the core's tests share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Weights and inputs that a test draws are the same in every run."""
    torch.manual_seed(0)
