"""What measures share: streams of choices that have nothing in common."""

from __future__ import annotations

import numpy as np
import pytest
from tests.training.evaluation.scene import context, recorded

from tectum_train.evaluation.context import NothingToMeasure, in_batches, starts

SAMPLES = recorded([4, 3], {})


def test_a_stream_repeats_itself_and_differs_from_others_and_by_seed() -> None:
    one, other_seed = context(SAMPLES, SAMPLES, seed=1), context(SAMPLES, SAMPLES, seed=2)

    drawn = [
        tuple(given.generator(stream).integers(1 << 40, size=4).tolist())
        for given, stream in (
            (one, "masks"), (one, "masks"), (one, "mask"), (one, "words"), (other_seed, "masks"),
        )
    ]  # fmt: skip

    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4
    assert one.seed_of("masks") == one.seed_of("masks") != one.seed_of("words")


def test_frames_are_read_where_they_are_asked_for() -> None:
    frames = np.arange(300, dtype=np.uint16)[:, None, None, None]

    found = in_batches(
        lambda part: np.stack(part).reshape(len(part), -1).astype(np.float32),
        frames,  # type: ignore[arg-type]
        np.arange(299, -1, -1),
    )

    assert found[:, 0].tolist() == list(range(299, -1, -1))


def test_frames_that_so_many_more_follow_are_told_and_their_absence_too() -> None:
    assert starts(SAMPLES, 2).tolist() == [0, 1, 4]

    with pytest.raises(NothingToMeasure, match="no episode goes on for 4 steps"):
        starts(SAMPLES, 4)
