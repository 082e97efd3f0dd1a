"""What float32 means in this process, the same for training and serving."""

from __future__ import annotations

import torch

__all__ = ["exact_float32"]


def exact_float32() -> None:
    """Compute float32 in float32 from now on, in the whole process.

    TensorFloat-32, which cuDNN's convolutions use unless told otherwise, keeps 10 of 23 bits:
    golden outputs would not be reproduced, and a recipe's `float32` would not be what was
    trained. Torch has one switch for all threads, so it is never turned back.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
