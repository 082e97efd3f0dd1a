"""Inverse and forward dynamics: shapes for every bottleneck and source, and what each may read."""

from typing import Any

import pytest
import torch
from tests.bundles import stack, vision
from torch import Tensor
from torch.testing import assert_close

from tectum_core.architecture import (
    ActionConfig,
    Bottleneck,
    ContinuousBottleneck,
    ConvolutionDynamicsConfig,
    Dynamics,
    FsqBottleneck,
    LatentActionConfig,
    TransformerDynamicsConfig,
    VqBottleneck,
)
from tectum_core.model import LatentActionModel
from tectum_core.model.bottleneck import code_count, latent_width

BOTTLENECKS: list[Bottleneck] = [
    ContinuousBottleneck(width=6),
    VqBottleneck(codes=2, codebook_size=4, code_width=5),
    FsqBottleneck(codes=3, levels=(3, 3)),
]
ACTIONS = ActionConfig(dimensions=4, max_steps=8)


DYNAMICS: dict[str, Dynamics] = {
    "pixels": TransformerDynamicsConfig(transformer=stack(width=16)),
    # As many patches as the trunk has.
    "trunk": TransformerDynamicsConfig(transformer=stack(width=16), source="trunk"),
    "convolution": ConvolutionDynamicsConfig(widths=(8, 16, 16)),
}
KINDS = pytest.mark.parametrize("kind", DYNAMICS)
BOTTLED = pytest.mark.parametrize("bottleneck", BOTTLENECKS, ids=lambda b: b.kind)


def module(
    bottleneck: Bottleneck, kind: str = "pixels", steps: int = 0, **changes: Any
) -> LatentActionModel:
    config = LatentActionConfig(
        dynamics=DYNAMICS[kind],
        bottleneck=bottleneck,
        image_size=16,
        interval=0.1,
        tolerance=0.01,
        decoded_steps=steps,
        **changes,
    )
    return LatentActionModel(config, vision(), ACTIONS if steps else None).eval()


def frames() -> Tensor:
    return torch.randn(2, 3, 16, 16)


def pair(kind: str) -> tuple[Tensor, Tensor] | None:
    """Both frames' trunk tokens, if they are read."""
    return (torch.randn(2, 16, 32), torch.randn(2, 16, 32)) if kind == "trunk" else None


@KINDS
@BOTTLED
def test_shapes_are_those_of_the_bottleneck(bottleneck: Bottleneck, kind: str) -> None:
    model, trunk = module(bottleneck, kind), pair(kind)

    bottled = model.infer(frames(), frames(), trunk)
    predicted = model.predict(frames(), bottled.vectors, trunk[0] if trunk else None)

    assert bottled.vectors.flatten(1).shape == (2, latent_width(bottleneck))
    if code_count(bottleneck):
        assert bottled.codes is not None
        assert bottled.codes.shape == (2, code_count(bottleneck))
    else:
        assert bottled.codes is None
    assert predicted.shape == (2, 3, 16, 16)


@BOTTLED
def test_decoded_actions_have_their_steps_and_dimensions(bottleneck: Bottleneck) -> None:
    model = module(bottleneck, steps=5)
    vectors = model.infer(frames(), frames()).vectors

    assert model.decode_actions(vectors, torch.randn(2, 32)).shape == (2, 5, 4)


@pytest.mark.parametrize("kind", ["pixels", "convolution"])
def test_the_latent_reads_both_frames_and_tells_which_came_first(kind: str) -> None:
    model, earlier, later = module(ContinuousBottleneck(), kind), frames(), frames()
    forwards = model.infer(earlier, later).vectors

    assert not torch.allclose(forwards, model.infer(earlier, earlier).vectors, atol=1e-4)
    assert not torch.allclose(forwards, model.infer(later, later).vectors, atol=1e-4)
    assert not torch.allclose(forwards, model.infer(later, earlier).vectors, atol=1e-4)


@KINDS
def test_the_prediction_depends_on_the_latent(kind: str) -> None:
    model, earlier, trunk = module(ContinuousBottleneck(width=6), kind), frames(), pair(kind)
    tokens = trunk[0] if trunk else None

    one, other = (model.predict(earlier, torch.randn(2, 1, 6), tokens) for _ in range(2))

    assert not torch.allclose(one, other, atol=1e-4)


@KINDS
def test_forward_dynamics_can_begin_by_predicting_no_change(kind: str) -> None:
    model, earlier, trunk = module(ContinuousBottleneck(width=6), kind), frames(), pair(kind)

    model.begin_as_copy()

    found = model.predict(earlier, torch.randn(2, 1, 6), trunk[0] if trunk else None)
    assert torch.equal(found, earlier)


@pytest.mark.parametrize("kind", ["pixels", "convolution"])
def test_a_pair_does_not_notice_its_neighbours(kind: str) -> None:
    model, earlier, later = module(ContinuousBottleneck(), kind), frames(), frames()

    together, alone = (
        model.infer(earlier, later).vectors,
        model.infer(earlier[:1], later[:1]).vectors,
    )

    assert_close(together[:1], alone, rtol=0, atol=1e-5)
    assert_close(
        model.predict(earlier, together)[:1], model.predict(earlier[:1], alone), rtol=0, atol=1e-5
    )


def test_with_the_trunk_as_source_the_pixels_are_not_read() -> None:
    model, trunk = module(ContinuousBottleneck(), "trunk"), pair("trunk")

    one, other = (model.infer(frames(), frames(), trunk).vectors for _ in range(2))

    assert torch.equal(one, other)


def test_frames_are_brought_to_the_modules_size_and_left_alone_if_they_have_it() -> None:
    model, fitting = module(ContinuousBottleneck()), frames()

    assert model.frames(torch.full((1, 3, 32, 32), 0.25)).shape == (1, 3, 16, 16)
    assert_close(model.frames(torch.full((1, 3, 32, 32), 0.25)), torch.full((1, 3, 16, 16), 0.25))
    assert model.frames(fitting) is fitting


def test_what_is_missing_is_said() -> None:
    model = module(ContinuousBottleneck(), "trunk")

    with pytest.raises(ValueError, match="read the trunk's tokens, and none were given"):
        model.infer(frames(), frames())
    with pytest.raises(ValueError, match="read the trunk's tokens, and none were given"):
        model.predict(frames(), torch.randn(2, 1, 16))
    with pytest.raises(ValueError, match="decodes no actions"):
        model.decode_actions(torch.randn(2, 1, 16), torch.randn(2, 32))


# ---------------------------------------------------------------- what is said is a change


@KINDS
@BOTTLED
def test_where_the_change_is_said_every_still_pair_says_the_same(
    bottleneck: Bottleneck, kind: str
) -> None:
    model, plain = module(bottleneck, kind, says="change"), module(bottleneck, kind)
    frame, tokens = frames(), pair(kind)
    still = None if tokens is None else (tokens[0], tokens[0])

    found = model.infer(frame, frame, still).vectors

    assert torch.equal(found[0], found[1])
    assert torch.equal(
        model.say(frame, frame, still), torch.zeros_like(model.say(frame, frame, still))
    )
    assert not torch.equal(*plain.say(frame, frame, still))
    assert float(model.say(frame, frames(), tokens).detach().abs().max()) > 0.1


@KINDS
def test_what_is_said_of_a_change_is_a_difference(kind: str) -> None:
    torch.manual_seed(0)
    model = module(ContinuousBottleneck(), kind, says="change")
    earlier, later, tokens = frames(), frames(), pair(kind)
    still = None if tokens is None else (tokens[0], tokens[0])

    said = model.say(earlier, later, tokens)

    expected = model.dynamics.say(earlier, later, tokens) - model.dynamics.say(
        earlier, earlier, still
    )
    assert torch.equal(said, expected)


# ---------------------------------------------------------------- what is predicted


@pytest.mark.parametrize("kind", ["pixels", "trunk"])
def test_latents_are_predicted_for_every_patch_at_mean_0_and_spread_1(kind: str) -> None:
    model = module(ContinuousBottleneck(width=6), kind, target="latents")
    tokens = 5 + 3 * torch.randn(2, 16, 32)

    target = model.target(frames(), tokens)
    predicted = model.predict(frames(), torch.randn(2, 1, 6), tokens)

    assert predicted.shape == target.shape == (2, 16, 32)
    assert_close(target.mean(dim=-1), torch.zeros(2, 16), rtol=0, atol=1e-5)
    assert_close(target.std(dim=-1, correction=0), torch.ones(2, 16), rtol=0, atol=1e-3)
    model.begin_as_copy()
    assert torch.equal(model.predict(frames(), torch.randn(2, 1, 6), tokens), target)


def test_latents_need_the_trunk_to_predict_and_not_to_say() -> None:
    model = module(ContinuousBottleneck(width=6), "pixels", target="latents")

    vectors = model.infer(frames(), frames()).vectors

    with pytest.raises(ValueError, match="predict the trunk's tokens, and none were given"):
        model.predict(frames(), vectors)


def test_convolutions_predict_pixels_alone() -> None:
    with pytest.raises(ValueError, match="target 'latents' needs dynamics of kind 'transformer'"):
        module(ContinuousBottleneck(), "convolution", target="latents")
