"""Few labels: whole episodes of them, the same for z and for pixels, and all of them at last."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tectum_train.evaluation.latent_action import few_labels
from tectum_train.evaluation.latent_action.few_labels import Labels, measure_few_labels
from tectum_train.evaluation.measuring.measure import Measure

EPISODES, EACH = 80, 12


def told(
    width: int, noise: float, seed: int = 0, taught: few_labels.Taught | None = None
) -> list[Measure]:
    """Z is the displacement itself; pixels are it among so many other numbers, with noise."""
    draw = np.random.default_rng(seed)
    count = EPISODES * EACH
    train, test = draw.normal(size=(count, 2)), draw.normal(size=(400, 2))
    hidden = draw.normal(size=(2, width)) / width**0.5

    def seen(moved: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(moved @ hidden + noise * draw.normal(size=(len(moved), width)))

    labels = Labels(train, np.arange(count) // EACH, test)
    change = seen(train), seen(test)
    return measure_few_labels(
        "z →", (train, test), change, 2, labels, np.random.default_rng(1), taught
    )


def test_what_names_the_motion_needs_fewer_labels_than_what_shows_it() -> None:
    least, more, every = told(width=100, noise=0.5)

    assert least.value > 0.99
    assert least.controls["frame-difference PCA-256"] < least.value - 0.1
    assert more.controls["frame-difference PCA-256"] < every.controls["frame-difference PCA-256"]
    # So many components of all that pixels show as z has numbers say little of it.
    assert every.controls["frame-difference PCA, z's width"] < every.value - 0.1
    assert least.passed is True
    assert (more.passed, every.passed) == (None, None)
    assert least.on == "2 labelled episodes, mean of 5 draws"
    assert every.on == "80 labelled episodes"


def test_pixels_that_show_the_motion_as_plainly_are_not_beaten() -> None:
    assert told(width=2, noise=0.0)[0].passed is False


def test_a_network_is_taught_by_the_episodes_that_are_labelled_and_is_to_be_beaten() -> None:
    asked: list[tuple[int, ...] | None] = []

    def taught(episodes: NDArray[np.int64] | None) -> float:
        asked.append(None if episodes is None else tuple(episodes))
        return 0.5 if episodes is None else len(episodes) / 100

    least, more, every = told(width=100, noise=0.5, taught=taught)
    alone = told(width=100, noise=0.5)
    beaten = told(width=100, noise=0.5, taught=lambda _: 1.0)

    found = [one.controls["supervised network on these labels"] for one in (least, more, every)]
    assert found == [0.02, 0.08, 0.5]
    assert [None if one is None else len(one) for one in asked] == [2, 2, 8, 8, None]
    assert len(set(asked)) == 5
    assert least.on == (
        "2 labelled episodes, mean of 5 draws (the network, and z beside it: of 2); "
        "the network unaugmented, its steps chosen by the held-out episodes"
    )
    assert every.on == "80 labelled episodes; the network unaugmented"
    assert alone[0].on == "2 labelled episodes, mean of 5 draws"
    assert (least.passed, beaten[0].passed) == (True, False)
    assert least.gate == "≥ 0.20, above probes of pixels and the supervised network by ≥ 1%"
    assert alone[0].gate == "≥ 0.20, above probes of pixels by ≥ 1%"
    assert [one.value for one in alone] == [one.value for one in (least, more, every)]


def test_z_is_held_to_the_network_on_the_labels_that_taught_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beside = "z on the network's labels"
    least, more, every = told(width=100, noise=0.5, taught=lambda _: 0.0)
    monkeypatch.setattr(few_labels, "_DRAWS", few_labels._TAUGHT)
    (fewer, *_) = told(width=100, noise=0.5)

    assert least.controls[beside] == fewer.value != least.value
    assert beside in more.controls
    assert beside not in every.controls


@given(st.integers(2, 60), st.sampled_from([0.025, 0.1, 1.0]), st.integers(0, 2**32))
def test_labels_come_by_whole_episodes(episodes: int, share: float, seed: int) -> None:
    episode = np.repeat(np.arange(episodes) * 3, 5)

    chosen = few_labels._labelled(episode, share, np.random.default_rng(seed))

    taken = np.unique(episode[chosen])
    assert len(taken) == max(2, round(share * episodes))
    assert np.array_equal(chosen, np.isin(episode, taken))
