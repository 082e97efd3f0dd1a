"""What calls hold, as far as the model that is asked takes it: the same over gRPC and over REST."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tectum_cli.load.pictures import Picture

__all__ = ["SENTENCES", "Contents", "Takes"]

# T frames or steps, A numbers of an action, K candidates, F predicted frames, k actions of a frame

SENTENCES = (
    "open the drawer",
    "close the door of the cupboard",
    "turn the tap to the left",
    "push the red block to the goal",
)
"""Texts to ask with."""


@dataclass(frozen=True)
class Takes:
    """What a model takes; lengths are 0 where it takes no such thing."""

    name: str
    """`name@version`."""
    can: frozenset[str]
    """Values of `Capability`."""
    most_items: int
    """Of one call."""
    clip_frames: int = 0
    steps: int = 0
    """Of the longest action sequence to be reconstructed."""
    numbers: int = 0
    """In one of its actions."""
    world_steps: int = 0
    """Frames that are predicted, at most."""
    world_actions: int = 0
    """Between two of them."""
    world_numbers: int = 0
    """In one of those. 0: the world model reads none."""
    action_space_id: str = ""
    """Of the latent actions that the world model reads. Empty: it reads none, or real ones."""

    @classmethod
    def of(
        cls,
        name: str,
        can: Iterable[str],
        most_items: int,
        takes: Mapping[str, Any],
        spaces: Iterable[Mapping[str, Any]],
    ) -> Takes:
        """Read a description.

        Args:
            name: `name@version`.
            can: values of `Capability`.
            most_items: of one call.
            takes: the SDK's `InputSpec` as a dict, or `input` of GET /v1/models.
            spaces: likewise, `Space`.
        """
        clip, actions, world = (
            takes.get(part) or {} for part in ("clip", "actions", "world_model")
        )
        own = (one["space_id"] for one in spaces if one["kind"] == "latent_action")
        return cls(
            name,
            frozenset(can),
            most_items,
            clip_frames=clip.get("frames", 0),
            steps=actions.get("max_steps", 0),
            numbers=len(actions.get("names", ())),
            world_steps=world.get("max_steps", 0),
            world_actions=world.get("action_steps", 0),
            world_numbers=world.get("action_dimensions", 0),
            action_space_id=next(own, "") if world.get("actions") == "latent" else "",
        )

    def places(self, op: str, items: int) -> int:
        """How many of `most_items` a call takes that holds so many items."""
        if op == "embed_clips":
            return items * max(1, self.clip_frames)
        if op == "rollout" and not self.world_numbers:  # without actions there is one candidate
            return 1 if items == 1 else self.most_items + 1
        return {"similarity": 2 * items, "latent_actions": items + 1}.get(op, items)


class Contents:
    """Pictures in turn, and whatever else is asked with.

    Args:
        pictures: of one size, at least two.
        items: of a call that may hold several.
        takes: what the model takes.
    """

    def __init__(self, pictures: Sequence[Picture], items: int, takes: Takes) -> None:
        self._pictures, self._sentences = cycle(pictures), cycle(SENTENCES)
        self._items, self._takes = items, takes
        self._dice = np.random.default_rng(0)

    def picture(self) -> Picture:
        """The next one."""
        return next(self._pictures)

    def pictures(self, more: int = 0) -> list[Picture]:
        """As many as a call has items, and so many more."""
        return list(islice(self._pictures, self._items + more))

    def clip(self) -> list[Picture]:
        """T frames."""
        return list(islice(self._pictures, self._takes.clip_frames))

    def clips(self) -> list[list[Picture]]:
        """As many as a call has items."""
        return [self.clip() for _ in range(self._items)]

    def text(self) -> str:
        """The next one."""
        return next(self._sentences)

    def texts(self) -> list[str]:
        """As many as a call has items."""
        return list(islice(self._sentences, self._items))

    def actions(self) -> NDArray[np.float32]:
        """The longest sequence that may be reconstructed: float32[T, A]."""
        return self._drawn(self._takes.steps, self._takes.numbers)

    def candidates(self) -> NDArray[np.float32] | None:
        """What may be done for as long as is predicted: float32[K, F·k, A]; None: none is read."""
        takes = self._takes
        if not takes.world_numbers:
            return None
        return self._drawn(
            self._items, takes.world_steps * takes.world_actions, takes.world_numbers
        )

    @property
    def steps(self) -> int | None:
        """Frames to predict, where no candidate says it."""
        return None if self._takes.world_numbers else self._takes.world_steps

    def _drawn(self, *shape: int) -> NDArray[np.float32]:
        return self._dice.standard_normal(shape, np.float32)
