"""DINOv2: a student says of every view what a slow teacher says of the whole picture.

Of whole views, the student also says what the teacher says of patches that it cannot see (iBOT),
and keeps its vectors apart (KoLeo).

Letters: b samples, V small views, S the model's side, N patches, M hidden ones, D width of the
trunk, K prototypes. Both whole views of all samples are a batch of 2b, view by view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Literal, Self

import torch
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from torch import Generator, Tensor, nn

from tectum_core.masks import block_mask
from tectum_core.model import PerceptionModel, Replaced, VisionTransformer
from tectum_train.distributed import all_sum, own_samples, world_size
from tectum_train.heads import PrototypeHead
from tectum_train.losses.distillation import (
    centred,
    dino_cross_entropy,
    entropy,
    ibot_cross_entropy,
    koleo,
    moved_centre,
    sinkhorn_knopp,
)
from tectum_train.losses.precision import sum_dtype
from tectum_train.momentum import Slow, momentum_at
from tectum_train.objectives.base import Objective, Outcome, PartSettings, Sums, averages
from tectum_train.objectives.batch import Batch, Reads, given

__all__ = ["Dino", "DinoConfig", "masks_of"]

_Share = Annotated[float, Field(gt=0, lt=1)]


class DinoConfig(PartSettings):
    """Self-distillation; without the patches' and KoLeo's terms it is DINO's first version."""

    kind: Literal["dino"] = "dino"
    """Discriminator."""
    prototypes: Annotated[int, Field(ge=2)] = 1024
    """K (65,536 in the paper; on small data at most 4,096)."""
    hidden: PositiveInt = 512
    """Width of the heads' hidden layers (2,048 in the paper)."""
    bottleneck: PositiveInt = 128
    """Length of the vectors that are compared to prototypes (256 in the paper)."""
    batch_norm: bool = False
    """Whether these vectors go through a BatchNorm over all ranks, so that in a short run no
    direction takes over; the paper's heads do without."""
    student_temperature: PositiveFloat = 0.1
    """What the student's cosines are divided by."""
    teacher_temperature: tuple[PositiveFloat, PositiveFloat] = (0.07, 0.07)
    """What the teacher's are divided by, at first and after `teacher_steps` (0.04 and 0.07 in the
    paper); below the student's, or there is nothing to sharpen towards."""
    teacher_steps: NonNegativeInt = 0
    """Steps over which its temperature rises, along a line; 0: both are one."""
    centring: Literal["mean", "sinkhorn_knopp"] = "mean"
    """What keeps the teacher from collapse: its mean is taken off its logits, or each batch is
    balanced over prototypes."""
    centre_momentum: _Share = 0.9
    """Share of the centre that a step leaves."""
    momentum: _Share = 0.992
    """Share of the teacher that a step leaves."""
    momentum_steps: NonNegativeInt = 0
    """Steps over which momentum rises to 1 along a cosine, all of the run in the paper; 0: it
    stays."""
    frozen_steps: NonNegativeInt = 0
    """First steps in which prototypes stay where they are; an epoch in the paper."""
    patch_weight: NonNegativeFloat = 0.5
    """Weight of what is said of hidden patches. The paper's 1 is of a mean that counts the half of
    the pictures that hides none as zeros."""
    patch_head: Literal["shared", "own"] = "shared"
    """Whether patches have the whole pictures' head and prototypes; `own` in the paper's large
    models."""
    masked_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of whole views in which the student's patches are hidden."""
    mask_ratio: tuple[_Share, _Share] = (0.1, 0.5)
    """Share of such a view's patches, least and most."""
    koleo_weight: NonNegativeFloat = 0.1
    """Weight of KoLeo, once for each whole view."""

    @property
    def sees_frames(self) -> bool:
        """Views alone."""
        return False

    @property
    def reads(self) -> Reads:
        """Two views, and small ones if there are any."""
        return Reads.VIEWS | Reads.CROPS

    @property
    def fewest(self) -> int:
        """Two, where a picture is kept apart from others or has a variance with them."""
        return 2 if self.koleo_weight or self.batch_norm else 1

    @model_validator(mode="after")
    def _temperatures_rise_below_the_students(self) -> Self:
        (first, last), student = self.teacher_temperature, self.student_temperature
        if not first <= last < student:
            raise ValueError(
                f"dino.teacher_temperature: found {first:g} to {last:g}; allowed: the "
                f"first at most the last, and both below student_temperature ({student:g})"
            )
        if first < last and not self.teacher_steps:
            raise ValueError(
                f"dino.teacher_steps: found 0; allowed: above 0, or teacher_temperature "
                f"({first:g} to {last:g}) never is the first"
            )
        if first == last:
            self.refuse("teacher_steps", "0, as teacher_temperature is the same first and last")
        return self

    @model_validator(mode="after")
    def _masks_are_some(self) -> Self:
        least, most = self.mask_ratio
        if least > most:
            raise ValueError(
                f"dino.mask_ratio: found {least:g} to {most:g}; allowed: from least to most"
            )
        if not self.patch_weight:
            for name in ("patch_head", "masked_share", "mask_ratio"):
                self.refuse(name, "with patch_weight above 0 alone")
        if self.centring != "mean":
            self.refuse("centre_momentum", "with centring 'mean' alone")
        return self


class _Network(nn.Module):
    """Trunk and heads, as one thing to follow."""

    def __init__(self, vision: VisionTransformer, config: DinoConfig) -> None:
        super().__init__()
        self.vision = vision
        width = vision.config.transformer.width

        def head() -> PrototypeHead:
            return PrototypeHead(
                width, config.hidden, config.bottleneck, config.prototypes, normed=config.batch_norm
            )

        self.of_views = head()
        own = config.patch_weight > 0 and config.patch_head == "own"
        self.of_patches = head() if own else self.of_views


class Dino(Objective):
    """Self-distillation over views, hidden patches, and KoLeo.

    Source: DINOv2 (arXiv:2304.07193), section 4; DINO (arXiv:2104.14294), iBOT (arXiv:2111.07832).
    """

    name = "dino"
    view_centre: Tensor
    patch_centre: Tensor
    steps: Tensor

    def __init__(self, config: DinoConfig, model: PerceptionModel) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.student = _Network(model.vision, config)
        self.teacher = Slow(self.student)
        self.mask = nn.Parameter(torch.zeros(model.config.vision.transformer.width))
        self.register_buffer("view_centre", torch.zeros(config.prototypes))
        self.register_buffer("patch_centre", torch.zeros(config.prototypes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._new: dict[str, list[tuple[Tensor, int]]] = {"view_centre": [], "patch_centre": []}

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, its terms, and what shows collapse.

        `views` pinned at ln K (`relative` at 1) and `teacher_entropy` at ln K: the teacher tells
        nothing apart. `marginal_entropy`, that of its shares' mean over all ranks, near 0: it says
        the same of everything. `divergence` is what `views` has above the teacher's entropy.
        """
        config, used = self.config, self.config.used(batch)
        whole = given(batch.views, "views")[:used].transpose(0, 1).flatten(0, 1)
        crops = given(batch.crops, "crops")[:used].transpose(0, 1).flatten(0, 1)
        hidden = None
        if config.patch_weight > 0:
            hidden = self._hidden(batch, used).to(whole.device)
        pictures, patches = self._taught(whole, hidden)

        frozen = int(self.steps) < config.frozen_steps
        replaced = None if hidden is None else Replaced(hidden, self.mask)
        seen = self.student.vision(whole, replaced=replaced)
        pooled = [seen.pooled]
        if len(crops):
            pooled.append(self.student.vision(crops).pooled)
        said = self.student.of_views(torch.cat(pooled), frozen).unflatten(0, (-1, used))
        temperature = config.student_temperature
        views = dino_cross_entropy(said, pictures.unflatten(0, (2, used)), temperature)
        total = views
        metrics, sums = self._metrics(pictures, patches, views)
        if hidden is not None and patches is not None:
            guessed = self.student.of_patches(seen.tokens[hidden], frozen)
            term = ibot_cross_entropy(guessed, patches, hidden, temperature)
            total = total + config.patch_weight * term
            metrics["patches"] = term.detach()
        if config.koleo_weight > 0:
            apart = torch.stack([koleo(one) for one in seen.pooled.split(used)])
            total = total + config.koleo_weight * apart.sum()
            metrics["koleo"] = apart.detach().mean()
        return Outcome(total, metrics, sums=sums)

    def after_step(self) -> None:
        """Let the teacher follow, and the centres what it said in this step.

        Not before: a centre that knows a batch would answer for it.
        """
        config, step = self.config, int(self.steps)
        for name, new in self._new.items():
            if new:
                total, count = torch.stack([one for one, _ in new]).sum(0), sum(n for _, n in new)
                centre = self.get_buffer(name)
                centre.copy_(moved_centre(centre, total, count, config.centre_momentum))
                new.clear()
        rise = config.momentum_steps
        momentum = momentum_at(step, rise, config.momentum) if rise else config.momentum
        self.teacher.follow(self.student, momentum)
        self.steps += 1

    @torch.no_grad()
    def teach(self, pictures: Tensor, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """What the teacher says, of which nothing is learnt, nor moves a centre.

        Args:
            pictures: float[B, 3, S, S].
            generator: of the patches that are asked about, as many as training hides.

        Returns:
            Shares of the pictures, float[B, K], and of some of their patches, float[M, K]; None
            where none are learnt from.
        """
        config, hidden = self.config, None
        if config.patch_weight > 0:
            hidden = masks_of(
                len(pictures), self.model.config.vision.grid, config.masked_share,
                config.mask_ratio, generator,
            ).to(pictures.device)  # fmt: skip
        of_pictures, of_patches = self._compared(pictures, hidden)
        shares = self._shares(of_pictures, "view_centre")
        return shares, None if of_patches is None else self._shares(of_patches, "patch_centre")

    @torch.no_grad()
    def _taught(self, whole: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the teacher says of whole views, float[2b, K], and of patches, float[M, K]."""
        pictures, patches = self._compared(whole, hidden)
        if self.config.centring == "mean":
            self._new["view_centre"].append((pictures.sum(dim=0), len(pictures)))
            if patches is not None:
                self._new["patch_centre"].append((patches.sum(dim=0), len(patches)))
        shares = self._shares(pictures, "view_centre")
        return shares, None if patches is None else self._shares(patches, "patch_centre")

    def _compared(self, whole: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The teacher's cosines to prototypes, of pictures and of patches."""
        network = self.teacher.copy
        seen = network.vision(whole)
        patches = None if hidden is None else network.of_patches(seen.tokens[hidden])
        return network.of_views(seen.pooled), patches

    def _shares(self, logits: Tensor, centre: str) -> Tensor:
        config = self.config
        first, last = config.teacher_temperature
        done = min(int(self.steps) / config.teacher_steps, 1.0) if config.teacher_steps else 1.0
        temperature = first + (last - first) * done
        if config.centring == "sinkhorn_knopp":
            return sinkhorn_knopp(logits, temperature)
        return centred(logits, self.get_buffer(centre), temperature)

    def _hidden(self, batch: Batch, used: int) -> Tensor:
        """bool[2b, N]: which views hide how much is the step's, where they do the sample's own."""
        config, grid = self.config, self.model.config.vision.grid
        every = 2 * used * world_size()
        step = batch.stream(self.name)
        ratios = _ratios_of(every, config.masked_share, config.mask_ratio, step)
        own = ratios.unflatten(0, (2, -1))[:, own_samples()].flatten(0, 1).tolist()
        streams = list(islice(batch.streams(self.name), used))
        return _blocks_of(own, grid, (*streams, *streams))

    @torch.no_grad()
    def _metrics(
        self, pictures: Tensor, patches: Tensor | None, views: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Sums]]:
        """Of all ranks' shares: the mean's entropy is no mean of ranks' entropies."""
        told = {"teacher_entropy": pictures}
        if patches is not None:
            told["patch_teacher_entropy"] = patches
        nats = {name: entropy(shares) for name, shares in told.items()}
        sums = averages({name: (one, one >= 0) for name, one in nats.items()})
        total = all_sum(pictures.sum(dim=0, dtype=sum_dtype(pictures.device)))
        sums["marginal_entropy"] = Sums(_entropy_of_mean, (total,))
        found = {
            "views": views.detach(),
            "relative": views.detach() / math.log(self.config.prototypes),
            "divergence": views.detach() - sums["teacher_entropy"].value(),
        }
        if self.config.centring == "mean":
            found["centre_norm"] = self.view_centre.norm()
        return found, sums


def _entropy_of_mean(total: Tensor) -> Tensor:
    """Of the shares' sum, float[K]."""
    return entropy(total / total.sum())


def masks_of(
    pictures: int, grid: int, share: float, ratio: tuple[float, float], generator: Generator
) -> Tensor:
    """Blocks in some pictures, of ratios spread evenly over a range: bool[pictures, grid²].

    Args:
        pictures: how many.
        grid: patches along a side.
        share: of pictures with a mask, at least one.
        ratio: of patches in one, least and most.
        generator: of the choice, on the CPU.

    Source: DINOv2 (arXiv:2304.07193), as its code spreads ratios; blocks as in BEiT.
    """
    ratios = _ratios_of(pictures, share, ratio, generator).tolist()
    return _blocks_of(ratios, grid, [generator] * pictures)


def _ratios_of(
    pictures: int, share: float, ratio: tuple[float, float], generator: Generator
) -> Tensor:
    """Of the patches that each hides, float64[pictures]; 0: none of them."""
    masked = max(1, round(pictures * share))
    least, most = ratio
    place = torch.arange(masked, dtype=torch.float64)
    place = (place + torch.rand(masked, generator=generator)) / masked
    ratios = torch.zeros(pictures, dtype=torch.float64)
    chosen = torch.randperm(pictures, generator=generator)[:masked]
    ratios[chosen] = least + (most - least) * place
    return ratios


def _blocks_of(ratios: Sequence[float], grid: int, generators: Sequence[Generator]) -> Tensor:
    """bool[pictures, grid²], each picture's block drawn by its own generator."""
    hidden = torch.zeros(len(ratios), grid * grid, dtype=torch.bool)
    for row, ratio, generator in zip(hidden, ratios, generators, strict=True):
        if ratio:
            row[:] = block_mask(grid, grid, ratio, generator)
    return hidden
