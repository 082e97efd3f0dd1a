"""The demo's pictures, drawn with matplotlib from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tectum_cli.extras import needs

__all__ = ["latent_plot", "reconstruction_sheet"]

_GREY = 96


def reconstruction_sheet(
    rows: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]], path: Path
) -> None:
    """Rows of masked | reconstructed | original.

    Args:
        rows: original uint8[H, W, 3], reconstructed likewise, mask bool[rows, columns].
        path: a PNG.
    """
    with needs("cli"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(6, 2 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for line, (original, filled, mask) in zip(axes, rows, strict=True):
        side = original.shape[0] // mask.shape[0]
        hidden = mask.repeat(side, axis=0).repeat(side, axis=1)
        masked = np.where(hidden[:, :, None], np.uint8(_GREY), original)
        for axis, picture in zip(line, (masked, filled, original), strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_axis_off()
    for axis, title in zip(axes[0], ("masked", "reconstructed", "original"), strict=True):
        axis.set_title(title)
    figure.savefig(path, dpi=120)


def latent_plot(
    vectors: NDArray[np.float32],
    decoded: NDArray[np.float32] | None,
    true: NDArray[np.float32],
    names: Sequence[str],
    interval: float,
    title: str,
    path: Path,
) -> None:
    """The latent over time, and below it the decoded beside the true actions, if any.

    Args:
        vectors: float32[T, D].
        decoded: float32[T, A]; None: the model decodes none.
        true: float32[T, A].
        names: of the actions' dimensions, with their units.
        interval: seconds between steps.
        title: which episode it is.
        path: a PNG.
    """
    with needs("cli"):
        from matplotlib.figure import Figure
    count = true.shape[1]
    figure = Figure(figsize=(8, 3 + 1.3 * count), layout="constrained")
    axes = figure.subplots(1 + count, sharex=True, squeeze=False, height_ratios=[2] + [1] * count)[
        :, 0
    ]
    seconds = np.arange(len(vectors)) * interval
    limit = float(np.abs(vectors).max()) or 1.0
    extent = (0.0, float(len(vectors) * interval), vectors.shape[1] - 0.5, -0.5)
    picture = axes[0].imshow(
        vectors.T, aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit, extent=extent,
        interpolation="nearest",
    )  # fmt: skip
    axes[0].set_ylabel("number of z")
    axes[0].locator_params(axis="y", integer=True)
    figure.colorbar(picture, ax=axes[0], label="value (no unit)")
    for number, axis in enumerate(axes[1:]):
        axis.plot(seconds, true[:, number], color="black", label="true")
        if decoded is not None:
            axis.plot(seconds, decoded[:, number], color="tab:orange", label="decoded")
        axis.set_ylabel(names[number] if number < len(names) else f"action {number}")
    axes[-1].set_xlabel("seconds")
    if count:
        lines = axes[1].get_legend_handles_labels()
        figure.legend(*lines, loc="outside lower center", ncols=2)
    figure.suptitle(title, wrap=True)
    figure.savefig(path, dpi=120)
