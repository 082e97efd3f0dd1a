"""SimCLR: two views of one picture are nearer to each other than to any other view.

Letters: n samples that are used, D length of a projection.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from tectum_core.model import PerceptionModel
from tectum_train.distributed import world_size
from tectum_train.heads import perceptron
from tectum_train.losses.contrastive import nt_xent
from tectum_train.objectives.base import Coupled, Outcome, PartSettings
from tectum_train.objectives.batch import Batch, Reads, given

__all__ = ["SimClr", "SimClrConfig"]


class SimClrConfig(PartSettings):
    """Contrast views of pictures."""

    kind: Literal["sim_clr"] = "sim_clr"
    """Discriminator."""
    temperature: PositiveFloat = 0.2
    """What cosines are divided by; 0.1 in the paper's large batches."""
    hidden: PositiveInt = 256
    """Width of the projector's hidden layers."""
    layers: PositiveInt = 2
    """Linear layers of the projector."""
    width: PositiveInt = 128
    """Length of the vectors that are contrasted; the trunk's own are what is kept."""

    @property
    def sees_frames(self) -> bool:
        """Views alone."""
        return False

    @property
    def reads(self) -> Reads:
        """Two views."""
        return Reads.VIEWS

    @property
    def fewest(self) -> int:
        """A picture, and another that it is told from."""
        return 2


class SimClr(Coupled):
    """NT-Xent over all views of all ranks.

    Source: SimCLR (arXiv:2002.05709).
    """

    name = "sim_clr"

    def __init__(self, config: SimClrConfig, model: PerceptionModel) -> None:
        super().__init__()
        self.config = config
        self.model = model
        width = model.config.vision.transformer.width
        self.projector = perceptron(width, config.hidden, config.width, config.layers)

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """`views`: both views' projections, float[n, 2, D]."""
        views = given(batch.views, "views")[: self.config.used(batch)]
        projected: Tensor = self.projector(self.model.vision(views.flatten(0, 1)).pooled)
        return {"views": projected.view(len(views), 2, -1)}

    def judged(self, features: dict[str, Tensor], _: Batch) -> Outcome:
        """Outcome with the loss, and how often a view's nearest is its partner."""
        first, second = features["views"].unbind(1)
        loss, hit = nt_xent(first, second, self.config.temperature)
        chance = math.log(2 * world_size() * len(first) - 1)
        return Outcome(loss, {"accuracy": hit.float().mean()}, chance)
