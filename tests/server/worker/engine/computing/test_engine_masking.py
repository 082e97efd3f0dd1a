"""Which elements a mask hides, for each kind of target, and which masks are refused when."""

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.bundles import actions, clip, picture

from tectum.v1 import errors_pb2
from tectum_core.masks import hidden_count, hinted_mask
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.computing.masking import (
    clip_masks,
    image_masks,
    step_mask,
    token_mask,
)
from tectum_server.worker.engine.computing.operations import batch_key
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    FillActions,
    FillClip,
    FillImage,
    FillText,
    Item,
    MaskSpec,
    Operation,
)

IMAGE, CLIP = picture(1), clip(1)


def image_mask(predictor: Predictor, spec: MaskSpec, image: NDArray[np.uint8]) -> torch.Tensor:
    """One image's."""
    return image_masks(predictor, [spec], [image])[0]


def clip_mask(predictor: Predictor, spec: MaskSpec, clip: NDArray[np.uint8]) -> torch.Tensor:
    """One clip's."""
    return clip_masks(predictor, [spec], [clip])[0]


def refused(predictor: Predictor, target: str, spec: MaskSpec) -> Failure:
    with pytest.raises(Failure) as caught:
        match target:
            case "image":
                image_mask(predictor, spec, IMAGE)
            case "clip":
                clip_mask(predictor, spec, CLIP)
            case "actions":
                step_mask(predictor, spec, 8)
            case _:
                token_mask(predictor, spec, predictor.encode("open the red door"))
    return caught.value


@pytest.mark.parametrize("ratio", [None, 0.3])
@pytest.mark.parametrize("kind", ["random", "block", "importance"])
def test_an_image_mask_hides_the_models_own_share_unless_told(
    full: Predictor, kind: str, ratio: float | None
) -> None:
    mask = image_mask(full, MaskSpec(kind, ratio), IMAGE)  # type: ignore[arg-type]

    assert int(mask.sum()) == hidden_count(16, ratio or 0.75)


@pytest.mark.parametrize(
    ("kind", "count"), [("random", 24), ("importance", 24), ("tube", 24), ("block", 24)]
)
def test_a_clip_mask_hides_its_share(full: Predictor, kind: str, count: int) -> None:
    mask = clip_mask(full, MaskSpec(kind), CLIP)  # type: ignore[arg-type]

    assert int(mask.sum()) == count
    if kind in ("tube", "block"):
        assert torch.equal(mask[:16], mask[16:])


def test_importance_hides_what_the_trunk_attends_to(full: Predictor) -> None:
    mask = image_mask(full, MaskSpec("importance", 0.25), IMAGE)

    scores = full.image_importance([IMAGE])[0]
    assert scores[mask.numpy()].min() >= scores[~mask.numpy()].max()


def test_change_hides_what_differs_from_the_frames_about_it_as_training_does(
    full: Predictor,
) -> None:
    frames, still = clip(1), clip(1, height=32, width=32)
    still[:] = still[0]
    still[2:, 8:16, 24:32] = 255 - still[2:, 8:16, 24:32]  # one of the patches, from halfway on
    change = MaskSpec("importance", 1 / 16, source="change")

    mask = clip_mask(full, change, still)
    scores = full.clip_change([frames])[0]
    most = clip_mask(full, MaskSpec("importance", 0.25, source="change"), frames)

    assert mask.nonzero().flatten().tolist() == [7, 16 + 7]
    assert scores[most.numpy()].min() >= scores[~most.numpy()].max()


def test_where_nothing_changes_the_seed_says_what_is_hidden(full: Predictor) -> None:
    still = clip(1)
    still[:] = still[0]

    one, again, other = (
        clip_mask(full, MaskSpec("importance", 0.5, seed, source="change"), still)
        for seed in (1, 1, 2)
    )

    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_hints_are_drawn_from_all_elements_alike(full: Predictor) -> None:
    scores = torch.from_numpy(full.image_importance([IMAGE])[0])
    for hint in (0.0, 0.5, 1.0):
        spec = MaskSpec("importance", 0.5, 3, hint=hint)

        expected = hinted_mask(scores, 0.5, hint, torch.Generator().manual_seed(3))

        assert torch.equal(image_mask(full, spec, IMAGE), expected)


def test_a_picture_alone_has_no_change(full: Predictor) -> None:
    failure = refused(full, "image", MaskSpec("importance", source="change"))

    assert failure.reason == errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE
    assert failure.field == "mask.source"
    assert "needs a clip" in failure.message


@pytest.mark.parametrize(("kind", "count"), [("random", 4), ("block", 4)])
def test_a_step_mask_hides_its_share(full: Predictor, kind: str, count: int) -> None:
    assert int(step_mask(full, MaskSpec(kind), 8).sum()) == count  # type: ignore[arg-type]


def test_equal_seeds_hide_equal_elements_and_others_do_not(full: Predictor) -> None:
    draws = [image_mask(full, MaskSpec(seed=s), IMAGE).tolist() for s in (7, 7, 8, 2**64 - 1)]

    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 3


def test_a_written_mask_alone_hides_nothing_else(full: Predictor) -> None:
    encoded = full.encode("open [MASK] red [MASK]")

    assert token_mask(full, None, encoded) == {2, 4}
    assert token_mask(full, MaskSpec("explicit", hidden=(0,)), encoded) == {1, 2, 4}


def test_a_text_without_a_written_mask_hides_the_models_own_share(full: Predictor) -> None:
    encoded = full.encode("open the red door")

    assert len(token_mask(full, None, encoded)) == hidden_count(4, 0.15)


def test_nothing_else_is_hidden_for_a_mask_written_beyond_what_is_read(full: Predictor) -> None:
    encoded = full.encode("open the red door " * 4 + "[MASK]")

    with pytest.raises(Failure, match="reads 10 tokens of this text, and no .MASK.") as caught:
        token_mask(full, None, encoded)

    assert caught.value.reason == errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE
    assert caught.value.field == "text.text"
    assert token_mask(full, MaskSpec("explicit", hidden=(0,)), encoded) == {1}


def test_of_several_written_masks_those_that_are_read_are_hidden(full: Predictor) -> None:
    encoded = full.encode("[MASK] the red door " * 4)

    assert token_mask(full, None, encoded) == {1, 5, 9}


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("image", "tube"),
        ("actions", "tube"),
        ("actions", "importance"),
        ("text", "tube"),
        ("text", "block"),
        ("text", "importance"),
    ],
)
def test_a_kind_that_the_target_does_not_allow_is_named(
    full: Predictor, target: str, kind: str
) -> None:
    failure = refused(full, target, MaskSpec(kind))  # type: ignore[arg-type]

    assert failure.reason == errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE
    assert failure.field == "mask.kind"
    assert f"found {kind}; allowed for a" in failure.message
    assert failure.message.endswith("explicit")


@pytest.mark.parametrize(
    ("target", "count"), [("image", 16), ("clip", 32), ("actions", 8), ("text", 4)]
)
def test_an_index_beyond_the_target_is_named(full: Predictor, target: str, count: int) -> None:
    failure = refused(full, target, MaskSpec("explicit", hidden=(count,)))

    assert failure.reason == errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE
    assert failure.field == "mask.hidden"
    assert f"index {count} lies outside 0..{count - 1}" in failure.message


def test_a_text_of_one_token_cannot_be_masked(full: Predictor) -> None:
    with pytest.raises(Failure, match="at least 2 tokens, the text has 1") as caught:
        token_mask(full, MaskSpec(), full.encode("open"))

    assert caught.value.field == "text.text"


# ---------------------------------------------------------------- at admission

TUBE = MaskSpec("tube")
FROM_STEPS, STEPS = FillActions(MaskSpec(), False, False), Item((actions(),))


def listed(*hidden: int) -> MaskSpec:
    return MaskSpec("explicit", hidden=hidden)


@pytest.mark.parametrize(
    ("operation", "item", "field"),
    [
        (FillImage(TUBE), Item((IMAGE,)), "mask.kind"),
        (FillImage(MaskSpec("importance", source="change")), Item((IMAGE,)), "mask.source"),
        (FillImage(listed(1, 1)), Item((IMAGE,)), "mask.hidden"),
        (FillImage(listed(16)), Item((IMAGE,)), "mask.hidden"),
        (FillImage(listed(*range(16))), Item((IMAGE,), "open"), "mask.hidden"),
        (FillClip(listed(1, 1)), Item((CLIP,)), "mask.hidden"),
        (FillClip(listed(32)), Item((CLIP,)), "mask.hidden"),
        (msgspec.structs.replace(FROM_STEPS, mask=TUBE), STEPS, "mask.kind"),
        (msgspec.structs.replace(FROM_STEPS, mask=MaskSpec("importance")), STEPS, "mask.kind"),
        (msgspec.structs.replace(FROM_STEPS, mask=listed(1, 1)), STEPS, "mask.hidden"),
        (msgspec.structs.replace(FROM_STEPS, mask=listed(8)), STEPS, "mask.hidden"),
        (FillText(TUBE, 5), Item(text="open the door"), "mask.kind"),
        (FillText(MaskSpec("block"), 5), Item(text="open the door"), "mask.kind"),
        (FillText(MaskSpec("importance"), 5), Item(text="open the door"), "mask.kind"),
    ],
    ids=lambda given: "" if isinstance(given, Item) else str(given),
)
def test_an_item_whose_mask_cannot_be_has_no_key_and_so_joins_no_batch(
    full: Predictor, operation: Operation, item: Item, field: str
) -> None:
    with pytest.raises(Failure) as caught:
        batch_key("m", operation, item, full)

    assert caught.value.reason == errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE
    assert caught.value.field == field


def test_a_key_needs_no_look_at_the_picture(
    full: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Predictor, "image_importance")
    monkeypatch.delattr(Predictor, "encode")

    for kind in ("random", "block", "importance"):
        assert batch_key("m", FillImage(MaskSpec(kind)), Item((IMAGE,)), full)
    assert batch_key("m", FillText(listed(0, 3), 5), Item(text="open the door"), full)
