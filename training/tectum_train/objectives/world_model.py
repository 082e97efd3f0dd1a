"""A world model: the next frame's latents from those before and from what is done.

Letters: b samples that are used, T frames of a clip, H the model's history, R frames of a rollout,
N latents of a frame, D their width, X numbers in what is done between two frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tectum_core.architecture import ModelConfig
from tectum_core.model import LatentActionModel, PerceptionModel, VisionTransformer, WorldModel
from tectum_train.distributed import all_sum
from tectum_train.losses.prediction import frame_errors, latent_sums, mean_error, spread_of
from tectum_train.momentum import Slow
from tectum_train.objectives.base import Averaged, Outcome, PartSettings, Sums, shares
from tectum_train.objectives.batch import Batch, Clip, Reads, given

__all__ = ["WorldModelObjective", "WorldModelObjectiveConfig"]

_SHUFFLED = 16
"""Sequences whose actions are exchanged to see whether they matter."""


class WorldModelObjectiveConfig(PartSettings):
    """Next latents, from the true ones before (teacher forcing) and from predicted ones."""

    kind: Literal["world_model"] = "world_model"
    """Discriminator."""
    rollout: Annotated[int, Field(ge=1, le=16)] = 2
    """Frames predicted in a row after the history, R; from the second on, from predicted ones."""
    encoder: Literal["detached", "trained"] = "detached"
    """`trained` lets the loss shape the trunk; its targets are then a slow copy's, or all frames
    would come to look alike."""
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Share of the slow copy that a step leaves."""
    decode_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of painting frames from latents that it cannot change; needs a decoder."""

    @property
    def reads(self) -> Reads:
        """Frames in a row, and what is done from each on."""
        return Reads.CLIP

    def trains_trunk(self, _: ModelConfig) -> bool:
        """If told to."""
        return self.encoder == "trained"

    @model_validator(mode="after")
    def _momentum_is_of_a_slow_copy(self) -> Self:
        if self.encoder == "detached":
            self.refuse("momentum", "with encoder 'trained' alone, which has a slow copy")
        return self


class WorldModelObjective(Averaged):
    """Squared error of predicted latents, as a share of what repeating the last frame costs.

    A mean over the frames that teacher forcing predicts; each frame of the rollout counts as much
    as all of those. Frames after the end of an episode do not count. Latent actions are read off
    the clip's own frames, and never shaped by what becomes of them here.

    Source: V-JEPA 2-AC (arXiv:2506.09985), teacher forcing and two-step rollout; slow targets: BYOL
    (arXiv:2006.07733).
    """

    name = "world_model"

    def __init__(self, config: WorldModelObjectiveConfig, model: PerceptionModel) -> None:
        super().__init__()
        self.config = config
        self.model = model
        world = self._world()
        if config.decode_weight and world.decoder is None:
            raise ValueError(
                f"objectives.world_model.decode_weight: found {config.decode_weight:g}; allowed: "
                "0, or where model.world_model.decoder paints"
            )
        self.slow = Slow(model.vision) if config.encoder == "trained" else None
        self.copy_error: Tensor
        # What repeating the last frame costs, averaged over steps: the loss's unit. 1 until the
        # first step is done, so that all of a step's pieces have the same one.
        self.register_buffer("copy_error", torch.ones(()))
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._copied: list[Tensor] = []

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss; per horizon h, `relative_h`: the error as a share of repeating.

        Also `shuffled`, the error with another sample's actions as a share of that with the true
        ones, and `spread`, how much latents differ from frame to frame. That other sample is of
        the same piece, so `shuffled` is not to the last digit the same however many there are. Of
        what lies in no rank's clips nothing is told.

        Raises:
            ValueError: the clip is too short.
        """
        world, used = self._world(), self.config.used(batch)
        clip = given(batch.clip, "clips")
        known, ahead = world.config.history, self.config.rollout
        count = known + ahead
        if clip.frames.shape[1] < count:
            raise ValueError(f"clips of {clip.frames.shape[1]} frames; {count} are needed")
        frames, inside = clip.frames[:used, :count], clip.inside[:used, :count]
        targets = self._targets(world, frames)
        seen = targets[:, :known]
        if self.config.encoder == "trained":
            seen = _latents(world, self.model.vision, frames[:, :known])
        actions = self._actions(world, clip, frames)

        forced = world(seen, _part(actions, 0, known), targets[:, :known])
        later = [forced[:, -1]]
        window = seen
        for step in range(1, ahead):
            window = torch.cat([window[:, 1:], later[-1][:, None]], dim=1)
            later.append(world(window, _part(actions, step, step + known))[:, -1])
        rolled = torch.stack(later, dim=1)

        errors, came = frame_errors(forced, targets[:, 1 : known + 1]), inside[:, 1 : known + 1]
        ahead_errors = frame_errors(rolled, targets[:, known:])
        rolled_on = mean_error(ahead_errors[:, 1:], inside[:, known + 1 :], came)
        loss = mean_error(errors, came) + known * rolled_on
        loss = loss / self.copy_error.clamp(min=1e-6)
        copying = frame_errors(targets[:, :-1], targets[:, 1:]) * inside[:, 1:]
        self._copied.append(torch.stack([copying.sum(), inside[:, 1:].sum().to(copying.dtype)]))

        metrics, sums = dict[str, Tensor](), _relative(ahead_errors, targets, inside, known)
        number, *others = latent_sums(targets, inside)
        sums["spread"] = Sums(spread_of, (number, *others), bool(number > 0))
        if actions is not None and used > 1:
            sums |= self._shuffled(world, seen, actions, errors, targets, inside)
        if self.config.decode_weight:
            painted = world.decode(targets[:, known])
            wrong = (painted.float() - frames[:, known]).square().mean(dim=(1, 2, 3))
            decoding = known * mean_error(wrong[:, None], inside[:, known : known + 1], came)
            loss = loss + self.config.decode_weight * decoding
            metrics["decoding"] = decoding.detach()
        return Outcome(loss, metrics, sums=sums, settled=int(self.steps) > 0)

    def counted(self, batch: Batch) -> Tensor:
        """Frames that teacher forcing predicts, of those that came."""
        known = self._world().config.history
        return given(batch.clip, "clips").inside[: self.config.used(batch), 1 : known + 1].sum()

    def after_step(self) -> None:
        """Let the loss's unit, and the slow trunk, follow."""
        if self._copied:
            total, number = all_sum(torch.stack(self._copied).sum(dim=0)).to(self.copy_error.dtype)
            # A step in which no frame came says nothing of what repeating costs.
            came = number > 0
            copying = torch.where(came, total / number.clamp(min=1), self.copy_error)
            self.copy_error.copy_(
                torch.where(self.steps > 0, self.copy_error.lerp(copying, 0.01), copying)
            )
            self.steps += came
        self._copied.clear()
        if self.slow is not None:
            self.slow.follow(self.model.vision, self.config.momentum)

    def _world(self) -> WorldModel:
        if self.model.world_model is None:
            raise ValueError(
                "model.world_model: found null; allowed: what world_model learns, such as "
                "{transformer: …, history: …}"
            )
        return self.model.world_model

    @torch.no_grad()
    def _targets(self, world: WorldModel, frames: Tensor) -> Tensor:
        """float32[b, T, N, D], without gradient."""
        trunk = self.model.vision if self.slow is None else self.slow.copy
        return _latents(world, trunk, frames)

    def _actions(self, world: WorldModel, clip: Clip, frames: Tensor) -> Tensor | None:
        """float[b, T − 1, X], what is done from each frame to the next; None without actions."""
        used, count = frames.shape[:2]
        if world.config.actions == "real":
            return clip.actions[:used, : count - 1].flatten(2)
        latent = self.model.latent_action
        if world.config.actions == "latent" and latent is not None:
            return _between(latent, self.model.vision, frames)
        return None

    @torch.no_grad()
    def _shuffled(
        self,
        world: WorldModel,
        seen: Tensor,
        actions: Tensor,
        errors: Tensor,
        targets: Tensor,
        inside: Tensor,
    ) -> dict[str, Sums]:
        """Error of the next frame with others' actions, as a share of that with the true ones."""
        some, known = slice(0, _SHUFFLED), seen.shape[1]
        others = actions.roll(1, dims=0)[some, :known]
        strange = world(seen[some], others, targets[some, :known])
        counted = inside[some, 1 : known + 1]
        wrong = frame_errors(strange, targets[some, 1 : known + 1])
        return shares({"shuffled": (wrong, errors[some], counted)}, 1e-9)


def _latents(world: WorldModel, trunk: VisionTransformer, frames: Tensor) -> Tensor:
    """Frames float[b, T, 3, S, S] as the world model knows them: float32[b, T, N, D]."""
    return world.seen(trunk(frames.flatten(0, 1))).unflatten(0, frames.shape[:2])


@torch.no_grad()
def _between(module: LatentActionModel, trunk: VisionTransformer, frames: Tensor) -> Tensor:
    """Latent actions between neighbours of a clip: float[b, T − 1, X]."""
    size, count = frames.shape[:2]
    small = module.frames(frames.flatten(0, 1)).unflatten(0, (size, count))
    pair = None
    if module.config.reads_trunk:
        tokens = trunk(frames.flatten(0, 1)).tokens.unflatten(0, (size, count))
        pair = (tokens[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(0, 1))
    with _as_served(module):
        earlier, later = small[:, :-1].flatten(0, 1), small[:, 1:].flatten(0, 1)
        vectors = module.infer(earlier, later, pair).vectors
    return vectors.flatten(1).unflatten(0, (size, count - 1))


@contextmanager
def _as_served(module: torch.nn.Module) -> Iterator[None]:
    """While a codebook shall be read, and not learn."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _part(actions: Tensor | None, start: int, stop: int) -> Tensor | None:
    return None if actions is None else actions[:, start:stop]


@torch.no_grad()
def _relative(errors: Tensor, targets: Tensor, inside: Tensor, known: int) -> dict[str, Sums]:
    """For each frame after the history, the error as a share of repeating the last one known."""
    repeated = targets[:, known - 1 : known].expand_as(targets[:, known:])
    copying = frame_errors(repeated, targets[:, known:])
    told = {
        f"relative_{step + 1}": (errors[:, step], copying[:, step], inside[:, known + step])
        for step in range(errors.shape[1])
    }
    return shares(told, 1e-6)
