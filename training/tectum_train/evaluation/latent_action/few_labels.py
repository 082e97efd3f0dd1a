"""How few action labels suffice: the hand's displacement from z and from pixels, by their share.

Labels come by whole episodes, as robots record them. Of the unlabelled ones both may know
what they like: z was learnt on them, and principal components are found on all of them. A network
that learns from pixels knows the labelled episodes alone, but every labelled pair of these.

Letters: n training pairs, m test pairs, D and d numbers of what is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tectum_train.evaluation import gates
from tectum_train.evaluation.latent_action.ceiling import HOW_TAUGHT, HOW_TAUGHT_FEW
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.probes import fit_ridge, r_squared

__all__ = ["Labels", "measure_few_labels"]

_SHARES, _DRAWS = (0.025, 0.1, 1.0), 5
_TAUGHT = 2
"""Of the draws, that many teach a network, which takes as long as all else; z beside it is of the
same ones."""
_FEWEST = 2
"""Episodes: a probe's penalty is chosen on others than it is fitted on."""

Read = tuple[NDArray[np.floating], NDArray[np.floating]]
"""What is read of training and test pairs: [n, D] and [m, D]."""

Taught = Callable[[NDArray[np.int64] | None], float]
"""R² in plane of a network that these episodes' labels taught from scratch; None: all of them."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What is to be told."""

    train: NDArray[np.float64]
    """[n, 2], the hand's displacement in plane."""
    episode: NDArray[np.int64]
    """[n], which episode each training pair is of."""
    test: NDArray[np.float64]
    """[m, 2]."""


def measure_few_labels(
    name: str,
    z: Read,
    change: Read,
    width: int,
    labels: Labels,
    draw: np.random.Generator,
    taught: Taught | None = None,
) -> list[Measure]:
    """R² in plane for each share of labelled episodes, a mean over draws of which.

    Args:
        name: of the latent action, for the report.
        z: latent actions.
        change: frame differences in their principal components, the first ones first.
        width: how many numbers z is: few of them need few labels, whatever they say.
        labels: of the same pairs.
        draw: of labelled episodes.
        taught: the network that learns from pixels; None: there is none beside them.
    """
    found, narrow = list[Measure](), (change[0][:, :width], change[1][:, :width])
    for share in _SHARES:
        chosen = [_labelled(labels.episode, share, draw) for _ in range(_DRAWS if share < 1 else 1)]
        of_z = _explained(z, labels, chosen)
        value = float(np.mean(of_z))
        controls = {
            gates.CHANGE_OF_WIDTH: float(np.mean(_explained(narrow, labels, chosen))),
            gates.CHANGE_PCA: float(np.mean(_explained(change, labels, chosen))),
        }
        drawn = f", mean of {len(chosen)} draws" if share < 1 else ""
        if taught is not None:
            shown = [None if share == 1 else np.unique(labels.episode[own]) for own in chosen]
            controls[gates.TAUGHT] = float(np.mean([taught(one) for one in shown[:_TAUGHT]]))
            if share < 1:
                controls[gates.BESIDE_TAUGHT] = float(np.mean(of_z[:_TAUGHT]))
                drawn += f" (the network, and z beside it: of {_TAUGHT})"
            drawn += f"; {HOW_TAUGHT if share == 1 else HOW_TAUGHT_FEW}"
        least = share == min(_SHARES)
        on = f"{len(np.unique(labels.episode[chosen[0]]))} labelled episodes{drawn}"
        found.append(
            Measure(
                f"{name} hand in plane from {share:.1%} of the labels, R²",
                value,
                controls,
                gates.few_labels_rule(controls) if least else "",
                gates.few_labels_suffice(value, controls) if least else None,
                on,
            )
        )
    return found


def _labelled(
    episode: NDArray[np.int64], share: float, draw: np.random.Generator
) -> NDArray[np.bool_]:
    """bool[n], pairs of so many of the episodes."""
    episodes = np.unique(episode)
    count = max(_FEWEST, round(share * len(episodes)))
    return np.isin(episode, draw.permutation(episodes)[:count])


def _explained(read: Read, labels: Labels, chosen: list[NDArray[np.bool_]]) -> list[float]:
    """R² in plane, by each of these draws of labels."""
    return [
        float(
            r_squared(
                fit_ridge(read[0][own], labels.train[own], read[1], labels.episode[own]),
                labels.test,
            ).mean()
        )
        for own in chosen
    ]
