"""Which vectors may be compared: a space is the hash of the path that makes its vectors.

Only what changes a vector enters: the weights on its path, the preprocessing before
them, the tokenizer where text comes in. Two bundles that differ elsewhere share spaces.

What a configuration leaves at its default does not enter either, so that a field added later
leaves the ids of older bundles as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from tectum_core.architecture import LatentActionConfig
from tectum_core.bundle.config import BundleConfig
from tectum_core.model import PerceptionModel
from tectum_core.model.bottleneck import latent_width
from tectum_core.tokenizer import Tokenizer

__all__ = ["Space", "SpaceName", "spaces_of"]

SpaceName = Literal[
    "joint", "pooled", "tokens", "clip_pooled", "clip_tokens", "latent_action", "world_latent"
]

# What is known not to change a vector is left out, not the other way round: what is forgotten
# here moves an id without need, which is safe.
_NO_MATTER = {
    "commitment", "decay", "decoded_steps", "decoder", "frame_interval", "interval", "max_steps",
    "restart_below", "target", "tolerance",
}  # fmt: skip
_AFTER_THE_LATENT = (
    "action_decoder.",
    "dynamics.down.",
    "dynamics.embed_code.",
    "dynamics.embed_earlier.",
    "dynamics.forward_dynamics.",
    "dynamics.forward_norm.",
    "dynamics.paint.",
    "dynamics.up.",
    # The codebook's running averages, of which it is made in training.
    "bottleneck.quantise._codebook.cluster_size",
    "bottleneck.quantise._codebook.embed_avg",
)


@dataclass(frozen=True, slots=True)
class _Step:
    """One part of a path."""

    part: str
    settings: Mapping[str, Any]
    """JSON values."""
    weights: Mapping[str, Tensor]


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
    """Every space of a bundle whose vectors mean something: those that training reached."""
    architecture, learnt = config.model, config.training.learnt
    images = _Step("images", _settings(config.images), {})
    vision = (images, _weighty("vision", architecture.vision, model.vision))
    vision_tokens = (images, _unpooled(vision[1]))
    width = architecture.vision.transformer.width
    spaces: list[Space] = []
    if learnt("vision", "vision.pool"):
        spaces.append(Space("pooled", _identify("pooled", *vision), width))
    if learnt("vision"):
        spaces.append(Space("tokens", _identify("tokens", *vision_tokens), width))
    joint = model.joint if learnt("joint") else None
    if joint is not None and model.text is not None and architecture.joint is not None:
        both = (
            *vision,
            _Step("tokenizer", _words(tokenizer), {}),
            _weighty("text", architecture.text, model.text),
            _Step("joint.image", {}, joint.image.state_dict()),
            _Step("joint.text", {}, joint.text.state_dict()),
        )
        found = architecture.joint
        spaces.append(Space("joint", _identify("joint", *both), found.width, found.truncations))
    if model.video is not None and architecture.video is not None and learnt("video"):
        video = _weighty("video", architecture.video, model.video)
        clip_width = architecture.video.transformer.width
        tokens = _identify("clip_tokens", images, _unpooled(video))
        if learnt("video.pool"):
            pooled = _identify("clip_pooled", images, video)
            spaces.append(Space("clip_pooled", pooled, clip_width))
        spaces.append(Space("clip_tokens", tokens, clip_width))
    latent = architecture.latent_action
    if model.latent_action is not None and latent is not None and learnt("latent_action"):
        before = vision_tokens if latent.reads_trunk else (images,)
        weights = {
            key: tensor
            for key, tensor in model.latent_action.state_dict().items()
            if not key.startswith(_AFTER_THE_LATENT)
        }
        step = _Step("latent_action", _latent_settings(latent), weights)
        identity = _identify("latent_action", *before, step)
        spaces.append(Space("latent_action", identity, latent_width(latent.bottleneck)))
    world = architecture.world_model
    if model.world_model is not None and world is not None and _foresees(config):
        weights = {
            key: tensor
            for key, tensor in model.world_model.state_dict().items()
            if not key.startswith("decoder.")
        }
        path: tuple[_Step, ...] = vision_tokens if world.latents == "tokens" else vision
        if world.actions == "real" and config.actions is not None:
            path = (*path, _Step("actions", _settings(config.actions), {}))
        step = _Step("world_model", _settings(world), weights)
        identity = _identify("world_latent", *path, step)
        spaces.append(Space("world_latent", identity, width))
    return tuple(spaces)


def _foresees(config: BundleConfig) -> bool:
    """Whether the world model was trained, and what it reads too."""
    world, learnt = config.model.world_model, config.training.learnt
    read = world is not None and (world.latents == "tokens" or learnt("vision.pool"))
    return read and learnt("vision", "world_model")


def _weighty(part: str, config: BaseModel | None, module: nn.Module) -> _Step:
    return _Step(part, {} if config is None else _settings(config), module.state_dict())


def _unpooled(trunk: _Step) -> _Step:
    """The trunk as far as its tokens go."""
    return _Step(
        trunk.part,
        {key: value for key, value in trunk.settings.items() if key != "pooling"},
        {key: value for key, value in trunk.weights.items() if not key.startswith("pool.")},
    )


def _settings(config: BaseModel) -> dict[str, Any]:
    return dict(config.model_dump(mode="json", exclude_defaults=True, exclude=_NO_MATTER))


def _latent_settings(config: LatentActionConfig) -> dict[str, Any]:
    """Kinds are told, although each is its class's default."""
    return {
        **_settings(config),
        "dynamics": {**_settings(config.dynamics), "kind": config.dynamics.kind},
        "bottleneck": {**_settings(config.bottleneck), "kind": config.bottleneck.kind},
    }


def _words(tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The tokenizer but for padding and truncation, which the bundle does itself."""
    found: dict[str, Any] = {} if tokenizer is None else json.loads(tokenizer.json)
    return {key: value for key, value in found.items() if key not in {"padding", "truncation"}}


def _identify(name: str, *path: _Step) -> str:
    digest = hashlib.sha256(name.encode())
    for step in path:
        settings = json.dumps(step.settings, sort_keys=True, separators=(",", ":"))
        digest.update(f"\0{step.part}\0{settings}\0".encode())
        for key, tensor in sorted(step.weights.items()):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)  # a scalar has no bytes to view
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
