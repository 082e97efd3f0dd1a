"""Where image, text and action tokens meet: masked texts and masked actions are filled in here.

A modality that is absent simply contributes no tokens; training drops conditions at
random so that the model knows how that is. Predicting an action chunk is filling in a
sequence of which every step is hidden.

Letters: B batch, N image tokens, L text tokens, T action steps, A numbers in an action,
S numbers in a state, D the fusion's width, V vocabulary, K bins of each number in an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.architecture import ActionConfig, FusionConfig
from tectum_core.model.action_bins import ActionBins
from tectum_core.model.initial import small_normal
from tectum_core.model.transformer import Transformer

__all__ = ["ActionEncoder", "Context", "Fusion", "straight"]

_TRUST_AT_FIRST = -6.0
"""In the line between visible steps, before softplus: next to none, so every bin is as probable."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a fusion may look at besides its target; None is absent for the whole batch."""

    image: Tensor | None = None
    """float[B, N, Dv], the vision trunk's tokens."""
    text: Tensor | None = None
    """float[B, L, Dt], the text trunk's tokens."""
    text_seen: Tensor | None = None
    """bool[B, L], False at padding; required with `text`."""
    state: Tensor | None = None
    """float[B, S], standardised."""


class ActionEncoder(nn.Module):
    """Action steps and the robot's state as tokens."""

    def __init__(self, config: ActionConfig, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(config.dimensions, width)
        self.hidden = small_normal(width)
        self.positions = small_normal(1, config.max_steps, width)
        self.embed_state = (
            nn.Linear(config.state_dimensions, width) if config.state_dimensions else None
        )

    def forward(self, actions: Tensor, hidden: Tensor) -> Tensor:
        """Encode a sequence.

        Args:
            actions: float[B, T, A], standardised; hidden steps' values are not read.
            hidden: bool[B, T].

        Returns:
            float[B, T, D].
        """
        visible = self.embed(actions.masked_fill(hidden[:, :, None], 0.0))
        x = torch.where(hidden[:, :, None], self.hidden.to(visible.dtype), visible)
        return x + self.positions[:, : x.shape[1]]

    def encode_state(self, state: Tensor) -> Tensor:
        """float[B, S], standardised, to one token float[B, 1, D]."""
        if self.embed_state is None:
            raise ValueError("this model takes no state")
        return self.embed_state(state)[:, None]


class Fusion(nn.Module):
    """A transformer over the tokens of all modalities, and the heads that read it."""

    def __init__(
        self,
        config: FusionConfig,
        vision_width: int,
        text_width: int,
        vocabulary_size: int,
        actions: ActionConfig | None,
    ) -> None:
        super().__init__()
        width = config.transformer.width
        self.from_image = nn.Linear(vision_width, width)
        self.from_text = nn.Linear(text_width, width)
        self.modality = nn.ParameterDict(
            {name: small_normal(width) for name in ("image", "text", "action", "state")}
        )
        self.actions = None if actions is None else ActionEncoder(actions, width)
        self.transformer = Transformer(config.transformer)
        self.final_norm = nn.LayerNorm(width, eps=config.transformer.norm_eps)
        self.token_head = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(),
            nn.LayerNorm(width),
            nn.Linear(width, vocabulary_size),
        )
        self.bins = (
            None
            if actions is None or actions.bins is None
            else ActionBins(actions.bins, actions.dimensions)
        )
        # Of a number with bins: a logit for each, and how far the line is to be trusted.
        each = 1 if self.bins is None else self.bins.config.count + 1
        self.action_head = None if actions is None else nn.Linear(width, actions.dimensions * each)

    def fill_text(self, text: Tensor, text_seen: Tensor, image: Tensor | None) -> Tensor:
        """Logits for every token of texts whose hidden tokens were replaced before encoding.

        Args:
            text: float[B, L, Dt], the text trunk's tokens.
            text_seen: bool[B, L].
            image: float[B, N, Dv], or None.

        Returns:
            float[B, L, V].
        """
        context = Context(image=image, text=text, text_seen=text_seen)
        tokens, seen = self._gather(context, text.shape[0], text.device)
        x = self.final_norm(self.transformer(tokens, seen))
        return self.token_head(x[:, -text.shape[1] :])

    def fill_actions(self, actions: Tensor, hidden: Tensor, context: Context) -> Tensor:
        """Predict every step of action sequences.

        What is learnt is the departure from the straight line between visible steps: where a
        hidden run is short, the line is nearly right already.

        Args:
            actions: float[B, T, A], standardised; hidden steps' values are not read.
            hidden: bool[B, T].
            context: what else may be looked at.

        Returns:
            float[B, T, A], standardised; with bins the mean of their centres.
        """
        if self.bins is not None:
            return self.bins.expected(self.guess_actions(actions, hidden, context))
        return straight(actions, hidden) + self._act(actions, hidden, context)

    def guess_actions(self, actions: Tensor, hidden: Tensor, context: Context) -> Tensor:
        """Logits of every number's bins, arguments as for `fill_actions`.

        Bins near the straight line have the higher logits the further a step trusts it, which is
        learnt too.

        Returns:
            float32[B, T, A, K], or as wide as the model is.

        Raises:
            ValueError: this model has no bins.
        """
        if self.bins is None:
            raise ValueError("this model's actions have no bins (model.actions.bins)")
        said = self._act(actions, hidden, context).unflatten(-1, (actions.shape[2], -1))
        said = said.to(torch.promote_types(said.dtype, torch.float32))
        line = straight(actions, hidden).to(said.dtype)
        far = (self.bins.centres - line[..., None]).square()
        return said[..., 1:] - F.softplus(said[..., :1] + _TRUST_AT_FIRST) * far

    def _act(self, actions: Tensor, hidden: Tensor, context: Context) -> Tensor:
        """What the head says of every step: float[B, T, …]."""
        if self.actions is None or self.action_head is None:
            raise ValueError("this model has no action path")
        steps = self.actions(actions, hidden) + self.modality["action"]
        tokens, seen = self._gather(context, actions.shape[0], actions.device)
        shown = torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device)
        x = self.transformer(torch.cat([tokens, steps], dim=1), torch.cat([seen, shown], dim=1))
        found: Tensor = self.action_head(self.final_norm(x[:, -steps.shape[1] :]))
        return found

    def _gather(self, context: Context, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The context's tokens float[B, M, D] and which of them may be attended to, bool[B, M]."""
        width = self.final_norm.normalized_shape[0]
        tokens = [torch.zeros(batch, 0, width, device=device)]
        seen = [torch.zeros(batch, 0, dtype=torch.bool, device=device)]
        if context.state is not None:
            if self.actions is None:
                raise ValueError("this model has no action path, so it takes no state")
            tokens.append(self.actions.encode_state(context.state) + self.modality["state"])
        if context.image is not None:
            tokens.append(self.from_image(context.image) + self.modality["image"])
        seen += [torch.ones(part.shape[:2], dtype=torch.bool, device=device) for part in tokens[1:]]
        if context.text is not None:
            if context.text_seen is None:
                raise ValueError("text comes with text_seen")
            tokens.append(self.from_text(context.text) + self.modality["text"])
            seen.append(context.text_seen)
        return torch.cat(tokens, dim=1), torch.cat(seen, dim=1)


def straight(actions: Tensor, hidden: Tensor) -> Tensor:
    """Hidden steps on the line between their visible neighbours; beyond the last one it repeats.

    Args:
        actions: float[B, T, A]; hidden steps' values are not read.
        hidden: bool[B, T].

    Returns:
        float[B, T, A]; zeros, the mean action, where nothing is visible.
    """
    places = torch.arange(actions.shape[1], device=actions.device).expand(hidden.shape)
    last = len(places[0])
    before = places.masked_fill(hidden, -1).cummax(dim=1).values
    after = places.masked_fill(hidden, last).flip(1).cummin(dim=1).values.flip(1)
    nearest_before = torch.where(before >= 0, before, after).clamp(max=last - 1)
    nearest_after = torch.where(after < last, after, before).clamp(min=0)
    width = actions.shape[2]
    left = actions.gather(1, nearest_before[:, :, None].expand(-1, -1, width))
    right = actions.gather(1, nearest_after[:, :, None].expand(-1, -1, width))
    gap = (nearest_after - nearest_before).clamp(min=1)
    share = ((places - nearest_before).to(actions.dtype) / gap).clamp(0, 1)[:, :, None]
    line = left + share * (right - left)
    return line.masked_fill(hidden.all(dim=1)[:, None, None], 0.0)
