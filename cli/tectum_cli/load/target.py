"""Whom to ask, with what, and what can be asked: the same over gRPC and over REST."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tectum import Capability
from tectum_cli.extras import fail
from tectum_cli.load.contents import Takes
from tectum_cli.load.driving import Outcome
from tectum_cli.load.pictures import Picture

__all__ = ["OPS", "OUTCOMES", "STREAMED", "Target"]

OPS: Mapping[str, tuple[Capability, ...]] = {
    "embed_images": (Capability.EMBED_IMAGES,),
    "embed_texts": (Capability.EMBED_TEXTS,),
    "embed_clips": (Capability.EMBED_CLIPS,),
    "similarity": (Capability.EMBED_IMAGES, Capability.EMBED_TEXTS),
    "reconstruct_image": (Capability.RECONSTRUCT_IMAGES,),
    "reconstruct_clip": (Capability.RECONSTRUCT_CLIPS,),
    "reconstruct_text": (Capability.RECONSTRUCT_TEXTS,),
    "reconstruct_actions": (Capability.RECONSTRUCT_ACTIONS,),
    "latent_actions": (Capability.PREDICT_LATENT_ACTIONS,),
    "rollout": (Capability.ROLLOUT,),
}
"""What can be asked, and what a model must be able to do for it."""
STREAMED = ("embed_images", "latent_actions")
"""Those of them that a stream can ask for."""
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
    """Pictures, texts, clips, candidates or pairs of frames in one call that may hold several."""
    ops: Sequence[str]
    """Of `OPS`, those that will be asked."""
    tls: bool | Path = False
    """Whether by TLS, or root certificates of it, PEM."""
    connections: int = 1
    """To a worker, which take turns; a gateway has one for each call that is open."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Items of a call, by what it asks: a comparison has as many on either side."""
        own = {"similarity": 2 * self.items}
        own |= {op: 1 for op in OPS if op.startswith("reconstruct_")}
        return {op: own.get(op, self.items) for op in OPS}

    def check(self, takes: Takes) -> None:
        """See that the model can be asked so.

        Raises:
            Exit: it cannot; it has been said why.
        """
        able = [op for op, needed in OPS.items() if {one.value for one in needed} <= takes.can]
        for op in self.ops:
            if op not in able:
                allowed = ", ".join(able) or "none"
                raise fail(f"--ops: found {op}; allowed: {allowed}, which {takes.name} can do")
        for op in self.ops:
            if self.counts[op] > 1 and takes.places(op, self.items) > takes.most_items:
                fits = (n for n in range(self.items) if takes.places(op, n) <= takes.most_items)
                most = max(fits, default=0)
                found = f"found {self.items}; allowed: 1 to {most}, the most of {op}"
                raise fail(f"--batch: {found} that this worker takes")
