"""VideoMAE: the error on hidden tubelets that lie in their episode, as transformers computes it."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from tests.families import Weights, read, stack, video_mae
from tests.training.tiny import batch, model, video, vision_alone
from torch import Tensor
from torch.testing import assert_close

from tectum_core.architecture import (
    ModelConfig,
    PixelDecoderConfig,
    VisionConfig,
)
from tectum_core.masks import visible_indices
from tectum_core.model import PerceptionModel, VisionTransformer, patchify
from tectum_train import objectives
from tectum_train.engine.accumulation import backward
from tectum_train.masking import TubeMask, draw_masks
from tectum_train.objectives import Batch, WeightedSum
from tectum_train.objectives.batch import Clip
from tectum_train.objectives.video_mae import VideoMae, VideoMaeConfig, counted_tubelets

STEPS, GRID = 2, 4
BY_ATTENTION = {"kind": "importance", "source": "attention", "ratios": (0.5,), "momentum": 0.6}


def network(**decoder: Any) -> PerceptionModel:
    changes = video()
    changes["video_decoder"] |= decoder
    return model(**changes)


def objective(given: PerceptionModel | None = None, **changes: Any) -> VideoMae:
    settings = {"statistics_weight": 0.0, **changes}
    return VideoMae(VideoMaeConfig.model_validate(settings), given or network())


def shape() -> VisionConfig:
    return VisionConfig.model_validate(video()["video"])


def hidden_of(made: Batch, ratio: float = 0.75) -> Tensor:
    """The masks that the objective will draw: bool[B, N]."""
    streams = islice(made.streams("video_mae"), len(made))
    return draw_masks(TubeMask(), shape(), ratio, made.generator, streams)


def frames_of(made: Batch) -> Clip:
    assert made.clip is not None
    return made.clip


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize(
    ("normalised", "channelwise"), [(True, False), (True, True), (False, False)]
)
def test_the_loss_is_the_formulas_in_float64(
    normalised: bool, channelwise: bool, weight: float
) -> None:
    given = network(normalised_target=normalised, channelwise=channelwise, variance_floor=0.01)
    made = batch(4)
    frames_of(made).inside[1, 3] = False  # and with it the second tubelet
    pixels = frames_of(made).frames.transpose(1, 2)
    hidden = hidden_of(made)
    keep = visible_indices(hidden)
    assert given.video is not None
    assert given.video_decoder is not None
    said = given.video_decoder(given.video(pixels, keep).tokens, keep)

    learnt = objective(given, statistics_weight=weight)
    outcome = learnt(made)

    groups = 3 if channelwise else 1
    patches = patchify(pixels, 8, 2).unflatten(2, (groups, -1)).double().numpy()
    mean = patches.mean(axis=3, keepdims=True)
    spread = np.sqrt(patches.var(axis=3, keepdims=True, ddof=1) + 0.01)
    target = (patches - mean) / spread if normalised else patches
    asked = hidden.numpy().copy()
    asked[1, GRID**2 :] = False
    values, means, spreads = (
        one.detach().double().numpy() for one in (said.values, said.mean, said.log_spread)
    )
    masked = np.square(values - target.reshape(values.shape))[asked].mean()
    statistics = (
        np.square(means - mean[..., 0])[asked].mean()
        + np.square(spreads - np.log(spread[..., 0]))[asked].mean()
    )
    expected = masked + (weight * statistics if normalised else 0)
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-4)
    assert float(outcome.metrics["masked"]) == pytest.approx(masked, rel=1e-4)
    zero = np.square(target)[asked].mean()
    assert float(outcome.metrics["relative"]) == pytest.approx(masked / zero, rel=1e-4)
    assert int(learnt.counted(made)) == asked.sum()


def test_a_tube_hides_the_same_places_in_every_step_as_many_as_the_decoder_says() -> None:
    kept: list[Tensor] = []
    given = network(mask_ratio=0.9)
    assert given.video is not None
    given.video.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[1]))

    objective(given)(batch(8))

    assert kept[0].shape == (8, STEPS * 2)  # of 16 places 14 are hidden
    first, second = kept[0].unflatten(1, (STEPS, -1)).unbind(1)
    assert torch.equal(second, first + GRID**2)


def test_what_lies_behind_an_episodes_end_does_not_count() -> None:
    made, other = batch(4), batch(4)
    for one in (made, other):
        frames_of(one).inside[:, 3] = False  # and with it the second tubelet
    learnt = objective()
    hidden = hidden_of(batch(4)).unflatten(1, (STEPS, -1))
    changed = frames_of(other).frames
    # Hidden patches of the last frame: seen by nobody, asked of nobody.
    for row, place in hidden[:, 1].nonzero().tolist():
        top, left = 8 * (place // GRID), 8 * (place % GRID)
        changed[row, 3, :, top : top + 8, left : left + 8] += 5.0

    assert torch.equal(learnt(made).loss, learnt(other).loss)
    frames_of(other).inside[:, 3] = True
    assert learnt(other).loss.item() != learnt(made).loss.item()


def test_a_tubelet_counts_if_it_is_hidden_and_all_its_frames_lie_in_the_episode() -> None:
    hidden = torch.tensor([[True, False, True, True, True, False]] * 3)
    inside = torch.tensor(
        [
            [True, True, True, True, True, True],
            [True, True, True, False, False, False],
            [True, False, False, False, False, False],
        ]
    )

    counted = counted_tubelets(hidden, inside, 2)

    assert counted.tolist() == [
        [True, False, True, True, True, False],
        [True, False, False, False, False, False],
        [False] * 6,
    ]


def test_a_batch_of_which_nothing_counts_has_no_loss_and_no_gradient() -> None:
    made = batch(2)
    frames_of(made).inside[:] = False
    learnt = objective(statistics_weight=0.1)

    outcome = learnt(made)
    outcome.loss.backward()

    assert outcome.loss.item() == 0
    assert "relative" not in outcome.metrics  # 0 would be perfect
    assert not any(bool(one.grad.any()) for one in learnt.parameters() if one.grad is not None)


def test_the_image_trunk_stays_out_of_it() -> None:
    learnt = objective()

    learnt(batch(4)).loss.backward()

    assert learnt.model.video is not None
    assert all(one.grad is None for one in learnt.model.vision.parameters())
    assert all(one.grad is not None for one in learnt.model.video.transformer.parameters())


@pytest.mark.parametrize("mask", [{"kind": "random"}, {"kind": "importance"}, {"kind": "block"}])
def test_other_masks_can_be_chosen(mask: dict[str, str]) -> None:
    assert torch.isfinite(objective(mask=mask)(batch(4)).loss)


def test_a_teacher_of_clips_follows_their_trunk_after_each_step() -> None:
    given = network()
    learnt, trunk = objective(given, mask=BY_ATTENTION), given.video
    assert trunk is not None
    assert learnt.hiding.teacher is not None
    before = [one.detach().clone() for one in trunk.parameters()]

    for one in trunk.parameters():
        one.data.add_(torch.randn(one.shape))
    learnt.after_step()

    slow = learnt.hiding.teacher.copy.parameters()
    for kept, was, now in zip(slow, before, trunk.parameters(), strict=True):
        assert_close(kept, 0.6 * was + 0.4 * now.detach())


def test_only_its_share_of_the_batch_is_used() -> None:
    one, other = batch(8), batch(8)
    frames_of(other).frames[4:] += 1.0
    frames_of(other).inside[4:] = False
    given = network()

    losses = [objective(given, fraction=0.5)(made).loss for made in (one, other)]

    assert torch.equal(losses[0], losses[1])


def test_a_batch_without_clips_says_so() -> None:
    with pytest.raises(ValueError, match="made without clips"):
        objective()(batch(4, clip=None))


def test_without_a_clip_trunk_there_is_no_such_objective() -> None:
    with pytest.raises(ValueError, match=r"needs model\.video and model\.video_decoder"):
        objective(model())


# ---------------------------------------------------------------- as transformers computes it


def below(prefix: str, tensors: Weights) -> Weights:
    """Those whose names begin so, by the rest of them."""
    return {key.removeprefix(prefix): one for key, one in tensors.items() if key.startswith(prefix)}


def theirs(weights: Weights, numbers: Weights) -> PerceptionModel:
    """Their weights in our modules."""
    trunk = VisionConfig(
        transformer=stack(), image_size=16, patch_size=8, frames=4, tubelet_frames=2,
        frame_interval=0.1, positions="sincos", final_norm=False,
    )  # fmt: skip
    decoder = PixelDecoderConfig(
        transformer=stack(width=12, depth=1, hidden=20), channelwise=True, variance_floor=1e-12
    )
    changes = {**vision_alone(), "video": trunk, "video_decoder": decoder}
    made = PerceptionModel(ModelConfig.model_validate(changes))
    assert made.video is not None
    assert made.video_decoder is not None
    encoding, decoding = video_mae(weights)
    made.video.load_state_dict(encoding)
    # Mean and spread, which only we predict, take no part.
    lacking = made.video_decoder.load_state_dict(decoding, strict=False)
    assert lacking.missing_keys == ["statistics.weight", "statistics.bias"]
    made.video.positions.copy_(numbers["positions"])
    made.video_decoder.positions.copy_(numbers["decoder_positions"])
    return made


def test_the_loss_and_all_its_gradients_are_those_of_transformers() -> None:
    weights, numbers = read("video_mae")
    network, losses = theirs(weights, numbers), []
    for row, hidden in enumerate(numbers["hidden"]):
        mask = {"kind": "explicit", "hidden": hidden.nonzero().flatten().tolist()}
        made = batch(1)
        frames_of(made).frames = numbers["frames"][row : row + 1]
        losses.append(objective(network, mask=mask)(made).loss)

    loss = torch.stack(losses).mean()
    loss.backward()

    assert_close(loss.detach(), numbers["loss"], rtol=1e-5, atol=0)
    encoding, decoding = video_mae(below("gradients/", numbers))
    decoding.pop("embed.bias")  # theirs has none
    for part, expected, ours_alone in (
        (network.video, encoding, set()),
        (network.video_decoder, decoding, {"embed.bias", "statistics.weight", "statistics.bias"}),
    ):
        assert part is not None
        found = {name: one.grad for name, one in part.named_parameters()}
        assert found.keys() - expected.keys() == ours_alone
        for name, gradient in expected.items():
            assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_what_counts_is_what_is_learnt_in_low_precision_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes, whole = list[Tensor](), VisionTransformer.importance
    hidden = list[Tensor]()

    def attended(self: VisionTransformer, pixels: Tensor) -> Tensor:
        passes.append(whole(self, pixels))
        return passes[-1]

    def counted(hidden_tubelets: Tensor, *rest: Any) -> Tensor:
        hidden.append(hidden_tubelets)
        return counted_tubelets(hidden_tubelets, *rest)

    monkeypatch.setattr(VisionTransformer, "importance", attended)
    monkeypatch.setattr(objectives.video_mae, "counted_tubelets", counted)
    torch.manual_seed(0)
    given = WeightedSum([(1.0, objective(mask=BY_ATTENTION))])

    backward(given, batch(), 2, lambda: torch.autocast("cpu", torch.bfloat16))

    assert [one.dtype for one in passes] == [torch.float32] * 2  # once for each piece
    assert len(hidden) == 4  # each counted, then learnt
    assert torch.equal(hidden[0], hidden[2])
    assert torch.equal(hidden[1], hidden[3])
