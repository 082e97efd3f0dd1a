"""Whom to ask, with what, and what can be asked: the same over gRPC and over REST."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tectum import Capability
from tectum_cli.extras import fail
from tectum_cli.load.driving import Outcome
from tectum_cli.load.pictures import Picture

__all__ = ["OPS", "OUTCOMES", "SENTENCES", "Target"]

SENTENCES = (
    "open the drawer",
    "close the door of the cupboard",
    "turn the tap to the left",
    "push the red block to the goal",
)
"""Texts to ask with."""
OPS: Mapping[str, Capability] = {
    "embed_images": Capability.EMBED_IMAGES,
    "embed_texts": Capability.EMBED_TEXTS,
    "similarity": Capability.EMBED_TEXTS,
    "reconstruct_image": Capability.RECONSTRUCT_IMAGES,
    "latent_actions": Capability.PREDICT_LATENT_ACTIONS,
}
"""What can be asked, and what a model must be able to do for it."""
OUTCOMES = {"RESOURCE_EXHAUSTED": Outcome.REFUSED, "DEADLINE_EXCEEDED": Outcome.EXPIRED}
"""Of an item's code; any other has failed."""


@dataclass(frozen=True)
class Target:
    """A server, and what each call to it holds."""

    address: str
    """HOST:PORT; of a gateway behind TLS, https:// before it."""
    token: str
    """Bearer token; empty: none."""
    model: str
    """Empty: the default one."""
    pictures: Sequence[Sequence[Picture]]
    """To ask with, by size, those of one in turn; at least two of each."""
    items: int
    """Pictures, texts or pairs of frames in one call that may hold several."""
    ops: Sequence[str]
    """Of `OPS`, those that will be asked."""
    tls: bool | Path = False
    """Whether by TLS, or root certificates of it, PEM."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Items of a call, by what it asks: a comparison has as many on either side."""
        own = {"similarity": 2 * self.items, "reconstruct_image": 1}
        return {op: own.get(op, self.items) for op in OPS}

    def check(self, model: str, can: Iterable[str], most: int) -> None:
        """See that the model can be asked so.

        Args:
            model: what it is called in the message.
            can: values of `Capability` that it has.
            most: items that it takes at once.

        Raises:
            Exit: it cannot; it has been said why.
        """
        has = set(can)
        able = [op for op, needed in OPS.items() if needed.value in has]
        for op in self.ops:
            if op not in able:
                raise fail(f"--ops: found {op}; allowed: {', '.join(able)}, which {model} can do")
        for op in self.ops:
            if self.counts[op] > most:
                allowed = most * self.items // self.counts[op]
                found = f"found {self.items}; allowed: 1 to {allowed}"
                raise fail(f"--batch: {found}, the most of {op} that this worker takes")
