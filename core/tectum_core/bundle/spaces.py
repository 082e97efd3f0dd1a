"""Which vectors may be compared: a space is the hash of the path that makes its vectors.

Only what changes a vector enters: the weights on its path, the preprocessing before
them, the tokenizer where text comes in. Two bundles that differ elsewhere share spaces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tectum_core.architecture import ModelConfig
from tectum_core.bundle.config import BundleConfig
from tectum_core.model import PerceptionModel
from tectum_core.model.bottleneck import latent_width
from tectum_core.tokenizer import Tokenizer

__all__ = ["Space", "SpaceName", "spaces_of"]

SpaceName = Literal["joint", "pooled", "tokens", "clip_pooled", "clip_tokens", "latent_action"]


@dataclass(frozen=True, slots=True)
class Space:
    """One kind of vector of one bundle."""

    name: SpaceName
    """Which vectors."""
    space_id: str
    """16 hex digits."""
    width: int
    """Length of a vector."""
    truncations: tuple[int, ...] = ()
    """Shorter lengths that mean something."""


def spaces_of(
    config: BundleConfig, model: PerceptionModel, tokenizer: Tokenizer | None
) -> tuple[Space, ...]:
    """Every space of a bundle."""
    images = config.images.model_dump_json()
    architecture = config.model
    width = architecture.vision.transformer.width
    vision = ("vision", images, _shape(architecture, "vision"), model.vision)
    spaces = [
        Space("pooled", _identify("pooled", vision), width),
        Space("tokens", _identify("tokens", vision), width),
    ]
    if model.joint is not None and model.text is not None and architecture.joint is not None:
        text = (
            "text",
            tokenizer.json if tokenizer else "",
            _shape(architecture, "text"),
            model.text,
        )
        joint = ("joint", "", _shape(architecture, "joint"), model.joint)
        identity = _identify("joint", vision, text, joint)
        spaces.append(
            Space("joint", identity, architecture.joint.width, architecture.joint.truncations)
        )
    if model.video is not None and architecture.video is not None:
        video = ("video", images, _shape(architecture, "video"), model.video)
        clip_width = architecture.video.transformer.width
        spaces.append(Space("clip_pooled", _identify("clip_pooled", video), clip_width))
        spaces.append(Space("clip_tokens", _identify("clip_tokens", video), clip_width))
    if model.latent_action is not None and architecture.latent_action is not None:
        latent = ("latent", images, _shape(architecture, "latent_action"), model.latent_action)
        reads_trunk = architecture.latent_action.reads_trunk
        path = (vision, latent) if reads_trunk else (latent,)
        spaces.append(
            Space(
                "latent_action",
                _identify("latent_action", *path),
                latent_width(architecture.latent_action.bottleneck),
            )
        )
    return tuple(spaces)


def _shape(config: ModelConfig, part: str) -> str:
    return str(getattr(config, part).model_dump_json())


def _identify(name: str, *path: tuple[str, str, str, nn.Module]) -> str:
    digest = hashlib.sha256(name.encode())
    for part, before, shape, module in path:
        for text in (part, before, shape):
            digest.update(text.encode() + b"\0")
        for key, tensor in _sorted(module.state_dict().items()):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _sorted(tensors: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    # A scalar has no bytes to view; one dimension more changes none of them.
    return sorted((key, tensor.reshape(-1)) for key, tensor in tensors)
