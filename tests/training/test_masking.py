"""Masks of a batch: laws that hold for whatever is drawn, and what importance goes by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from tests.bundles import stack
from tests.training.tiny import batch
from torch import Generator, Tensor

from tectum_core.architecture import VisionConfig
from tectum_core.change import clip_change
from tectum_core.masks import hidden_count, visible_indices
from tectum_core.model import VisionTransformer, patchify
from tectum_core.model.vision import take
from tectum_train.masking import (
    MaskConfig,
    check_mask,
    draw_masks,
    needs_change,
    scores_for,
    teacher_momentum,
)

READ: TypeAdapter[Any] = TypeAdapter(MaskConfig)
KINDS = ("random", "block", "tube", "importance", "explicit")
RATIO = st.floats(0.02, 0.98)
SEED = st.integers(0, 2**32)
Cell = tuple[int, int]


def read(kind: str, **changes: Any) -> Any:
    return READ.validate_python({"kind": kind, **changes})


def images(grid: int = 4) -> VisionConfig:
    return VisionConfig(transformer=stack(), image_size=2 * grid, patch_size=2)


def clips(grid: int = 4, steps: int = 3) -> VisionConfig:
    return VisionConfig(
        transformer=stack(), image_size=2 * grid, patch_size=2, frames=2 * steps, tubelet_frames=2,
        frame_interval=0.1,
    )  # fmt: skip


def streams(count: int, seed: int = 0) -> Iterator[Generator]:
    for number in range(count):
        yield Generator().manual_seed(1000 * seed + number)


def drawn(
    mask: Any, trunk: VisionConfig, ratio: float = 0.5, n: int = 3, seed: int = 0,
    scores: Tensor | None = None,
) -> Tensor:  # fmt: skip
    step = Generator().manual_seed(seed)
    return draw_masks(mask, trunk, ratio, step, streams(n, seed), scores)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


# ---------------------------------------------------------------- what is said


def test_the_list_of_kinds_is_complete() -> None:
    with pytest.raises(ValidationError) as told:
        read("guess")

    assert all(f"'{kind}'" in str(told.value) for kind in KINDS)
    assert str(told.value).count("', '") == len(KINDS) - 1


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("random", {"hint": 0.5}),
        ("random", {"ratios": (1.0,)}),
        ("importance", {"source": "colour"}),
        ("importance", {"hint": 1.5}),
        ("importance", {"source": "attention", "momentum": 0}),
        ("explicit", {}),
        ("explicit", {"hidden": ()}),
        ("explicit", {"hidden": (2, 2)}),
        ("explicit", {"hidden": (2,), "ratios": (0.5,)}),
    ],
)
def test_a_setting_that_a_kind_does_not_have_is_refused(kind: str, changes: Any) -> None:
    with pytest.raises(ValidationError):
        read(kind, **changes)


def test_what_a_trunks_input_cannot_have_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"mask\.kind: found 'tube'.*: 'random', .* single images"):
        check_mask(read("tube"), images())
    with pytest.raises(ValueError, match=r"these are clips of one tubelet \(2 frames\)"):
        check_mask(read("tube"), clips(steps=1))
    with pytest.raises(ValueError, match=r"mask\.hidden: found 16; allowed: 0 to 15"):
        check_mask(read("explicit", hidden=(3, 16)), images())
    with pytest.raises(ValueError, match=r"mask\.hidden: found all 16 patches; allowed: fewer"):
        check_mask(read("explicit", hidden=range(16)), images())
    for mask in (read("tube"), read("explicit", hidden=(3, 16))):
        check_mask(mask, clips())


def test_only_a_mask_by_change_must_be_told_what_changes() -> None:
    assert needs_change(read("importance"))
    assert not needs_change(read("importance", source="attention"))
    assert not any(needs_change(read(kind)) for kind in ("random", "block", "tube"))


def test_only_a_mask_by_attention_has_a_teacher() -> None:
    assert teacher_momentum(read("importance", source="attention", momentum=0.5)) == 0.5
    assert teacher_momentum(read("importance")) is None
    assert teacher_momentum(read("block")) is None
    with pytest.raises(
        ValidationError, match=r"mask\.momentum: found 0\.5; allowed: with source 'at"
    ):
        read("importance", momentum=0.5)


@pytest.mark.parametrize("source", ["change", "attention"])
def test_a_mask_that_is_written_out_is_read_again(source: str) -> None:
    mask = read("importance", source=source)

    assert READ.validate_python(mask.model_dump()) == mask


# ---------------------------------------------------------------- laws


@given(st.sampled_from(["random", "block", "importance"]), st.integers(2, 7), RATIO, SEED)
def test_every_row_of_images_hides_exactly_its_ratio(
    kind: str, grid: int, ratio: float, seed: int
) -> None:
    trunk = images(grid)
    scores = noise(3, trunk.patches, seed=seed % 1000) if kind == "importance" else None

    hidden = drawn(read(kind), trunk, ratio, seed=seed, scores=scores)

    assert hidden.shape == (3, trunk.patches)
    assert hidden.sum(dim=1).tolist() == [hidden_count(trunk.patches, ratio)] * 3


@given(st.sampled_from(["tube", "block"]), st.integers(2, 6), st.integers(2, 4), RATIO, SEED)
def test_in_clips_tubes_and_blocks_are_constant_over_time_and_hide_exactly_their_ratio(
    kind: str, grid: int, steps: int, ratio: float, seed: int
) -> None:
    trunk = clips(grid, steps)

    hidden = drawn(read(kind), trunk, ratio, seed=seed).view(3, steps, grid**2)

    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
    assert hidden[:, 0].sum(dim=1).tolist() == [hidden_count(grid**2, ratio)] * 3


@given(st.integers(2, 7), RATIO, SEED)
def test_blocks_are_connected(grid: int, ratio: float, seed: int) -> None:
    for row in drawn(read("block"), images(grid), ratio, seed=seed):
        cells = {divmod(int(place), grid) for place in row.nonzero().flatten()}
        found, border = set[Cell](), {min(cells)}
        while border:
            found |= border
            near = {
                (r + d, c + e) for r, c in border for d, e in ((0, 1), (1, 0), (0, -1), (-1, 0))
            }
            border = near & (cells - found)
        assert found == cells


@given(st.sampled_from(["random", "block"]), st.integers(2, 6), RATIO, SEED)
def test_what_is_shown_put_back_in_its_places_is_the_picture_with_holes(
    kind: str, grid: int, ratio: float, seed: int
) -> None:
    trunk = images(grid)
    patches = patchify(noise(3, 3, 2 * grid, 2 * grid, seed=seed % 1000), 2)
    hidden = drawn(read(kind), trunk, ratio, seed=seed)

    keep = visible_indices(hidden)
    shown = take(patches, keep)
    places = keep[:, :, None].expand(-1, -1, shown.shape[2])
    restored = torch.full_like(patches, torch.nan).scatter(1, places, shown)

    assert torch.equal(restored.isnan().all(dim=2), hidden)
    assert torch.equal(restored[~hidden], patches[~hidden])


def test_listed_patches_are_hidden_in_every_sample() -> None:
    hidden = drawn(read("explicit", hidden=(5, 2)), images())

    assert hidden.nonzero().tolist() == [[row, place] for row in range(3) for place in (2, 5)]


def test_a_step_draws_one_ratio_for_all_and_in_time_each() -> None:
    mask, seen = read("random", ratios=(0.25, 0.5, 0.75)), set()
    for seed in range(30):
        (count,) = drawn(mask, images(), 0.9, seed=seed).sum(dim=1).unique().tolist()
        seen.add(count)

    assert seen == {4, 8, 12}


@pytest.mark.parametrize(
    ("kind", "trunk"), [("random", images()), ("random", clips()), ("tube", clips())]
)
def test_any_two_random_patches_are_hidden_together_equally_often(
    kind: str, trunk: VisionConfig
) -> None:
    hidden = drawn(read(kind), trunk, 0.25, n=2000)

    places = 16 if kind == "tube" else trunk.patches  # of a tube, its first step
    shown, count = hidden[:, :places].double(), places // 4
    together = (shown.t() @ shown / 2000)[~torch.eye(places, dtype=torch.bool)]
    expected = count * (count - 1) / (places * (places - 1))
    deviation = (expected * (1 - expected) / 2000) ** 0.5
    assert float((together - expected).abs().max()) < 5 * deviation


# ---------------------------------------------------------------- whose draws they are


def test_which_ratio_is_drawn_is_settled_by_the_step_and_not_by_torchs_generator() -> None:
    mask = read("random", ratios=(0.25, 0.5, 0.75))

    drawn_ = [[int(drawn(mask, images(), seed=seed)[0].sum()) for seed in range(12)] for _ in "12"]

    assert drawn_[0] == drawn_[1]


@pytest.mark.parametrize("kind", ["random", "block", "importance"])
@given(cut=st.integers(1, 7))
def test_a_part_of_a_batch_hides_what_the_whole_one_hides_there(kind: str, cut: int) -> None:
    mask, trunk, whole = read(kind), images(), batch(8)
    scores = noise(8, trunk.patches)

    def masks(part: Any, known: Tensor) -> Tensor:
        step = Generator().manual_seed(0)
        return draw_masks(mask, trunk, 0.5, step, part.streams("masks"), known)

    parts = [
        masks(whole.part(0, cut), scores[:cut]),
        masks(whole.part(cut, 8), scores[cut:]),
    ]

    assert torch.equal(torch.cat(parts), masks(whole, scores))


def test_samples_and_purposes_have_draws_of_their_own() -> None:
    made = batch(8)
    drawn_ = {
        purpose: [torch.rand(4, generator=one).tolist() for one in made.streams(purpose)]
        for purpose in ("patches", "words", "patches")
    }

    assert [torch.rand(4, generator=one).tolist() for one in made.streams("words")] == (
        drawn_["words"]
    )
    rows = [tuple(row) for rows in drawn_.values() for row in rows]
    assert len(set(rows)) == 16


# ---------------------------------------------------------------- what matters


def moving(seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of 8×8 patches in which what is in four of them, drawn anew for each, changes."""
    draw = Generator().manual_seed(seed)
    earlier = torch.randn(16, 3, 16, 16, generator=draw)
    later = earlier + 0.05 * torch.randn(earlier.shape, generator=draw)
    where = torch.stack([torch.randperm(64, generator=draw)[:4] for _ in range(16)])
    moved = torch.zeros(16, 64).scatter(1, where, 1.0).view(16, 1, 8, 8)
    wide = moved.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return torch.cat([earlier, later + wide]), moved.view(16, 64).bool()


@given(SEED, RATIO)
def test_what_moves_is_hidden_more_often_than_by_chance(seed: int, ratio: float) -> None:
    pictures, moved = moving(seed)
    trunk, mask = images(8), read("importance", hint=0.5)

    scores = scores_for(mask, trunk, pictures[:16], pictures[16:])
    often = [
        drawn(mask, trunk, ratio, n=16, seed=seed + more, scores=scores)
        for more in range(16)  # of one draw of 64 places, chance may still say otherwise
    ]

    hidden = torch.cat(often).float()
    assert float(hidden[moved.repeat(16, 1)].mean()) >= float(hidden.mean())


@given(SEED, st.sampled_from([0.25, 0.5, 0.75, 0.9]))
def test_without_hints_all_that_moves_is_hidden_and_with_hints_some_cues_stay(
    seed: int, ratio: float
) -> None:
    pictures, moved = moving(seed)
    trunk = images(8)
    cues = {}
    for hint in (0.0, 1.0):
        mask = read("importance", hint=hint)
        scores = scores_for(mask, trunk, pictures[:16], pictures[16:])
        hidden = drawn(mask, trunk, ratio, n=16, seed=seed, scores=scores)
        cues[hint] = int((~hidden)[moved].sum())

    assert cues[0.0] == 0
    # Of 64 in all, by chance as many as the share that is shown; five standard deviations.
    expected = 64 * (1 - ratio)
    assert abs(cues[1.0] - expected) <= 5 * (64 * ratio * (1 - ratio)) ** 0.5


def test_where_nothing_changes_no_place_is_preferred() -> None:
    mask, still = read("importance", hint=0.0), torch.zeros(2000, 16)

    share = drawn(mask, images(), 0.5, n=2000, scores=still).float().mean(dim=0)

    assert float((share - 0.5).abs().max()) < 0.06  # 5 standard deviations


def test_a_clips_change_is_what_its_frames_differ_from_those_about_them() -> None:
    frames = noise(2, 3, 6, 8, 8)
    ours = clip_change(frames, clips()).view(2, 3, 4, 4)

    clip = frames.double()
    for step, row, column in ((0, 0, 0), (1, 2, 3), (2, 3, 1)):
        part = clip[1, :, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        total = torch.zeros((), dtype=torch.float64)
        for frame in (2 * step, 2 * step + 1):
            about = [other for other in (frame - 1, frame + 1) if 0 <= other < 6]
            near = [(part[:, frame] - part[:, other]).square().mean() for other in about]
            total += torch.stack(near).mean() / 2
        assert float(ours[1, step, row, column]) == pytest.approx(float(total), rel=1e-5)


def test_attention_is_the_teachers_and_carries_no_gradient() -> None:
    teacher, pixels = VisionTransformer(images()), noise(2, 3, 8, 8)

    scores = scores_for(read("importance", source="attention"), images(), pixels, teacher=teacher)

    assert scores is not None
    assert torch.equal(scores, teacher.importance(pixels))
    assert not scores.requires_grad


def test_attention_is_told_in_full_precision_under_autocast() -> None:
    teacher, pixels = VisionTransformer(images()), noise(2, 3, 8, 8)
    mask = read("importance", source="attention")

    with torch.autocast("cpu", torch.bfloat16):
        inside = scores_for(mask, images(), pixels, teacher=teacher)

    outside = scores_for(mask, images(), pixels, teacher=teacher)
    assert inside is not None
    assert outside is not None
    assert torch.equal(inside, outside)


def test_attention_without_a_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a teacher"):
        scores_for(read("importance", source="attention"), images(), noise(2, 3, 8, 8))


def test_a_pair_without_its_later_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the later frame"):
        scores_for(read("importance"), images(), noise(2, 3, 8, 8))


def test_other_masks_ask_for_no_scores() -> None:
    assert scores_for(read("random"), images(), noise(2, 3, 8, 8)) is None
