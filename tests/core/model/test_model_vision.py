"""Patches, positions and the vision trunk on images and clips."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.bundles import stack, vision
from torch.nn import functional as F
from torch.testing import assert_close

from tectum_core.architecture import StemConfig
from tectum_core.model import Replaced, VisionTransformer, patchify, unpatchify
from tectum_core.model.stem import ConvolutionStem
from tectum_core.model.vision import resampled_positions, sincos_positions

SMALL = st.integers(1, 3)


# ---------------------------------------------------------------- patches


@given(SMALL, SMALL, SMALL, SMALL, st.integers(1, 4))
def test_unpatchify_undoes_patchify(
    batch: int, steps: int, tubelet: int, side: int, patch: int
) -> None:
    shape = (batch, 3, steps * tubelet, side * patch, side * patch)
    pixels = torch.randn(shape)

    patches = patchify(pixels, patch, tubelet)

    assert patches.shape == (batch, steps * side * side, 3 * tubelet * patch * patch)
    assert torch.equal(unpatchify(patches, patch, tubelet, steps), pixels)


@given(SMALL, SMALL, SMALL, st.integers(1, 4))
def test_an_image_is_a_clip_of_one_frame(batch: int, rows: int, columns: int, patch: int) -> None:
    pixels = torch.randn(batch, 3, rows * patch, columns * patch)

    assert torch.equal(patchify(pixels, patch), patchify(pixels.unsqueeze(2), patch))


def test_patches_run_as_a_convolution_of_that_stride_reads_them() -> None:
    pixels = torch.randn(2, 3, 12, 16)
    kernel = torch.randn(5, 3, 4, 4)

    wanted = F.conv2d(pixels, kernel, stride=4).flatten(2).transpose(1, 2)

    assert_close(patchify(pixels, 4) @ kernel.flatten(1).T, wanted, rtol=0, atol=1e-5)


def test_tubelets_run_as_a_convolution_over_time_reads_them() -> None:
    clip = torch.randn(2, 3, 6, 8, 8, dtype=torch.float64)
    kernel = torch.randn(5, 3, 2, 4, 4, dtype=torch.float64)

    wanted = F.conv3d(clip, kernel, stride=(2, 4, 4)).flatten(2).transpose(1, 2)

    assert_close(patchify(clip, 4, 2) @ kernel.flatten(1).T, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(1, 3, 2, 9, 8), (1, 3, 2, 8, 9), (1, 3, 3, 8, 8)])
def test_what_does_not_divide_is_refused_with_the_numbers(shape: tuple[int, ...]) -> None:
    _, _, frames, height, width = shape

    with pytest.raises(ValueError, match=f"{frames} frames of {height}×{width} .* 2 frames of 4×4"):
        patchify(torch.zeros(shape), 4, 2)


# ---------------------------------------------------------------- positions


def sincos_by_hand(width: int, place: float) -> list[float]:
    """Vaswani's table for one coordinate: all sines, then all cosines."""
    angles = [place / 10000 ** (2 * index / width) for index in range(width // 2)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


@pytest.mark.parametrize("grid", [1, 3, 4])
def test_image_positions_are_the_columns_table_then_the_rows(grid: int) -> None:
    wanted = [
        sincos_by_hand(8, column) + sincos_by_hand(8, row)
        for row in range(grid)
        for column in range(grid)
    ]

    assert_close(sincos_positions(16, 1, grid), torch.tensor(wanted), rtol=0, atol=1e-6)


def test_clip_positions_add_a_table_for_the_step() -> None:
    image, clip = sincos_positions(8, 1, 2), sincos_positions(8, 3, 2).view(3, 4, 8)

    for step in range(3):
        wanted = image + torch.tensor(sincos_by_hand(8, step))
        assert_close(clip[step], wanted, rtol=0, atol=1e-6)


def test_no_two_places_of_a_clip_share_a_position() -> None:
    table = sincos_positions(32, 4, 4).numpy()

    assert len(np.unique(table.round(4), axis=0)) == 64


def test_sincos_needs_a_width_that_four_divides() -> None:
    with pytest.raises(ValueError, match="4 divides, not 6"):
        sincos_positions(6, 1, 2)


# A picture one pixel wide is scaled wrongly by torch 2.13 itself.
@given(st.integers(2, 6), st.integers(1, 6), st.integers(2, 6))
def test_positions_are_resampled_as_a_picture_is(grid: int, rows: int, columns: int) -> None:
    table = torch.randn(grid, grid, 3, dtype=torch.float64)

    found = resampled_positions(table, rows, columns)

    picture = table.permute(2, 0, 1)[None]
    wanted = F.interpolate(picture, (rows, columns), mode="bicubic", antialias=True)
    assert_close(found, wanted[0].permute(1, 2, 0), rtol=0, atol=1e-12)


@given(st.integers(1, 8))
def test_positions_of_the_same_grid_are_the_same_to_the_last_bit(grid: int) -> None:
    table = torch.randn(grid, grid, 4)

    assert resampled_positions(table, grid, grid) is table


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
def test_a_position_that_is_everywhere_the_same_stays_so(
    grid: int, rows: int, columns: int
) -> None:
    table = torch.ones(grid, grid, 2, dtype=torch.float64)

    assert_close(resampled_positions(table, rows, columns), torch.ones(rows, columns, 2).double())


# ---------------------------------------------------------------- the trunk


@pytest.mark.parametrize("pooling", ["class", "mean", "attention"])
def test_prefix_tokens_are_left_out_of_the_patch_vectors(pooling: str) -> None:
    config = vision(class_token=True, registers=2, pooling=pooling)

    output = VisionTransformer(config).eval()(torch.randn(2, 3, 32, 32))

    assert output.tokens.shape == (2, 16, 32)
    assert output.pooled.shape == (2, 32)


def test_mean_pooling_is_the_mean_of_the_patches_alone() -> None:
    output = VisionTransformer(vision(class_token=True, registers=2))(torch.randn(2, 3, 32, 32))

    assert_close(output.pooled, output.tokens.mean(1))


def test_a_clip_gives_a_token_for_each_tubelet() -> None:
    config = vision(frames=4, tubelet_frames=2, frame_interval=0.1, positions="sincos")

    output = VisionTransformer(config).eval()(torch.randn(2, 3, 4, 32, 32))

    assert output.tokens.shape == (2, 32, 32)


STEMS = [None, StemConfig(widths=(4, 8, 12)), StemConfig(widths=(4, 8, 12), blocks=2, groups=4)]


@pytest.mark.parametrize("stem", STEMS)
def test_keeping_every_patch_is_keeping_none_back(stem: StemConfig | None) -> None:
    model, pixels = VisionTransformer(vision(stem=stem)).eval(), torch.randn(2, 3, 32, 32)
    everything = torch.arange(16).expand(2, -1)

    assert_close(model(pixels, everything).tokens, model(pixels).tokens)


@pytest.mark.parametrize("stem", STEMS)
def test_patches_that_are_not_kept_change_nothing(stem: StemConfig | None) -> None:
    model = VisionTransformer(vision(stem=stem, pooling="attention")).eval()
    pixels = torch.randn(1, 3, 32, 32)
    keep = torch.tensor([[0, 5, 15]])
    changed = patchify(pixels, 8)
    hidden = [index for index in range(16) if index not in (0, 5, 15)]
    changed[:, hidden] = 100.0

    found = model(unpatchify(changed, 8, 1, 1).squeeze(2), keep)

    assert_close(found.tokens, model(pixels, keep).tokens)
    assert_close(found.pooled, model(pixels, keep).pooled)


@pytest.mark.parametrize("stem", STEMS)
def test_replacing_no_patch_changes_nothing(stem: StemConfig | None) -> None:
    model, pixels = VisionTransformer(vision(stem=stem)).eval(), torch.randn(2, 3, 32, 32)
    none = Replaced(torch.zeros(2, 16, dtype=torch.bool), torch.full((32,), torch.nan))

    assert_close(model(pixels, replaced=none).tokens, model(pixels).tokens)


@pytest.mark.parametrize("stem", STEMS)
def test_of_a_replaced_patch_nothing_is_seen(stem: StemConfig | None) -> None:
    model, pixels = VisionTransformer(vision(stem=stem)).eval(), torch.randn(2, 3, 32, 32)
    where = torch.zeros(2, 16, dtype=torch.bool)
    where[0, [1, 2, 6]], where[1, 15] = True, True  # not equally many
    changed = patchify(pixels, 8).masked_fill(where[:, :, None], 100.0)
    mask = Replaced(where, torch.randn(32))

    found = model(unpatchify(changed, 8, 1, 1).squeeze(2), replaced=mask)

    assert_close(found.tokens, model(pixels, replaced=mask).tokens)
    assert found.tokens.shape == (2, 16, 32)
    other = model(pixels, replaced=Replaced(where, torch.randn(32)))
    assert not torch.allclose(found.tokens, other.tokens, atol=1e-3)


def test_what_stands_for_a_patch_has_the_patchs_position_and_learns() -> None:
    model = VisionTransformer(vision())
    where, by = torch.ones(1, 16, dtype=torch.bool), torch.randn(32, requires_grad=True)

    sequence = model.sequence(torch.randn(1, 3, 32, 32), None, Replaced(where, by))

    assert_close(sequence, by + model.positions)
    sequence.sum().backward()
    assert_close(by.grad, torch.full((32,), 16.0))


def test_patches_are_left_out_or_replaced_not_both() -> None:
    where = Replaced(torch.zeros(1, 16, dtype=torch.bool), torch.zeros(32))

    with pytest.raises(ValueError, match="left out or replaced"):
        VisionTransformer(vision())(torch.zeros(1, 3, 32, 32), torch.tensor([[0]]), where)


@pytest.mark.parametrize("positions", ["learnt", "sincos"])
@pytest.mark.parametrize("stem", STEMS[:2])
def test_a_picture_of_another_size_has_a_token_for_each_patch(
    stem: StemConfig | None, positions: str
) -> None:
    model = VisionTransformer(vision(stem=stem, positions=positions, class_token=True)).eval()

    output = model(torch.randn(2, 3, 16, 40))

    assert output.tokens.shape == (2, 2 * 5, 32)
    assert output.pooled.shape == (2, 32)


def test_a_smaller_clip_keeps_its_steps_apart() -> None:
    model = VisionTransformer(vision(frames=4, tubelet_frames=2, frame_interval=0.1)).eval()
    with torch.no_grad():
        model.positions[:, :16] = 0  # of the first step

    sequence = model.sequence(torch.zeros(1, 3, 4, 16, 16), None)

    assert sequence.shape == (1, 8, 32)
    assert_close(sequence[:, :4], model.embed.bias.expand(1, 4, -1))  # type: ignore[operator]
    assert bool((sequence[:, 4:] != sequence[:, :1]).any(dim=2).all())


@pytest.mark.parametrize("stem", STEMS[:2])
def test_a_picture_that_cannot_be_cut_is_refused(stem: StemConfig | None) -> None:
    with pytest.raises(ValueError, match="30×32 pixels cannot be cut into patches of"):
        VisionTransformer(vision(stem=stem))(torch.zeros(1, 3, 30, 32))


def test_a_clip_of_another_length_is_refused() -> None:
    trunk = VisionTransformer(vision(frames=4, tubelet_frames=2, frame_interval=0.1))

    with pytest.raises(ValueError, match="reads 4 frames, not 2"):
        trunk(torch.zeros(1, 3, 2, 32, 32))


@pytest.mark.parametrize("stem", STEMS[:2])
@pytest.mark.parametrize("class_token", [False, True])
def test_importance_is_a_share_of_attention_for_each_patch(
    class_token: bool, stem: StemConfig | None
) -> None:
    model = VisionTransformer(vision(class_token=class_token, stem=stem)).eval()

    importance = model.importance(torch.randn(3, 3, 32, 32))

    assert importance.shape == (3, 16)
    assert bool((importance > 0).all())
    assert bool((importance.sum(1) <= 1 + 1e-5).all())


def test_norms_and_biases_are_there_only_where_configured() -> None:
    plain = VisionTransformer(vision(final_norm=False, patch_bias=False))
    full = VisionTransformer(vision(transformer=stack(), input_norm=True))

    assert not {key for key in plain.state_dict() if "_norm" in key or key == "embed.bias"}
    assert {"input_norm.weight", "final_norm.weight", "embed.bias"} <= full.state_dict().keys()


def test_but_for_the_norms_a_patch_reaches_its_own_token_of_a_stem_and_the_next_ones() -> None:
    model = ConvolutionStem(StemConfig(widths=(4, 8, 12)), 32, 1e-6)
    for stage in model.stages:
        assert isinstance(stage, torch.nn.Sequential)
        stage[1] = torch.nn.Identity()  # it norms over the whole picture
    pixels = torch.randn(1, 3, 32, 32)
    changed = pixels.clone()
    changed[..., 8:16, 16:24] += 1.0  # row 1, column 2

    moved = (model(changed, None) - model(pixels, None))[0].abs().amax(-1) > 1e-6

    assert moved.nonzero().flatten().tolist() == [6, 7, 10, 11]


def test_a_stem_is_convolutions_norms_and_gelus_as_written_down() -> None:
    stem = StemConfig(widths=(4, 6), blocks=1, groups=2)
    model, pixels = ConvolutionStem(stem, 8, 1e-5), torch.randn(2, 3, 12, 12)
    weights = model.state_dict()

    def part(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    x = pixels
    for stage in ("stages.0", "stages.1"):
        x = F.conv2d(x, *part(f"{stage}.0"), stride=2, padding=1)
        y = x
        for norm, convolution in ((0, 2), (3, 5)):
            y = F.gelu(F.group_norm(y, 2, *part(f"{stage}.1.branch.{norm}")))
            y = F.conv2d(y, *part(f"{stage}.1.branch.{convolution}"), padding=1)
        x = F.gelu(F.group_norm(x + y, 2, *part(f"{stage}.2")))
    wanted = F.linear(x.flatten(2).transpose(1, 2), *part("project"))

    assert len(weights) == 2 * (2 * 6 + 1)  # and nothing else is in it
    assert_close(model(pixels, None), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stem", STEMS[1:])
def test_a_hidden_patch_is_one_of_the_normalised_grey(stem: StemConfig) -> None:
    model, pixels = ConvolutionStem(stem, 32, 1e-6), torch.randn(2, 3, 32, 32)
    keep = torch.tensor([[0, 5, 15], [3, 4, 9]])
    patches = patchify(pixels, 8)
    shown = torch.zeros(2, 16, dtype=torch.bool).scatter(1, keep, True)

    grey = unpatchify(patches * shown[:, :, None], 8, 1, 1).squeeze(2)

    assert_close(model(pixels, shown), model(grey, None))


def test_a_stem_normalises_each_picture_by_itself() -> None:
    stem = StemConfig(widths=(4, 8, 12), blocks=1, groups=2)
    model, pixels = ConvolutionStem(stem, 32, 1e-6), torch.randn(3, 3, 32, 32)

    assert_close(model(pixels, None)[:1], model(pixels[:1], None))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"stem": {"widths": (4, 8)}},
            "2 stages reads single images of patch_size 4, not 1 frames of patch_size 8",
        ),
        (
            {"stem": {"widths": (4, 8, 12)}, "frames": 2, "frame_interval": 0.1},
            "patch_size 8, not 2 frames of patch_size 8",
        ),
        ({"stem": {"widths": (4, 6, 8), "groups": 4}}, r"groups \(4\) must divide all of widths"),
    ],
)
def test_a_stem_that_does_not_fit_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        vision(**changes)
