"""How several objectives learn together, as a recipe says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from tectum_core.architecture import Strict

__all__ = [
    "Alternating",
    "CrossStitch",
    "Distance",
    "DwaWeights",
    "FixedWeights",
    "GradNormWeights",
    "ImportanceWeights",
    "SharingConfig",
    "TasksConfig",
    "UncertaintyWeights",
    "WeightingConfig",
]


class FixedWeights(Strict):
    """Each objective's own `weight`, as it stands."""

    kind: Literal["fixed"] = "fixed"
    """Discriminator."""


class ImportanceWeights(Strict):
    """Each objective's `weight` as its share: brought to a mean of 1, so that only ratios count.

    Says something only where losses have one unit: give `normalise` too.
    """

    kind: Literal["importance"] = "importance"
    """Discriminator."""


class UncertaintyWeights(Strict):
    """`weight` · (L / (2 eˢ) + s / 2) with a learnt s for each objective.

    At their best, weighted losses are to each other as `weight` says, whatever the losses are.

    Source: Kendall et al. (arXiv:1705.07115).
    """

    kind: Literal["uncertainty"] = "uncertainty"
    """Discriminator."""
    initial: Annotated[float, Field(ge=-10, le=10)] = -0.5
    """s at the start; a loss begins with the weight 1 / (2 eˢ)."""
    lr_scale: PositiveFloat = 10.0
    """Their learning rate as a multiple of the optimiser's; they are never decayed."""


class GradNormWeights(Strict):
    """Weights under which objectives that learn more slowly pull harder at the trunk.

    `weight` says how hard each is to pull beside the others, where all learn alike.

    Source: GradNorm (arXiv:1711.02257).
    """

    kind: Literal["grad_norm"] = "grad_norm"
    """Discriminator."""
    alpha: Annotated[float, Field(ge=0)] = 1.5
    """How much harder; 0: all gradients of one length."""
    lr: PositiveFloat = 0.025
    """Of the weights' own descent."""
    every: PositiveInt = 1
    """Steps between two looks at the gradients; each costs a backward pass an objective."""


class DwaWeights(Strict):
    """Weights by how slowly each loss fell from one window to the next: the less, the more.

    Source: Dynamic Weight Average (arXiv:1803.10704).
    """

    kind: Literal["dwa"] = "dwa"
    """Discriminator."""
    temperature: PositiveFloat = 2.0
    """The higher, the more alike the weights."""
    window: NonNegativeInt = 0
    """Steps whose mean loss counts, since single steps are noise; 0: one epoch. A multiple of the
    pattern's length where objectives take turns."""


WeightingConfig = Annotated[
    FixedWeights | ImportanceWeights | UncertaintyWeights | GradNormWeights | DwaWeights,
    Field(discriminator="kind"),
]


class Alternating(Strict):
    """One objective a step, by turns; the turn is a function of the step, alike on every rank."""

    pattern: Annotated[tuple[str, ...], Field(min_length=1)]
    """Kinds of objectives in the order of their turns; the end is followed by the beginning."""


class Distance(Strict):
    """A trunk for each objective that trains one, drawn to their mean: λ Σ ‖θᵢ − θ̄‖².

    Others read the served trunk.

    Drawn apart from Adam, as weight decay is: after each step a trunk goes 2 · lr · λ of the way to
    the mean, lr being that step's, as `schedule` has it. `optimiser.clip_norm` is how long the
    gradient of each trunk may be, with what else its objective alone trains, and of the rest.
    """

    kind: Literal["distance"] = "distance"
    """Discriminator."""
    strength: Annotated[float, Field(ge=0)] = 10.0
    """λ; 0: each trunk for itself; from 1 / (2 · lr) on they are one after that step, and after
    every step if lr is the smallest rate. At a rate of 1e-3, 10 is a fiftieth of the way a step."""
    served: str
    """Kind of the objective whose trunk the bundle gets, with all that is trained on it."""


class CrossStitch(Strict):
    """A trunk for each objective, which mix their activations after every block.

    Each pass runs all trunks, so none of them is a model by itself: such a run is measured, and
    leaves no bundle. Source: cross-stitch networks (arXiv:1604.03539).
    """

    kind: Literal["cross_stitch"] = "cross_stitch"
    """Discriminator."""
    own: Annotated[float, Field(gt=0, le=1)] = 0.9
    """A trunk's share of its own activations at the start; the others have equal parts of the
    rest."""


SharingConfig = Annotated[Distance | CrossStitch, Field(discriminator="kind")]


class TasksConfig(Strict):
    """What to do about several objectives."""

    weighting: WeightingConfig = FixedWeights()
    """How much each loss counts in the sum."""
    normalise: Literal["none", "initial", "chance"] = "none"
    """What losses are divided by first: nothing, what each was in the first steps, or what knowing
    nothing costs (ln B for InfoNCE; the first steps' loss where an objective knows no such
    number)."""
    alternate: Alternating | None = None
    """None: all objectives in every step."""
    sharing: SharingConfig | None = None
    """None: one trunk for all."""
    conflict_every: NonNegativeInt = 0
    """Steps between two reports of the cosines between objectives' gradients on the trunk; 0:
    none. Each costs a backward pass an objective."""

    def check_kinds(self, kinds: Sequence[str]) -> None:
        """That this can be done with these objectives.

        Args:
            kinds: theirs, in the recipe's order.

        Raises:
            ValueError: it cannot; names the field, what was found and what is allowed.
        """
        known = ", ".join(kinds)
        if len(set(kinds)) < 2 or len(set(kinds)) < len(kinds):
            raise ValueError(f"tasks: found objectives {known}; allowed: two or more, all distinct")
        if self.alternate is not None:
            pattern = self.alternate.pattern
            if set(pattern) != set(kinds):
                raise ValueError(
                    f"tasks.alternate.pattern: found {', '.join(pattern)}; allowed: turns of "
                    f"{known}, each at least once"
                )
            if self._compares_gradients():
                raise ValueError(
                    "tasks.alternate: gradients are compared (tasks.conflict_every, weighting "
                    "grad_norm) where all objectives are in one step"
                )
        if self.sharing is not None:
            if self._compares_gradients():
                raise ValueError(
                    "tasks.sharing: gradients are compared (tasks.conflict_every, weighting "
                    "grad_norm) on one trunk for all"
                )
            if isinstance(self.sharing, Distance) and self.sharing.served not in kinds:
                raise ValueError(
                    f"tasks.sharing.served: found {self.sharing.served}; allowed: one of {known}"
                )

    def check_pieces(self) -> None:
        """That a batch may come in pieces: nothing looks at a loss or a gradient of the whole.

        Raises:
            ValueError: something does; names it, and what is allowed.
        """
        looking = {
            f"weighting {self.weighting.kind}": self.weighting.kind not in {"fixed", "importance"},
            f"normalise {self.normalise}": self.normalise != "none",
            f"conflict_every {self.conflict_every}": bool(self.conflict_every),
            f"sharing {getattr(self.sharing, 'kind', None)}": self.sharing is not None,
        }
        if found := [what for what, looks in looking.items() if looks]:
            raise ValueError(
                f"schedule.micro_batch: found tasks with {', '.join(found)}; allowed: weighting "
                "fixed or importance, normalise none, conflict_every 0 and one trunk for all, "
                "since the rest looks at losses of whole batches"
            )

    def _compares_gradients(self) -> bool:
        return bool(self.conflict_every) or self.weighting.kind == "grad_norm"
