"""Latent actions without labels: name the change so that the later frame can be predicted.

Letters: n samples that are used, s side of the module's frames, N trunk tokens, Dv their width,
C codes, E code width, k decoded steps, A numbers in an action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tectum_core.architecture import ModelConfig
from tectum_core.model import LatentActionModel, PerceptionModel
from tectum_core.model.bottleneck import codebook_size
from tectum_train.distributed import all_sum, mean_over_ranks, world_size
from tectum_train.losses.codes import code_uses, perplexity
from tectum_train.losses.prediction import latent_spread
from tectum_train.momentum import Slow
from tectum_train.objectives.base import Objective, Outcome, PartSettings, shares
from tectum_train.objectives.batch import Batch, Reads, given

__all__ = ["LatentAction", "LatentActionObjectiveConfig"]

_Pair = tuple[Tensor, Tensor]


class LatentActionObjectiveConfig(PartSettings):
    """Inverse and forward dynamics through a bottleneck."""

    kind: Literal["latent_action"] = "latent_action"
    """Discriminator."""
    decode_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of decoding the robot's own actions from latents that it cannot change; 0: the run
    sees no action labels."""
    appearance: Literal["same", "apart"] = "same"
    """`apart`: inverse dynamics reads the pair in other colours than forward dynamics paints it in,
    so a latent action that holds colours is of no use."""
    encoder: Literal["detached", "trained"] = "detached"
    """Where latents are predicted (`model.latent_action.target`): whether the loss shapes the
    trunk, by what is read of it; what is predicted is then a slow copy's."""
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Share of the slow copy that a step leaves."""

    @property
    def reads(self) -> Reads:
        """The later frame too, and both in other colours if inverse dynamics reads those."""
        return Reads.LATER | Reads.RECOLOURED if self.appearance == "apart" else Reads.LATER

    def trains_trunk(self, model: ModelConfig) -> bool:
        """Where it reads the trunk; where it predicts its latents, only if told to."""
        latent = model.latent_action
        if latent is None or latent.target == "latents":
            return self.encoder == "trained"
        return latent.reads_trunk

    @model_validator(mode="after")
    def _momentum_is_of_a_slow_copy(self) -> Self:
        if self.encoder == "detached":
            self.refuse("momentum", "with encoder 'trained' alone, which has a slow copy")
        return self


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What the trunk says of a pair; None where nobody asks."""

    read: _Pair | None = None
    """float[n, N, Dv] each, of the frames that inverse dynamics reads."""
    earlier: Tensor | None = None
    """float[n, N, Dv], of the earlier frame that forward dynamics begins from."""
    targets: tuple[Tensor | None, Tensor | None] = (None, None)
    """float[n, N, Dv] each, of both frames as they are predicted, without gradient."""


class LatentAction(Objective):
    """Mean squared error of the predicted later frame, as a share of copying the earlier one.

    The action decoder reads detached latents and features: labels never shape them.

    Where latents are predicted they cannot collapse while the trunk stays as it is. Where it learns
    (`encoder: trained`), targets are a slow copy's, which no gradient reaches, and so is what the
    change is added to: between the two trunks lies more than between two frames. That is BYOL's
    reason and no proof, so `spread` says how far apart they are.

    Source: LAPO (arXiv:2312.10812), LAPA (arXiv:2410.11758); latents and a slow trunk: LAOM
    (arXiv:2502.00379), BYOL (arXiv:2006.07733).
    """

    name = "latent_action"

    def __init__(self, config: LatentActionObjectiveConfig, model: PerceptionModel) -> None:
        super().__init__()
        self.config = config
        self.model = model
        module = self._module()
        if config.decode_weight and module.action_decoder is None:
            raise ValueError(
                f"objectives.latent_action.decode_weight: found {config.decode_weight:g}; allowed: "
                "0, or where model.latent_action.decoded_steps says what is decoded"
            )
        trained = config.encoder == "trained"
        if trained and module.config.target != "latents":
            raise ValueError(
                "objectives.latent_action.encoder: found 'trained'; allowed: with "
                "model.latent_action.target 'latents', as pixels need no encoder"
            )
        if trained and not module.config.reads_trunk:
            raise ValueError(
                "objectives.latent_action.encoder: found 'trained'; allowed: with "
                "model.latent_action.dynamics.source 'trunk', as nothing else of the loss teaches "
                "the trunk"
            )
        self.slow = Slow(model.vision) if trained else None
        self.copy_error: Tensor
        # What copying costs, averaged over steps: the loss's unit.
        self.register_buffer("copy_error", torch.zeros(()))

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and `relative`: the error as a share of copying, on this batch.

        Also `codes_used` and `perplexity` of the pairs' codes, and for latents `spread`, how much
        they differ from frame to frame. Samples without a later frame count in nothing, and no
        codebook learns from them: beside a copy of itself a frame says that nothing moves. Where no
        rank has a later frame, nothing of this is told.
        """
        module, used = self._module(), self.config.used(batch)
        pair = (batch.earlier[:used], given(batch.later, "later frames")[:used])
        told = pair
        if self.config.appearance == "apart":
            apart = given(batch.recoloured, "pairs in other colours")[:used]
            told = (apart[:, 0], apart[:, 1])
        tokens = self._tokens(module, batch, pair, told)
        earlier, later = module.frames(pair[0]), module.frames(pair[1])
        paired = batch.paired[:used]
        bottled = module.infer(module.frames(told[0]), module.frames(told[1]), tokens.read, paired)
        with torch.no_grad():
            before = module.target(earlier, tokens.targets[0])
            after = module.target(later, tokens.targets[1])
        predicted = module.predict(earlier, bottled.vectors, tokens.earlier, before)

        counted = paired.float()
        with torch.no_grad():
            still = (before - after).square().flatten(1).mean(dim=1)
            copying = all_sum(mean_over_ranks(still, counted)) / world_size()
            # A step in which no frame has a later one says nothing of what copying costs.
            cost = torch.where(copying > 0, copying, self.copy_error)
            before_it = torch.where(self.copy_error > 0, self.copy_error, cost)
            self.copy_error.copy_(before_it.lerp(cost, 0.01))
        wide = torch.promote_types(predicted.dtype, torch.float32)
        wrong = (predicted.to(wide) - after).square().flatten(1).mean(dim=1)
        error = mean_over_ranks(wrong, counted)
        kept = mean_over_ranks(bottled.losses, counted)
        loss = error / self.copy_error.clamp(min=1e-6) + kept
        sums, metrics = shares({"relative": (wrong, still, paired)}, 1e-6), dict[str, Tensor]()
        asked = sums["relative"].asked
        if asked and module.config.target == "latents":
            metrics["spread"] = latent_spread(after[:, None], paired[:, None])
        if asked and bottled.codes is not None:
            uses = code_uses(bottled.codes, codebook_size(module.config.bottleneck), paired)
            metrics |= {"codes_used": (uses > 0).sum().float(), "perplexity": perplexity(uses)}
        if self.config.decode_weight:
            pooled = batch.image(self.model).pooled[:used].detach()
            decoded = module.decode_actions(bottled.vectors.detach(), pooled)
            steps = decoded.shape[1]
            missed = (decoded.float() - batch.actions[:used, :steps]).square().mean(dim=(1, 2))
            decoding = mean_over_ranks(missed, counted)
            loss = loss + self.config.decode_weight * decoding
            if asked:
                metrics["decoding"] = decoding.detach()
        # Copying costs 1, and so does the mean of actions, which come in standard deviations.
        return Outcome(loss, metrics, 1.0 + self.config.decode_weight, sums=sums)

    def after_step(self) -> None:
        """Let the slow trunk follow."""
        if self.slow is not None:
            self.slow.follow(self.model.vision, self.config.momentum)

    def _module(self) -> LatentActionModel:
        if self.model.latent_action is None:
            raise ValueError(
                "model.latent_action: found null; allowed: what latent_action learns, such as "
                "{dynamics: …, bottleneck: …}"
            )
        return self.model.latent_action

    def _tokens(self, module: LatentActionModel, batch: Batch, pair: _Pair, told: _Pair) -> _Tokens:
        """What of the trunk is asked for.

        Args:
            module: of the model.
            batch: its shared pass is asked where the trunk learns from this.
            pair: float[n, 3, S, S] each, what forward dynamics begins from and predicts.
            told: likewise, what inverse dynamics reads.
        """
        reads, latents = module.config.reads_trunk, module.config.target == "latents"
        if not module.config.predicts_from_trunk:
            return _Tokens()
        vision, shaped = self.model.vision, not latents or self.config.encoder == "trained"
        with torch.set_grad_enabled(shaped and torch.is_grad_enabled()):
            shared = batch.image(self.model).tokens[: len(pair[0])] if shaped else None
            earlier = vision(pair[0]).tokens if shared is None else shared
            read = None
            if reads and told is pair:
                read = (earlier, vision(pair[1]).tokens)
            elif reads:
                read = (vision(told[0]).tokens, vision(told[1]).tokens)
        if not latents:
            return _Tokens(read, earlier)
        with torch.no_grad():
            if self.slow is not None:
                return _Tokens(read, earlier, (self._slowly(pair[0]), self._slowly(pair[1])))
            later = read[1] if read is not None and told is pair else vision(pair[1]).tokens
            return _Tokens(read, earlier, (earlier, later))

    def _slowly(self, frames: Tensor) -> Tensor:
        """The slow trunk's tokens, float[n, N, Dv]."""
        slow = given(self.slow, "a slow trunk").copy
        tokens: Tensor = slow(frames).tokens
        return tokens
