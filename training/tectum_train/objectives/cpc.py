"""CPC: what has been seen of a clip tells which of many moments comes k frames later.

Letters: B batch, T frames of a clip, D width of the vectors that are compared, H width of what is
kept of the past, K horizons.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.model import PerceptionModel
from tectum_train.losses.temporal import Foretold, Negatives, foresight, repeats
from tectum_train.objectives.base import Objective, Outcome, PartSettings, averages
from tectum_train.objectives.batch import Batch, Reads, given

__all__ = ["Cpc", "CpcConfig"]


class CpcConfig(PartSettings):
    """Contrast the frames to come with other moments."""

    kind: Literal["cpc"] = "cpc"
    """Discriminator."""
    horizons: PositiveInt = 3
    """How many frames ahead is told, K; below `data.clip.frames`."""
    negatives: Negatives = "both"
    """What the right moment is told from: `same_episode`, other moments of the same clip;
    `in_batch`, all moments of other episodes, which a background gives away; or `both`."""
    hidden: PositiveInt = 256
    """Width of what is kept of the past, H."""
    width: PositiveInt | None = None
    """Length of the vectors that are compared, D, a linear map of the trunk's; None: those."""
    temperature: PositiveFloat | None = None
    """What cosines are divided by; None: plain dot products, as in the paper."""

    @property
    def reads(self) -> Reads:
        """Frames in a row."""
        return Reads.CLIP

    @property
    def clip_frames(self) -> int:
        """One more than the furthest horizon."""
        return self.horizons + 1

    @property
    def fewest(self) -> int:
        """A clip, and another where negatives are of other episodes alone."""
        return 2 if self.negatives == "in_batch" else 1


class Cpc(Objective):
    """InfoNCE between a linear map of the past, one for each horizon, and the frames to come.

    Source: CPC (arXiv:1807.03748).
    """

    name = "cpc"

    def __init__(self, config: CpcConfig, model: PerceptionModel) -> None:
        super().__init__()
        self.config = config
        self.model = model
        trunk = model.config.vision.transformer.width
        width = config.width or trunk
        self.projector = nn.Linear(trunk, width) if config.width else nn.Identity()
        self.past = nn.GRU(width, config.hidden, batch_first=True)
        self.heads = nn.Linear(config.hidden, config.horizons * width, bias=False)

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss; loss, accuracy and chance by horizon, frames ahead.

        Of a horizon that lies in no rank's clip nothing is told.
        """
        loss, asked = self.foresee(batch)
        told: dict[str, tuple[Tensor, Tensor]] = {}
        for name, values in (
            ("loss", asked.losses),
            ("accuracy", asked.hit.float()),
            ("chance", 1 / asked.choices),
        ):
            for place, (one, counted) in enumerate(
                zip(values.unbind(2), asked.counted.unbind(2), strict=True), start=1
            ):
                told[f"{name}_{place}"] = one, counted
        return Outcome(loss, {}, sums=averages(told))

    def foresee(self, batch: Batch, negatives: Negatives | None = None) -> tuple[Tensor, Foretold]:
        """The loss, and what was asked; among other negatives than the configured ones if told.

        Raises:
            ValueError: the clips are no longer than the furthest horizon.
        """
        used, whole = self.config.used(batch), given(batch.clip, "clips")
        frames, inside = whole.frames[:used], whole.inside[:used]
        length = frames.shape[1]
        if length < self.config.clip_frames:
            raise ValueError(
                f"cpc tells {self.config.horizons} frames ahead (horizons), so it needs clips of "
                f"at least {self.config.clip_frames} frames, not {length}"
            )
        features = self.projector(self.model.vision(frames.flatten(0, 1)).pooled)
        features = features.view(used, length, -1)
        # Short floats would add up over a clip; the GRU is little beside the trunk.
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.heads.weight.dtype)
            past, _ = self.past(features)  # [B, T, H]; of frame t and those before it
            predicted = self.heads(past).view(used, length, self.config.horizons, -1)
        if self.config.temperature is not None:
            predicted = F.normalize(predicted, dim=-1) / self.config.temperature
            features = F.normalize(features, dim=-1)
        return foresight(
            predicted,
            features,
            inside,
            repeats(frames),
            batch.episode[:used],
            negatives or self.config.negatives,
        )
