"""Soft sharing: a trunk for each objective, and what ties them.

An objective is built on a view of the model: its own trunk, all other parts shared. It need not
know.

Letters: B batch, N tokens, D width, K objectives, L blocks.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from tectum_core.architecture import VisionConfig
from tectum_core.model import PerceptionModel, Replaced, VisionOutput, VisionTransformer
from tectum_train.tasks.settings import Distance, SharingConfig

__all__ = ["Stitched", "distance", "own_trunks", "pull", "stitched_trunks", "views_of"]


def views_of(
    model: PerceptionModel,
    kinds: Sequence[str],
    sharing: SharingConfig | None,
    learning: Collection[str],
) -> dict[str, PerceptionModel]:
    """What each objective takes for the model, by its kind; without soft sharing the model itself.

    Where trunks are tied by distance, the model's own is that of the objective that is served, and
    of those that train none: a trunk that no loss moves would hold the others where it began.

    Args:
        model: begins as the model of each.
        kinds: of all objectives.
        sharing: of the recipe.
        learning: the kinds among them that train a trunk, the served one too.
    """
    if sharing is None:
        return dict.fromkeys(kinds, model)
    if isinstance(sharing, Distance):
        own = sorted(learning, key=lambda kind: (kind != sharing.served, kinds.index(kind)))
        views = dict(zip(own, own_trunks(model, len(own)), strict=True))
        return {kind: views.get(kind, views[sharing.served]) for kind in kinds}
    return dict(zip(kinds, stitched_trunks(model, len(kinds), sharing.own), strict=True))


def own_trunks(model: PerceptionModel, count: int) -> list[PerceptionModel]:
    """K views of a model, each with a trunk of its own that begins as the model's.

    The first view's trunk is the model's own.
    """
    trunks = [model.vision, *(copy.deepcopy(model.vision) for _ in range(count - 1))]
    return [_with_trunk(model, trunk) for trunk in trunks]


def distance(trunks: Sequence[nn.Module]) -> Tensor:
    """Σ ‖θᵢ − θ̄‖² over trunks of one shape, a scalar; `pull` makes it smaller.

    Source: the soft sharing of Duong et al. 2015 (aclanthology.org/P15-2139), for any number.
    """
    total = torch.zeros(())
    for same in zip(*(trunk.parameters() for trunk in trunks), strict=True):
        every = torch.stack(list(same))
        total = total.to(every.device) + (every - every.mean(dim=0)).square().sum()
    return total


@torch.no_grad()
def pull(trunks: Sequence[nn.Module], share: float) -> None:
    """Move trunks of one shape by a share of the way to their mean θ̄: θ − share · (θ − θ̄).

    It is λ Σ ‖θᵢ − θ̄‖² descended by itself, with a share of 2 · lr · λ, as AdamW descends weight
    decay (arXiv:1711.05101): a gradient would go through Adam, which divides it by its own size, so
    that no λ could hold trunks together.

    Args:
        trunks: of one shape.
        share: at least 0; from 1 on all of them are their mean, number for number.
    """
    for same in zip(*(trunk.parameters() for trunk in trunks), strict=True):
        middle = torch.stack(list(same)).mean(dim=0)
        for one in same:
            one.lerp_(middle, min(1.0, share))


class Stitched(nn.Module):
    """K trunks in step: after each block, every trunk goes on with a mixture of all.

    Source: cross-stitch networks (arXiv:1604.03539), with one unit for each block.

    Args:
        vision: what every trunk begins as.
        count: K.
        own: each trunk's share of itself at the start.
    """

    def __init__(self, vision: VisionTransformer, count: int, own: float) -> None:
        super().__init__()
        self.trunks = nn.ModuleList([vision, *(copy.deepcopy(vision) for _ in range(count - 1))])
        depth = vision.config.transformer.depth
        rest = (1 - own) / max(count - 1, 1)
        unit = torch.full((count, count), rest).fill_diagonal_(own if count > 1 else 1.0)
        self.units = nn.Parameter(unit.repeat(depth, 1, 1))
        """float[L, K, K]: row k says what trunk k goes on with."""

    def forward(
        self, pixels: Tensor, keep: Tensor | None, replaced: Replaced | None, column: int
    ) -> VisionOutput:
        """What trunk `column` makes of pixels, as `VisionTransformer.forward` would."""
        trunks = [one for one in self.trunks if isinstance(one, VisionTransformer)]
        paths = torch.stack([trunk.sequence(pixels, keep, replaced) for trunk in trunks])
        for level, unit in enumerate(self.units):
            made = torch.stack(
                [
                    trunk.transformer.block(level, path)
                    for trunk, path in zip(trunks, paths, strict=True)
                ]
            )
            with torch.autocast(made.device.type, enabled=False):  # a residual stays wide
                paths = torch.einsum("kj,jbnd->kbnd", unit.to(made.dtype), made)
        return trunks[column].output(paths[column])


class _Column(nn.Module):
    """One trunk of several that are stitched together, to be used like a trunk alone."""

    def __init__(self, stitched: Stitched, column: int, config: VisionConfig) -> None:
        super().__init__()
        self.stitched = stitched
        self.column = column
        self.config = config

    def forward(
        self, pixels: Tensor, keep: Tensor | None = None, replaced: Replaced | None = None
    ) -> VisionOutput:
        """As VisionTransformer.forward."""
        found: VisionOutput = self.stitched(pixels, keep, replaced, self.column)
        return found


def stitched_trunks(model: PerceptionModel, count: int, own: float) -> list[PerceptionModel]:
    """K views of a model whose trunks are stitched together."""
    stitched = Stitched(model.vision, count, own)
    columns = [_Column(stitched, column, model.vision.config) for column in range(count)]
    return [_with_trunk(model, column) for column in columns]


def _with_trunk(model: PerceptionModel, trunk: nn.Module) -> PerceptionModel:
    """The same model, parts and all, but for its trunk."""
    view = copy.copy(model)
    view._modules = {**model._modules, "vision": trunk}  # noqa: SLF001 - nn.Module has no other way
    return view
