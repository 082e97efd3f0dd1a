"""Several objectives as one: whose turn it is, in which unit, how much each counts, what ties them.

Letters: K objectives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from tectum_train.distributed import all_sum
from tectum_train.objectives.base import Objective, Outcome
from tectum_train.objectives.batch import Batch
from tectum_train.objectives.weighted import named
from tectum_train.tasks.gradients import cosines, lengths, reached, reached_alone, task_gradients
from tectum_train.tasks.settings import Distance, TasksConfig
from tectum_train.tasks.sharing import distance, pull
from tectum_train.tasks.units import Units
from tectum_train.tasks.weights import weighting_for

__all__ = ["ManyTasks"]


class ManyTasks(Objective):
    """Objectives that learn together.

    Args:
        parts: each with its weight.
        trunks: what they share, one module, or those that they train under soft sharing.
        config: of the recipe.
        epoch: steps in which every sample comes once.

    Raises:
        ValueError: there are more trunks than objectives.
    """

    name = ""

    def __init__(
        self,
        parts: Sequence[tuple[float, Objective]],
        trunks: Sequence[nn.Module] = (),
        config: TasksConfig | None = None,
        epoch: int = 1,
    ) -> None:
        super().__init__()
        if len(trunks) > len(parts):
            raise ValueError(f"{len(parts)} objectives cannot train {len(trunks)} trunks")
        self.config = config or TasksConfig()
        self.parts = nn.ModuleList(objective for _, objective in parts)
        self.units = Units(len(parts), self.config.normalise)
        self.weighting = weighting_for(self.config.weighting, [w for w, _ in parts], epoch)
        self.turn: Tensor
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))
        self._trunks = list(trunks)  # the model's; no parts of this module
        self._reaches: list[set[int]] = []
        self.names = [objective.name for _, objective in parts]

    def forward(self, batch: Batch) -> Outcome:
        """The sum to descend; metrics under `<objective>/<metric>`, each loss among them.

        A loss is told as the objective says it, before units and weights.
        """
        active, metrics = self._active(), dict[str, Tensor]()
        losses, chances, settled = list[Tensor](), list[float | None](), list[bool]()
        for (_, part), runs in zip(self.named_parts(), active, strict=True):
            if not runs:
                losses.append(torch.zeros((), device=batch.earlier.device))
                chances.append(None)
                settled.append(False)
                continue
            outcome: Outcome = part(batch)
            losses.append(outcome.loss)
            chances.append(outcome.chance)
            settled.append(outcome.settled)
            metrics |= named(part, outcome)
        if isinstance(self.config.sharing, Distance):
            self._reaches = [reached(loss) for loss in losses]
        total, more = self._sum(losses, active, settled, chances)
        return Outcome(total, metrics | more)

    def clipped_apart(self) -> list[list[nn.Parameter]]:
        """Groups of parameters whose gradients of the last forward are each as long as they may be.

        All in one; under `distance` what each objective alone trains, its trunk too, and last what
        several do: else a long gradient of one would shorten the step of another's trunk.
        """
        own = [one for one in self.parameters() if one.requires_grad]
        if not isinstance(self.config.sharing, Distance):
            return [own]
        alone = reached_alone(self._reaches, own)
        taken = set[int]().union(*alone)
        # In each objective's own order, as it would be without the others: so norms are rounded.
        groups = [
            [one for one in part.parameters() if id(one) in its]
            for (_, part), its in zip(self.named_parts(), alone, strict=True)
        ]
        return [*groups, [one for one in own if id(one) not in taken]]

    def draw_together(self, rate: float) -> None:
        """Under `distance`, move trunks towards their mean; called after each optimiser step.

        Args:
            rate: the optimiser's learning rate.
        """
        if isinstance(self.config.sharing, Distance):
            pull(self._trunks, 2 * rate * self.config.sharing.strength)

    def after_step(self) -> None:
        """That of every part whose turn it was."""
        for part, runs in zip(self.parts, self._active(), strict=True):
            if runs and isinstance(part, Objective):
                part.after_step()
        self.turn += 1

    def named_parts(self) -> Iterator[tuple[str, Objective]]:
        """Each objective under its name."""
        for name, part in zip(self.names, self.parts, strict=True):
            if isinstance(part, Objective):
                yield name, part

    def terms(self) -> Iterator[tuple[float, Objective]]:
        """This step's objectives, with weights that look at no loss (see `check_pieces`)."""
        given = self.weighting.weights().tolist()
        for weight, (_, part), runs in zip(given, self.named_parts(), self._active(), strict=True):
            if runs:
                yield weight, part

    def counted(self, units: Tensor | None = None) -> dict[str, Tensor]:
        """What there is to tell of weights: those of this step's objectives, if they say anything.

        Args:
            units: float[K], what losses are divided by; None: nothing.
        """
        if self.config.weighting.kind == "fixed" and self.config.normalise == "none":
            return {}
        counts = self.weighting.weights() / (1 if units is None else units)
        named_counts = zip(self.names, counts, self._active(), strict=True)
        # What an idle one's would be says nothing: its chance is not known, its unit another.
        return {f"{name}/weight": count for name, count, ran in named_counts if ran}

    def _active(self) -> list[bool]:
        if self.config.alternate is None:
            return [True] * len(self.names)
        pattern = self.config.alternate.pattern
        turn = pattern[int(self.turn) % len(pattern)]
        return [name == turn for name in self.names]

    def _sum(
        self,
        losses: Sequence[Tensor],
        runs: Sequence[bool],
        settled: Sequence[bool],
        chances: Sequence[float | None],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What is descended, and what there is to tell of it.

        Weighed by who is heard: has `settled`, and a loss above 0 on the mean over ranks. One of 0
        is of a step in which nothing counted, and not of what is learnt already.
        """
        told = torch.stack([one.detach() for one in losses])
        active, known = (torch.tensor(which, device=told.device) for which in (runs, settled))
        heard = known & (all_sum(told) > 0)
        units = self.units.of(told, heard, chances)
        scaled = [loss / unit for loss, unit in zip(losses, units, strict=True)]
        every = self.config.conflict_every
        reported = bool(every) and int(self.turn) % every == 0
        wanted = all(settled) and self.weighting.wants_gradients()
        gradients = task_gradients(scaled, self._shared()) if reported or wanted else None
        metrics = dict[str, Tensor]()
        if reported and gradients is not None:
            found = cosines(gradients, self.names)
            metrics |= {f"conflict/{pair}": value for pair, value in found.items()}
        with torch.no_grad():
            if wanted and gradients is not None:
                self.weighting.balance(told / units, lengths(gradients))
            self.weighting.observe(told / units, heard)
        metrics |= self.counted(units)
        total = self.weighting.total(torch.stack(scaled), active, heard)
        if isinstance(self.config.sharing, Distance):
            with torch.no_grad():
                apart = distance(self._trunks)
            # Told without its graph: `draw_together` does what its gradient would.
            total = total + self.config.sharing.strength * apart
            metrics["sharing/distance"] = apart
        return total, metrics

    def _shared(self) -> list[nn.Parameter]:
        """What objectives' gradients are compared on: all of the one trunk."""
        if len(self._trunks) != 1:
            raise ValueError("gradients are compared on one shared trunk")
        return [one for one in self._trunks[0].parameters() if one.requires_grad]
