"""BEiT: which code of a frozen tokenizer does each hidden patch have?

Letters: B batch, n samples that are used, S side of the pictures, N patches, m hidden ones in all,
K codes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from tectum_core.model import PerceptionModel, Replaced
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.image_tokenizer import FILE, read_image_tokenizer
from tectum_train.losses.codes import code_cross_entropy, code_uses, majority, perplexity
from tectum_train.masking import BlockMask, MaskConfig, needs_change
from tectum_train.objectives.base import Averaged, Outcome, PartSettings, Sums
from tectum_train.objectives.batch import Batch, Reads
from tectum_train.objectives.hiding import Hiding
from tectum_train.paths import expanded

__all__ = ["Beit", "BeitConfig"]

_RATIO = 0.4
"""Share hidden where the recipe's mask names none (arXiv:2106.08254, section 2.3)."""


class BeitConfig(PartSettings):
    """Masked image modelling on codes."""

    kind: Literal["beit"] = "beit"
    """Discriminator."""
    tokenizer: str
    """Folder of the finished run that learnt the codes, such as one of `image-tokenizer-small`."""
    mask: MaskConfig = BlockMask()
    """What is hidden; 0.4 of the patches unless it says how many."""

    @property
    def reads(self) -> Reads:
        """The later frame too, if the mask hides what changes."""
        return Reads.LATER if needs_change(self.mask) else Reads.FRAME

    @property
    def files(self) -> tuple[str, ...]:
        """The tokenizer's."""
        return (f"{self.tokenizer}/{FILE}",)


class Beit(Averaged):
    """Cross-entropy over the codes of hidden patches, which a learnt embedding stands for.

    Source: BEiT (arXiv:2106.08254).
    """

    name = "beit"

    def __init__(self, config: BeitConfig, model: PerceptionModel) -> None:
        super().__init__()
        path, vision = expanded(config.files[0]), model.vision.config
        self.tokenizer, self.learnt_from = read_image_tokenizer(path)
        theirs = self.learnt_from.vision
        if (theirs.image_size, theirs.patch_size) != (vision.image_size, vision.patch_size):
            raise ValueError(
                f"{path} names patches of {theirs.patch_size} pixels in pictures of "
                f"{theirs.image_size}; model.vision has {vision.patch_size} in {vision.image_size}"
            )
        self.hiding = Hiding(config.mask, model.vision)
        self.config = config
        self.model = model
        width = vision.transformer.width
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.head = nn.Linear(width, self.tokenizer.shape.codes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def check(self, images: ImagePreprocessing) -> None:
        """Refuse pictures made otherwise than the tokenizer's."""
        known = self.learnt_from.images
        if images != known:
            differing = ", ".join(
                f"{name} {getattr(known, name)} there, {getattr(images, name)} here"
                for name in type(known).model_fields
                if getattr(images, name) != getattr(known, name)
            )
            raise ValueError(
                f"{self.config.tokenizer} was trained on pictures made otherwise: {differing}"
            )

    def counted(self, batch: Batch) -> Tensor:
        """Pictures, of which each hides equally many patches."""
        return torch.tensor(self.config.used(batch), device=batch.earlier.device)

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and what shows whether it is more than the codes' frequencies.

        `accuracy`: how often the likeliest code is right; `majority`: how often the batch's
        commonest one would be; `perplexity`: of the codes asked for, were they all alike.
        """
        used = self.config.used(batch)
        pixels = batch.earlier[:used]
        hidden = self.hiding(batch, self.name, pixels, _RATIO)
        codes = self.codes(pixels)[hidden]
        loss, hit = code_cross_entropy(self.head(self._tokens(pixels, hidden)[hidden]), codes)
        uses = (code_uses(codes, self.tokenizer.shape.codes),)
        return Outcome(
            loss,
            {"accuracy": hit.float().mean()},
            chance=math.log(self.tokenizer.shape.codes),
            sums={"majority": Sums(majority, uses), "perplexity": Sums(perplexity, uses)},
        )

    def after_step(self) -> None:
        """Let the teacher of its masks follow."""
        self.hiding.follow(self.model.vision)

    @torch.no_grad()
    def codes(self, pixels: Tensor) -> Tensor:
        """The tokenizer's codes of float[n, 3, S, S]: int64[n, N].

        In float32 always: rounded otherwise, some patches would have another code.
        """
        with torch.autocast(pixels.device.type, enabled=False):
            return self.tokenizer.codes(pixels)

    def logits(self, pixels: Tensor, hidden: Tensor) -> Tensor:
        """What is thought of every patch: float[n, 3, S, S] and bool[n, N] to float[n, N, K]."""
        return self.head(self._tokens(pixels, hidden))

    def _tokens(self, pixels: Tensor, hidden: Tensor) -> Tensor:
        return self.model.vision(pixels, replaced=Replaced(hidden, self.mask_token)).tokens
