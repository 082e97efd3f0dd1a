"""Published families' weights under this project's names, and the numbers they must give.

Each file in `tests/fixtures/families` was written by transformers (see `make_families.py` there).
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tectum_core.architecture import TransformerConfig, VisionConfig

__all__ = [
    "Weights", "blocks", "mae_decoder", "norm", "patch_embedding", "read", "stack", "trunk",
    "video_mae", "vit_mae",
]  # fmt: skip

FAMILIES = Path(__file__).parent / "fixtures" / "families"
Weights = dict[str, Tensor]


def stack(**changes: object) -> TransformerConfig:
    given = {"width": 16, "depth": 2, "heads": 2, "hidden": 24, "norm_eps": 1e-5, **changes}
    return TransformerConfig.model_validate(given)


def trunk(transformer: TransformerConfig, **changes: object) -> VisionConfig:
    given = {"transformer": transformer, "image_size": 24, "patch_size": 8, **changes}
    return VisionConfig.model_validate(given)


def read(name: str) -> tuple[Weights, Weights]:
    """A family's weights, and its inputs and outputs."""
    tensors = load_file(FAMILIES / f"{name}.safetensors")
    prefix = "weights/"
    weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return weights, {k: v for k, v in tensors.items() if not k.startswith(prefix)}


BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "norm1": "norm1",
    "norm2": "norm2",
    "mlp.fc1": "mlp.expand",
    "mlp.fc2": "mlp.contract",
    "self_attn.out_proj": "attention.output",
    "attention.o_proj": "attention.output",
    "layer_scale1.lambda1": "scale1",
    "layer_scale2.lambda1": "scale2",
}


def blocks(weights: Weights) -> Weights:
    """The numbered layers under our names, queries, keys and values joined."""
    ours: Weights = {}
    halves: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.items():
        found = re.fullmatch(r"(?:encoder\.)?layers?\.(\d+)\.(.+?)(?:\.(weight|bias))?", key)
        if found is None:
            continue
        number, part, kind = found.groups()
        projection = re.fullmatch(r"(?:self_attn|attention)\.([qkv])_proj", part)
        if projection is not None:
            target = f"transformer.blocks.{number}.attention.qkv.{kind}"
            halves.setdefault(target, {})[projection.group(1)] = value
        else:
            suffix = f".{kind}" if kind else ""
            ours[f"transformer.blocks.{number}.{BLOCK[part]}{suffix}"] = value
    return ours | {key: torch.cat([qkv[x] for x in "qkv"]) for key, qkv in halves.items()}


def patch_embedding(weights: Weights, name: str) -> Weights:
    """A convolution's kernel as the linear layer on patches that it is."""
    ours = {"embed.weight": weights[f"{name}.weight"].flatten(1)}
    if f"{name}.bias" in weights:
        ours["embed.bias"] = weights[f"{name}.bias"]
    return ours


def norm(weights: Weights, theirs: str, ours: str) -> Weights:
    return {f"{ours}.{kind}": weights[f"{theirs}.{kind}"] for kind in ("weight", "bias")}


def vit_mae(weights: Weights) -> tuple[VisionConfig, Weights]:
    """MAE's encoder."""
    config = trunk(stack(norm_eps=1e-12), class_token=True, positions="sincos", pooling="class")
    ours = {
        **blocks(weights),
        **patch_embedding(weights, "embeddings.patch_embeddings.projection"),
        "prefix_tokens": weights["embeddings.cls_token"],  # its position is zero
        **norm(weights, "layernorm", "final_norm"),
    }
    return config, ours


def mae_decoder(weights: Weights) -> Weights:
    """MAE's decoder, under the names of a pixel decoder that reads text.

    The class token goes through the same map as patches and has position zero: it is read where an
    instruction's tokens are.
    """
    return {
        **norm(weights, "decoder_embed", "embed"),
        **norm(weights, "decoder_embed", "from_text"),
        "mask_token": weights["mask_token"].flatten(),
        **blocks({key.removeprefix("decoder_"): value for key, value in weights.items()}),
        **norm(weights, "decoder_norm", "final_norm"),
        **{
            f"paint.{kind}": _channels_first(weights[f"decoder_pred.{kind}"])
            for kind in ("weight", "bias")
        },
    }


def video_mae(weights: Weights) -> tuple[Weights, Weights]:
    """VideoMAE's trunk and decoder; the map from one to the other has no bias there."""
    embedding = "videomae.embeddings.patch_embeddings.projection"
    encoding = {
        "embed.weight": weights[f"{embedding}.weight"].flatten(1),
        "embed.bias": weights[f"{embedding}.bias"],
        **_video_blocks(weights, "videomae.encoder.layer"),
    }
    into = weights["encoder_to_decoder.weight"]
    decoding = {
        "embed.weight": into,
        "embed.bias": torch.zeros(len(into)),
        "mask_token": weights["mask_token"].flatten(),
        **norm(weights, "decoder.norm", "final_norm"),
        **{
            f"paint.{kind}": _channels_first(weights[f"decoder.head.{kind}"])
            for kind in ("weight", "bias")
        },
        **_video_blocks(weights, "decoder.decoder_layers"),
    }
    return encoding, decoding


VIDEO_BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attention.output",
    "intermediate.dense": "mlp.expand",
    "output.dense": "mlp.contract",
}


def _video_blocks(weights: Weights, theirs: str) -> Weights:
    """Its numbered layers under our names; its keys have no bias."""
    ours: Weights = {}
    for number in {key.split(".")[theirs.count(".") + 1] for key in weights if theirs in key}:
        source, target = f"{theirs}.{number}", f"transformer.blocks.{number}"
        for old, new in VIDEO_BLOCK.items():
            ours |= norm(weights, f"{source}.{old}", f"{target}.{new}")
        query, key, value = (
            f"{source}.attention.attention.{one}" for one in ("query", "key", "value")
        )
        nothing = torch.zeros_like(weights[f"{query}.bias"])
        biases = [weights[f"{query}.bias"], nothing, weights[f"{value}.bias"]]
        kernels = [weights[f"{one}.weight"] for one in (query, key, value)]
        ours[f"{target}.attention.qkv.weight"] = torch.cat(kernels)
        ours[f"{target}.attention.qkv.bias"] = torch.cat(biases)
    return ours


def _channels_first(painted: Tensor) -> Tensor:
    """Rows of a patch's pixels whose channels vary fastest, so that they vary slowest."""
    rows: Tensor = painted.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
    return rows
