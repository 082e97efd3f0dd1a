"""The composition: a part is there if it is configured; the joint space has directions only."""

import pytest
import torch
from tests.bundles import bare_model, full_model
from torch.testing import assert_close

from tectum_core.architecture import JointConfig
from tectum_core.model import PerceptionModel
from tectum_core.model.perception import Joint

PARTS = (
    "video",
    "text",
    "joint",
    "pixel_decoder",
    "video_decoder",
    "fusion",
    "latent_action",
)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_there_only_if_configured(part: str) -> None:
    assert getattr(PerceptionModel(full_model()), part) is not None
    assert getattr(PerceptionModel(bare_model()), part) is None


def test_equal_seeds_give_equal_weights() -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in PerceptionModel(full_model()).parameters()])

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_joint_vectors_have_unit_length() -> None:
    joint = Joint(full_model())

    for embed in (joint.embed_image, joint.embed_text):
        assert_close(embed(torch.randn(5, 32) * 50).norm(dim=-1), torch.ones(5))


@pytest.mark.parametrize("bias", [None, -10.0])
def test_logits_are_the_cosines_scaled_and_shifted(bias: float | None) -> None:
    joint = Joint(full_model(joint=JointConfig(width=16, initial_scale=20.0, bias=bias)))
    cosine = torch.linspace(-1, 1, 6).view(2, 3)

    assert_close(joint.logits(cosine), cosine * 20 + (bias or 0.0))


def test_a_joint_space_needs_both_its_parts() -> None:
    with pytest.raises(ValueError, match="needs `joint` and `text`"):
        Joint(bare_model())


def test_the_model_says_where_it_is() -> None:
    assert PerceptionModel(bare_model()).device == torch.device("cpu")
