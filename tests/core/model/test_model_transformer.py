"""Attention, blocks and the attention pool, each against its formula written out."""

from typing import Any

import pytest
import torch
from tests.bundles import stack
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from tectum_core.model import transformer
from tectum_core.model.transformer import Attention, AttentionPool, Block, Transformer


def tokens(batch: int = 2, length: int = 5, width: int = 32) -> Tensor:
    return torch.randn(batch, length, width, generator=torch.Generator().manual_seed(1))


def attention_by_hand(module: Attention, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention, one head after another; also the weights' mean over heads."""
    query, key, value = F.linear(x, module.qkv.weight, module.qkv.bias).chunk(3, dim=-1)
    side = x.shape[-1] // module.heads
    mixed, weights = [], []
    for head in range(module.heads):
        part = slice(head * side, (head + 1) * side)
        logits = query[..., part] @ key[..., part].transpose(1, 2) / side**0.5
        spread = logits.masked_fill(~mask, -torch.inf).softmax(-1)
        weights.append(spread)
        mixed.append(spread @ value[..., part])
    return module.output(torch.cat(mixed, -1)), torch.stack(weights).mean(0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_is_softmax_of_scaled_products_over_what_may_be_seen(
    causal: bool, padded: bool
) -> None:
    module, x = Attention(stack(heads=4)).eval(), tokens()
    seen = torch.tensor([[True] * 5, [True] * 3 + [False] * 2]) if padded else None
    mask = torch.ones(2, 5, 5, dtype=torch.bool)
    if seen is not None:
        mask &= seen[:, None, :]
    if causal:
        mask &= torch.ones(5, 5, dtype=torch.bool).tril()

    mixed, _ = attention_by_hand(module, x, mask)

    assert_close(module(x, seen, causal), mixed, rtol=0, atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_what_learns_in_bfloat16_gets_the_gradient_of_float32_within_its_rounding(
    padded: bool,
) -> None:
    module = Attention(stack(heads=4))
    seen = torch.tensor([[True] * 5, [True] * 3 + [False] * 2]) if padded else None

    def gradient(precision: torch.dtype) -> Tensor:
        x = tokens().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            mixed = module(x, seen)
        assert mixed.dtype == precision
        mixed.float().square().sum().backward()
        assert x.grad is not None
        return x.grad

    exact, rounded = gradient(torch.float32), gradient(torch.bfloat16)

    assert (rounded - exact).norm() <= 0.02 * exact.norm()


@pytest.mark.parametrize("kind", [Attention, AttentionPool])
@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize(("learns", "precision"), [(True, torch.float32), (False, torch.bfloat16)])
def test_under_bfloat16_on_a_cpu_what_learns_attends_in_float32_and_nothing_else_does(
    kind: type[nn.Module],
    learns: bool,
    graph: bool,
    precision: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[torch.dtype] = []
    whole = F.scaled_dot_product_attention

    def attend(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
        found.extend((query.dtype, key.dtype, value.dtype))
        return whole(query, key, value, *rest, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    module = kind(stack()).train(learns)
    with torch.inference_mode(not graph), torch.autocast("cpu", torch.bfloat16):
        module(tokens())

    assert found == [precision] * 3


@pytest.mark.parametrize("at_once", [2**24, 40, 1])
@pytest.mark.parametrize("queries", [1, 5])
def test_what_is_attended_to_is_the_mean_over_heads_and_queries_and_sums_to_one(
    monkeypatch: pytest.MonkeyPatch, at_once: int, queries: int
) -> None:
    module, x = Attention(stack(heads=4)).eval(), tokens()
    monkeypatch.setattr(transformer, "_WEIGHTS", at_once)

    attended = module.attended(x, queries)

    _, weights = attention_by_hand(module, x, torch.ones(2, 5, 5, dtype=torch.bool))
    assert_close(attended, weights[:, :queries].mean(dim=1), rtol=0, atol=1e-6)
    assert_close(attended.sum(-1), torch.ones(2))


def test_a_causal_token_does_not_notice_what_comes_after_it() -> None:
    model, x = Transformer(stack(depth=2)).eval(), tokens()
    changed = x.clone()
    changed[:, 3:] = torch.randn(2, 2, 32)

    assert_close(model(x, causal=True)[:, :3], model(changed, causal=True)[:, :3])
    assert not torch.allclose(model(x)[:, :3], model(changed)[:, :3], atol=1e-3)


def test_a_block_adds_attention_and_mlp_each_scaled_to_its_input() -> None:
    block, x = Block(stack(layer_scale=0.3, activation="quick_gelu")).eval(), tokens()

    middle = x + 0.3 * block.attention(block.norm1(x))
    expanded = block.mlp.expand(block.norm2(middle))
    wanted = middle + 0.3 * block.mlp.contract(expanded * torch.sigmoid(1.702 * expanded))

    assert_close(block(x), wanted)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
        (
            "gelu_tanh",
            lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
        ),
        ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x)),
    ],
)
def test_an_activation_is_its_formula(name: str, formula: object) -> None:
    block = Block(stack(activation=name))
    x = torch.linspace(-6, 6, 101)

    assert callable(formula)
    assert_close(block.mlp.activation(x), formula(x), rtol=0, atol=1e-6)


def test_projections_have_biases_only_where_configured() -> None:
    assert Attention(stack(qkv_bias=False)).qkv.bias is None
    assert Attention(stack()).qkv.bias is not None


def test_layer_scale_is_there_only_where_configured() -> None:
    assert Block(stack()).scale1 is None
    scale = Block(stack(layer_scale=1e-5)).scale2
    assert scale is not None
    assert_close(scale.detach(), torch.full((32,), 1e-5))


def test_the_attention_pool_attends_as_torchs_own_module_does() -> None:
    pool, x = AttentionPool(stack(heads=4)).eval(), tokens()
    torch.nn.init.normal_(pool.attention.in_proj_bias)  # as trained; zeros would hide a mistake

    pooled, _ = pool.attention(pool.query.expand(2, -1, -1), x, x, need_weights=False)

    assert_close(pool(x), (pooled + pool.mlp(pool.norm(pooled))).squeeze(1))


def test_the_attention_pool_does_not_care_for_the_order_of_tokens() -> None:
    pool, x = AttentionPool(stack()).eval(), tokens()

    assert pool(x).shape == (2, 32)
    assert_close(pool(x.flip(1)), pool(x), rtol=0, atol=1e-6)
