"""Masked images: the error on hidden patches, and on them alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.training.ranks import Ranks
from tests.training.tiny import batch, latent_action, model, parts, vision_alone
from torch import Generator, Tensor

from tectum_core.masks import random_mask
from tectum_core.model import PatchPrediction, PerceptionModel, PixelDecoder, patchify
from tectum_train.objectives import Batch, Reads
from tectum_train.objectives.masked_image import MaskedImage, MaskedImageConfig

PATCH, COUNT = 8, 16


def objective(network: PerceptionModel, **changes: Any) -> MaskedImage:
    settings = {"text_share": 0.0, "statistics_weight": 0.0, **changes}
    return MaskedImage(MaskedImageConfig.model_validate(settings), network)


def hidden_of(made: Batch, ratio: float = 0.75) -> Tensor:
    """The masks that the objective will draw."""
    return torch.stack([random_mask(COUNT, ratio, one) for one in made.streams("masked_image")])


class Altered:
    """Changes what a decoder says, and keeps what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keep: Tensor | None = None
        self.text: Tensor | None = None
        self.said: PatchPrediction | None = None
        self.visible, self.hidden, self.factor = 0.0, 0.0, 1.0
        whole = PixelDecoder.forward

        def forward(
            decoder: PixelDecoder, visible: Tensor, keep: Tensor,
            text: Tensor | None = None, seen: Tensor | None = None,
        ) -> PatchPrediction:  # fmt: skip
            self.keep, self.text = keep, text
            self.said = said = whole(decoder, visible, keep, text, seen)
            shown = torch.zeros(said.values.shape[:2]).scatter(1, keep, 1.0)[:, :, None]
            change = self.visible * shown + self.hidden * (1 - shown)
            return replace(
                said,
                values=self.factor * said.values + change,
                mean=self.factor * said.mean + change,
                log_spread=self.factor * said.log_spread + change,
            )

        monkeypatch.setattr(PixelDecoder, "forward", forward)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Altered:
    return Altered(monkeypatch)


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_loss_is_the_formulas_in_float64(
    decoder: Altered, normalised: bool, weight: float
) -> None:
    settings = parts()["pixel_decoder"] | {"normalised_target": normalised, "variance_floor": 0.01}
    made, network = batch(4), model(pixel_decoder=settings)
    hidden = hidden_of(made).numpy()

    outcome = objective(network, statistics_weight=weight)(made)

    patches = patchify(made.earlier, PATCH).double().numpy()
    mean = patches.mean(axis=2, keepdims=True)
    spread = np.sqrt(patches.var(axis=2, keepdims=True, ddof=1) + 0.01)
    target = (patches - mean) / spread if normalised else patches
    assert decoder.said is not None
    said = {
        name: getattr(decoder.said, name).detach().double().numpy()
        for name in ("values", "mean", "log_spread")
    }
    masked = np.square(said["values"] - target)[hidden].mean()
    statistics = (
        np.square(said["mean"] - mean)[hidden].mean()
        + np.square(said["log_spread"] - np.log(spread))[hidden].mean()
    )
    expected = masked + (weight * statistics if normalised else 0)
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-4)
    assert float(outcome.metrics["masked"]) == pytest.approx(masked, rel=1e-4)
    zero = np.square(target)[hidden].mean()
    assert float(outcome.metrics["relative"]) == pytest.approx(masked / zero, rel=1e-4)


def test_what_is_said_of_visible_patches_does_not_count(decoder: Altered) -> None:
    learnt = objective(model(), statistics_weight=1.0)

    before = learnt(batch()).loss
    decoder.visible = 10.0
    visible = learnt(batch()).loss
    decoder.hidden = 10.0
    hidden = learnt(batch()).loss

    assert torch.equal(visible, before)
    assert hidden.item() > before.item() + 50


def test_every_hidden_patch_counts(decoder: Altered) -> None:
    made, network = batch(2), model()
    hidden = hidden_of(made)
    before = objective(network)(batch(2)).loss.item()

    for row, place in hidden.nonzero().tolist():
        pixels = made.earlier.clone()
        top, left = PATCH * (place // 4), PATCH * (place % 4)
        patch = pixels[row, :, top : top + PATCH, left : left + PATCH]
        pixels[row, :, top : top + PATCH, left : left + PATCH] = patch.flip(-1).flip(-2)
        assert objective(network)(batch(2, earlier=pixels)).loss.item() != before, place


def test_predicting_zero_is_relative_one(decoder: Altered) -> None:
    decoder.factor = 0.0

    outcome = objective(model())(batch())

    assert float(outcome.metrics["relative"]) == pytest.approx(1.0)


def test_pictures_of_one_colour_are_no_endless_error() -> None:
    outcome = objective(model())(batch(earlier=torch.full_like(batch().earlier, 0.3)))

    assert torch.isfinite(outcome.loss)
    assert torch.isfinite(outcome.metrics["relative"])


# ---------------------------------------------------------------- what is seen


def test_hidden_pixels_reach_nobody(decoder: Altered) -> None:
    made, network = batch(3), model()
    objective(network)(made)
    first = decoder.said
    shown = (~hidden_of(made)).view(3, 1, 4, 4).float()
    shown = shown.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    noise = torch.randn(made.earlier.shape, generator=Generator().manual_seed(5))

    objective(network)(batch(3, earlier=torch.where(shown > 0, made.earlier, noise)))

    assert first is not None
    assert decoder.said is not None
    assert torch.equal(first.values, decoder.said.values)


def test_the_share_of_hidden_patches_is_the_decoders(decoder: Altered) -> None:
    for ratio, visible in ((0.75, 4), (0.5, 8)):
        settings = parts()["pixel_decoder"] | {"mask_ratio": ratio}
        objective(model(pixel_decoder=settings))(batch(5))
        assert decoder.keep is not None
        assert decoder.keep.shape == (5, visible)


def test_samples_and_steps_hide_different_patches(decoder: Altered) -> None:
    objective(model())(batch(8, seed=1))
    first = decoder.keep
    objective(model())(batch(8, seed=2))

    assert first is not None
    assert len({tuple(row) for row in first.tolist()}) > 4
    assert decoder.keep is not None
    assert not torch.equal(first, decoder.keep)


def test_flat_patches_do_not_become_amplified_noise() -> None:
    flat = torch.full((4, 3, 32, 32), 0.3)
    noise = 1e-3 * torch.randn(flat.shape, generator=Generator().manual_seed(0))

    loss = objective(model())(batch(4, earlier=flat + noise)).loss

    dull = model()
    assert dull.pixel_decoder is not None
    target = dull.pixel_decoder.target(patchify(flat + noise, PATCH))
    assert float(target.values.abs().max()) < 0.2
    assert torch.isfinite(loss)


def places(keep: Tensor | None) -> Tensor:
    """bool[B, N] of what was hidden, from what was kept."""
    assert keep is not None
    return torch.ones(len(keep), COUNT, dtype=torch.bool).scatter(1, keep, False)


def test_a_recipe_chooses_the_mask_and_its_ratios(decoder: Altered) -> None:
    network, made = model(), batch()

    objective(network, mask={"kind": "explicit", "hidden": (0, 5)})(made)
    listed = places(decoder.keep)
    objective(network, mask={"kind": "block", "ratios": (0.5,)})(made)

    assert listed.nonzero()[:, 1].tolist() == [0, 5] * 8
    assert places(decoder.keep).sum(dim=1).tolist() == [8] * 8


def test_a_mask_by_change_hides_what_moves_and_reads_the_later_frame(decoder: Altered) -> None:
    later = batch().earlier.clone()
    later[:, :, PATCH : 2 * PATCH, 2 * PATCH : 3 * PATCH] += 1  # the seventh of sixteen patches
    learnt = objective(model(), mask={"kind": "importance", "hint": 0, "ratios": (0.1, 0.2)})

    learnt(batch(later=later))

    assert learnt.config.reads == Reads.LATER
    assert objective(model()).config.reads == Reads.FRAME
    assert places(decoder.keep)[:, 6].all()


def test_a_mask_by_change_reads_the_later_frames_of_the_samples_that_are_used(
    decoder: Altered,
) -> None:
    later = batch().earlier.clone()
    later[:4, :, PATCH : 2 * PATCH, 2 * PATCH : 3 * PATCH] += 1  # the seventh patch
    later[4:, :, :PATCH, :PATCH] += 1
    mask = {"kind": "importance", "hint": 0, "ratios": (0.1,)}

    objective(model(), mask=mask, fraction=0.5)(batch(later=later))

    hidden = places(decoder.keep)
    assert hidden[:, 6].all()
    assert not hidden[:, 0].all()


def test_another_purpose_draws_another_ratio_and_hides_other_patches() -> None:
    hiding = objective(model(), mask={"kind": "random", "ratios": (0.25, 0.5, 0.75)}).hiding

    hidden = [
        [hiding(made, purpose, made.earlier, 0.5) for made in (batch(2, seed=s) for s in range(9))]
        for purpose in ("one", "other", "one")
    ]

    counts = [[int(rows[0].sum()) for rows in each] for each in hidden]
    assert counts[0] == counts[2] != counts[1]
    assert all(torch.equal(rows, again) for rows, again in zip(hidden[0], hidden[2], strict=True))


def test_a_mask_by_attention_needs_no_later_frame(decoder: Altered) -> None:
    mask = {"kind": "importance", "source": "attention", "hint": 0.0, "ratios": (0.5,)}
    network = model()

    objective(network, mask=mask)(batch(later=None))

    hidden, scores = places(decoder.keep), network.vision.importance(batch().earlier)
    assert (scores.masked_fill(~hidden, 1).amin(1) >= scores.masked_fill(hidden, 0).amax(1)).all()


@pytest.mark.parametrize("momentum", [0.25, 1.0])
def test_what_matters_is_what_a_slow_copy_of_the_trunk_attends_to(
    decoder: Altered, momentum: float
) -> None:
    mask = {
        "kind": "importance", "source": "attention", "hint": 0.0, "ratios": (0.5,),
        "momentum": momentum,
    }  # fmt: skip
    network = model()
    learnt, expected = objective(network, mask=mask), model().vision

    with torch.no_grad():
        for weight in network.vision.parameters():
            weight.add_(torch.randn(weight.shape, generator=Generator().manual_seed(1)))
        for slow, quick in zip(expected.parameters(), network.vision.parameters(), strict=True):
            slow.mul_(momentum).add_(quick, alpha=1 - momentum)
    learnt.after_step()
    learnt(batch())

    hidden, scores = places(decoder.keep), expected.importance(batch().earlier)
    assert (scores.masked_fill(~hidden, 1).amin(1) >= scores.masked_fill(hidden, 0).amax(1)).all()
    assert hidden.ne(places_of(network.vision.importance(batch().earlier))).any()


def places_of(scores: Tensor) -> Tensor:
    """bool[B, N], the half that scores highest."""
    return scores.argsort(dim=1, descending=True).argsort(dim=1) < COUNT // 2


def test_a_teacher_is_no_part_of_what_descends() -> None:
    learnt = objective(model(), mask={"kind": "importance", "source": "attention"})

    learnt(batch()).loss.backward()

    teacher = [one for name, one in learnt.named_parameters() if "teacher" in name]
    assert teacher
    assert not any(one.requires_grad or one.grad is not None for one in teacher)
    assert not any("hiding" in name for name in objective(model()).state_dict())


def test_a_mask_that_images_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask\.kind: found 'tube', which is for clips"):
        objective(model(), mask={"kind": "tube"})


# ---------------------------------------------------------------- the instruction


def test_the_instruction_is_shown_as_often_as_asked(decoder: Altered) -> None:
    shown = {0.0: 0, 1.0: 0, 0.5: 0}
    network = model()
    for share in shown:
        for seed in range(12):
            objective(network, text_share=share)(batch(1, seed=seed))
            shown[share] += decoder.text is not None

    assert shown[0.0] == 0
    assert shown[1.0] == 12
    assert 1 < shown[0.5] < 11


def test_whether_the_instruction_is_shown_is_settled_by_the_step(decoder: Altered) -> None:
    network, shown = model(), list[list[bool]]()
    for _ in range(2):
        shown.append([])
        for seed in range(12):
            objective(network, text_share=0.5)(batch(1, seed=seed))
            shown[-1].append(decoder.text is not None)

    assert shown[0] == shown[1]


def test_of_an_instruction_its_own_words_alone_are_read_and_its_trunk_learns() -> None:
    made, network = batch(), model()
    ids = torch.where(made.ids_seen, made.ids, 5)
    learnt = objective(network, text_share=1.0)

    loss = learnt(made).loss
    loss.backward()

    assert not torch.equal(ids, made.ids)
    torch.testing.assert_close(learnt(batch(ids=ids)).loss, loss)
    assert network.text is not None
    reached = [one.grad for one in network.text.transformer.parameters() if one.grad is not None]
    assert any(bool(one.any()) for one in reached)


def test_a_decoder_that_reads_no_text_is_shown_none(decoder: Altered) -> None:
    settings = parts()["pixel_decoder"] | {"text_context": False}

    objective(model(pixel_decoder=settings), text_share=1.0)(batch())

    assert decoder.text is None


def test_the_instruction_changes_what_is_said() -> None:
    network = model()
    other = batch(ids=batch().ids.flip(0), ids_seen=batch().ids_seen.flip(0))

    losses = [objective(network, text_share=1.0)(made).loss.item() for made in (batch(), other)]

    assert losses[0] != losses[1]


def test_vision_alone_can_learn_it() -> None:
    outcome = objective(model(**vision_alone()))(batch())

    assert torch.isfinite(outcome.loss)


def test_without_a_pixel_decoder_there_is_no_such_objective() -> None:
    with pytest.raises(ValueError, match=r"masked_image needs model\.pixel_decoder"):
        objective(model(pixel_decoder=None, latent_action=latent_action()))


def test_only_its_share_of_the_batch_is_used() -> None:
    network, one, other = model(), batch(8), batch(8)
    other.earlier[4:] += 1.0

    losses = [objective(network, fraction=0.5, text_share=1.0)(made).loss for made in (one, other)]

    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(objective(network)(batch(8)).loss, losses[0])
    assert int(objective(network, fraction=0.5).counted(one)) == 4


def relative(rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The error of these samples and of the other ranks', as a share of predicting zero."""
    outcome = objective(model())(batch(8).part(int(rows[0]), int(rows[-1]) + 1))
    return {"relative": outcome.metrics["relative"].numpy()}


def test_the_relative_error_is_that_of_all_ranks(ranks: Ranks) -> None:
    alone, both = relative(np.arange(8)), ranks.run(relative, rows=np.arange(8))

    assert [float(one["relative"]) for one in both] == pytest.approx([float(alone["relative"])] * 2)
