"""A queue of vectors: a deque of bounded length that knows ages and groups."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from tectum_train.vector_queue import VectorQueue


def oldest_first(queue: VectorQueue, values: Tensor) -> list[Any]:
    return values.roll(-int(queue.head), dims=0).tolist()


@given(st.integers(1, 7), st.lists(st.integers(0, 17), max_size=8))
def test_a_queue_is_a_deque_of_bounded_length(length: int, counts: list[int]) -> None:
    queue = VectorQueue(length, 2)
    keys = deque(queue.vectors.tolist(), maxlen=length)
    came, groups = deque([-1] * length, maxlen=length), deque([0] * length, maxlen=length)

    for turn, count in enumerate(counts):
        added, group = torch.randn(count, 2), torch.randint(9, (count,))
        queue.add(added, group)
        keys.extend(added.tolist())
        came.extend([turn] * count)
        groups.extend(group.tolist())

    assert oldest_first(queue, queue.vectors) == list(keys)
    assert oldest_first(queue, queue.ages()) == [len(counts) - turn for turn in came]
    assert oldest_first(queue, queue.filled) == [turn >= 0 for turn in came]
    assert oldest_first(queue, queue.group) == list(groups)


def test_at_first_its_keys_are_random_unit_vectors_older_than_any() -> None:
    queue = VectorQueue(64, 8)

    queue.add(F.normalize(torch.ones(3, 8), dim=1))

    assert_close(queue.vectors.norm(dim=1), torch.ones(64))
    assert queue.ages().tolist() == [1] * 3 + [2] * 61
    assert queue.vectors[3:].unique(dim=0).shape[0] == 61


def test_a_queue_is_whole_in_its_state() -> None:
    one, two = VectorQueue(5, 2), VectorQueue(5, 2)
    one.add(torch.randn(3, 2))

    two.load_state_dict(one.state_dict())
    for queue in (one, two):
        queue.add(torch.ones(4, 2))

    assert torch.equal(one.vectors, two.vectors)
    assert torch.equal(one.ages(), two.ages())
