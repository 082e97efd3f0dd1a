"""Distillation losses in short floats."""

from __future__ import annotations

import pytest
import torch
from tests.training.losses.distilled import (
    drawn,
)

from tectum_train.losses.distillation import (
    centred,
    dino_cross_entropy,
    ibot_cross_entropy,
    koleo,
    sinkhorn_knopp,
)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_stay_finite_at_the_largest_scale(dtype: torch.dtype) -> None:
    student = torch.from_numpy(drawn(3, 8, 6, seed=0, scale=100)).to(dtype).requires_grad_()
    logits = torch.from_numpy(drawn(2, 8, 6, seed=1, scale=100)).to(dtype)
    hidden = torch.ones(8, 3, dtype=torch.bool)
    told = centred(logits, torch.zeros(6), 0.04)
    balanced_ = sinkhorn_knopp(logits[0], 0.04)

    losses = [
        dino_cross_entropy(student, told, 0.1),
        ibot_cross_entropy(student.reshape(24, 6), balanced_.repeat(3, 1), hidden, 0.1),
        koleo(student[0]),
    ]

    (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), student)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses)
    assert balanced_.isfinite().all()
    assert gradient.isfinite().all()
