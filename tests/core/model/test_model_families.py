"""CLIP, SigLIP, DINOv2 and MAE as configurations: their weights, their numbers.

Each file in `tests/fixtures/families` was written by transformers (see `make_families.py`
there). A trunk is built from configuration alone, the family's weights are renamed, strictly,
and the outputs must agree.
"""

from collections.abc import Callable

import pytest
import torch
from tests.families import Weights, blocks, norm, patch_embedding, read, stack, trunk, vit_mae
from torch.testing import assert_close

from tectum_core.architecture import TextConfig, VisionConfig
from tectum_core.model import TextTransformer, VisionTransformer


def clip_vision() -> tuple[VisionConfig, Weights, Weights]:
    weights, numbers = read("clip_vision")
    positions = weights["embeddings.position_embedding.weight"]
    config = trunk(
        stack(activation="quick_gelu"),
        patch_bias=False,
        class_token=True,
        input_norm=True,
        pooling="class",
    )
    ours = {
        **blocks(weights),
        **patch_embedding(weights, "embeddings.patch_embedding"),
        "prefix_tokens": (weights["embeddings.class_embedding"] + positions[0])[None, None],
        "positions": positions[None, 1:],
        **norm(weights, "pre_layrnorm", "input_norm"),
        **norm(weights, "post_layernorm", "final_norm"),
    }
    return config, ours, numbers


def siglip_vision() -> tuple[VisionConfig, Weights, Weights]:
    weights, numbers = read("siglip_vision")
    config = trunk(stack(activation="gelu_tanh", norm_eps=1e-6), pooling="attention")
    head = {
        "pool.query": weights["head.probe"],
        "pool.attention.in_proj_weight": weights["head.attention.in_proj_weight"],
        "pool.attention.in_proj_bias": weights["head.attention.in_proj_bias"],
        **norm(weights, "head.attention.out_proj", "pool.attention.out_proj"),
        **norm(weights, "head.layernorm", "pool.norm"),
        **norm(weights, "head.mlp.fc1", "pool.mlp.expand"),
        **norm(weights, "head.mlp.fc2", "pool.mlp.contract"),
    }
    ours = {
        **blocks(weights),
        **patch_embedding(weights, "embeddings.patch_embedding"),
        "positions": weights["embeddings.position_embedding.weight"][None],
        **norm(weights, "post_layernorm", "final_norm"),
        **head,
    }
    return config, ours, numbers


def dinov2(name: str, registers: int) -> tuple[VisionConfig, Weights, Weights]:
    weights, numbers = read(name)
    positions = weights["embeddings.position_embeddings"]
    prefix = weights["embeddings.cls_token"] + positions[:, :1]
    if registers:  # they have no positions
        prefix = torch.cat([prefix, weights["embeddings.register_tokens"]], dim=1)
    config = trunk(
        stack(hidden=32, norm_eps=1e-6, layer_scale=1.0),
        class_token=True,
        registers=registers,
        pooling="class",
    )
    ours = {
        **blocks(weights),
        **patch_embedding(weights, "embeddings.patch_embeddings.projection"),
        "prefix_tokens": prefix,
        "positions": positions[:, 1:],
        **norm(weights, "layernorm", "final_norm"),
    }
    return config, ours, numbers


def mae() -> tuple[VisionConfig, Weights, Weights]:
    weights, numbers = read("vit_mae")
    config, ours = vit_mae(weights)
    numbers["pooled"] = numbers["class"]
    return config, ours, numbers


VISION: dict[str, Callable[[], tuple[VisionConfig, Weights, Weights]]] = {
    "CLIP": clip_vision,
    "SigLIP": siglip_vision,
    "DINOv2": lambda: dinov2("dinov2", 0),
    "DINOv2 with registers": lambda: dinov2("dinov2_registers", 3),
    "MAE": mae,
}


def build(config: VisionConfig, weights: Weights) -> VisionTransformer:
    model = VisionTransformer(config).eval()
    model.load_state_dict(weights)  # strict: no weight of theirs or ours is left over
    return model


@pytest.mark.parametrize("family", VISION)
def test_a_vision_family_is_a_configuration(family: str) -> None:
    config, weights, numbers = VISION[family]()

    output = build(config, weights)(numbers["pixels"])

    assert_close(output.tokens, numbers["tokens"], rtol=0, atol=1e-5)
    assert_close(output.pooled, numbers["pooled"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", ["smaller", "larger"])
def test_a_picture_of_another_size_is_read_as_dinov2_does(size: str) -> None:
    config, weights, numbers = dinov2("dinov2_registers", 3)

    output = build(config, weights)(numbers[f"{size}_pixels"])

    assert_close(output.tokens, numbers[f"{size}_tokens"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["DINOv2", "DINOv2 with registers"])
def test_importance_is_the_last_blocks_attention_from_the_class_token(family: str) -> None:
    config, weights, numbers = VISION[family]()

    assert_close(
        build(config, weights).importance(numbers["pixels"]),
        numbers["importance"],
        rtol=0,
        atol=1e-5,
    )


def test_a_masked_encoder_sees_only_what_is_kept_as_mae_does() -> None:
    config, weights, numbers = mae()

    output = build(config, weights)(numbers["pixels"], numbers["keep"])

    assert_close(output.tokens, numbers["kept_tokens"], rtol=0, atol=1e-5)
    assert_close(output.pooled, numbers["kept_class"], rtol=0, atol=1e-5)


def test_clips_text_trunk_is_a_configuration() -> None:
    weights, numbers = read("clip_text")
    config = TextConfig(
        transformer=stack(activation="quick_gelu"),
        vocabulary_size=30,
        max_tokens=12,
        causal=True,
        pooling="last",
    )
    model = TextTransformer(config).eval()
    model.load_state_dict(
        {
            **blocks(weights),
            "embed.weight": weights["embeddings.token_embedding.weight"],
            "positions": weights["embeddings.position_embedding.weight"][None],
            **norm(weights, "final_layer_norm", "final_norm"),
        }
    )
    seen = numbers["seen"].bool()

    output = model(numbers["ids"], seen)

    assert_close(output.tokens[seen], numbers["tokens"][seen], rtol=0, atol=1e-5)
    assert_close(output.pooled, numbers["pooled"], rtol=0, atol=1e-5)
