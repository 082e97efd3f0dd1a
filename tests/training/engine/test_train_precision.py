"""What bfloat16 costs."""

from __future__ import annotations

import math

from tectum_train.engine.precision import bfloat16_cost


def test_a_cpu_is_asked() -> None:
    found = bfloat16_cost("cpu")

    assert found > 0
    assert math.isfinite(found)


def test_a_gpu_has_it() -> None:
    assert bfloat16_cost("cuda:0") == 1.0
