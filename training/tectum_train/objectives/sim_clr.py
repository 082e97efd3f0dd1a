"""SimCLR: two views of one picture are nearer to each other than to any other view.

Letters: B batch, D width of the trunk.
"""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from tectum_core.model import PerceptionModel
from tectum_train.heads import perceptron
from tectum_train.losses.contrastive import nt_xent
from tectum_train.objectives.base import Objective, Outcome, PartSettings
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
    def reads(self) -> Reads:
        """Two views."""
        return Reads.VIEWS


class SimClr(Objective):
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

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and how often a view's nearest is its partner."""
        views = given(batch.views, "views")[: self.config.used(batch)]
        projected = self.projector(self.model.vision(views.flatten(0, 1)).pooled)
        first, second = projected.view(len(views), 2, -1).unbind(1)
        loss, hit = nt_xent(first, second, self.config.temperature)
        return Outcome(loss, {"accuracy": hit.float().mean()})
