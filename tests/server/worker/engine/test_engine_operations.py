"""Each operation on the predictor: which items may share a batch, and what a batch answers."""

import numpy as np
import pytest
import torch
from tests.bundles import SCALING, actions, clip, picture

from tectum.v1 import errors_pb2
from tectum_core.masks import hidden_count
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.masking import clip_mask, image_mask, step_mask, token_mask
from tectum_server.worker.engine.operations import batch_key, run_batch
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    EmbedClips,
    EmbedImages,
    EmbedTexts,
    FillActions,
    FillClip,
    FillImage,
    FillText,
    Item,
    ItemOutput,
    LatentActions,
    MaskSpec,
    Operation,
)

IMAGE, OTHER, CLIP = picture(1), picture(2, 64, 33), clip(1)
SECRET = MaskSpec("explicit", hidden=(0, 3))


def run(predictor: Predictor, operation: Operation, *items: Item) -> list[ItemOutput]:
    return run_batch(predictor, [(operation, item) for item in items])


# ---------------------------------------------------------------- keys

KEYS: list[tuple[Operation, Item]] = [
    (EmbedImages("joint"), Item((IMAGE,))),
    (EmbedImages("pooled"), Item((IMAGE,))),
    (EmbedTexts(), Item(text="a")),
    (EmbedClips("pooled"), Item((CLIP,))),
    (FillImage(MaskSpec()), Item((IMAGE,))),
    (FillImage(MaskSpec()), Item((IMAGE,), "open")),
    (FillImage(MaskSpec(ratio=0.5)), Item((IMAGE,))),
    (FillImage(SECRET), Item((IMAGE,))),
    (FillClip(MaskSpec("tube")), Item((CLIP,))),
    (FillClip(MaskSpec("tube", ratio=0.5)), Item((CLIP,))),
    (FillText(None, 5), Item(text="a")),
    (FillText(None, 6), Item(text="a")),
    (FillText(None, 5), Item((IMAGE,), "a")),
    (FillActions(MaskSpec(), False, False), Item((actions(),))),
    (FillActions(MaskSpec(), False, False), Item((actions(steps=5),))),
    (FillActions(MaskSpec(), False, True), Item((actions(), IMAGE))),
    (FillActions(MaskSpec(), True, False), Item((actions(), np.zeros(3, np.float32)))),
    (FillActions(MaskSpec(), False, False), Item((actions(),), "open")),
    (LatentActions(False, False), Item((IMAGE, IMAGE))),
    (LatentActions(True, False), Item((IMAGE, IMAGE))),
    (LatentActions(False, True), Item((IMAGE, IMAGE))),
]


def test_work_of_different_shape_shares_no_batch(full: Predictor) -> None:
    keys = {batch_key("m@1", operation, item, full) for operation, item in KEYS}

    assert len(keys) == len(KEYS)


def test_models_and_versions_share_no_batch(full: Predictor) -> None:
    operation, item = KEYS[0]

    assert batch_key("m@1", operation, item, full) != batch_key("m@2", operation, item, full)


def test_pictures_of_any_size_and_masks_of_any_seed_share_one(full: Predictor) -> None:
    one = batch_key("m", FillImage(MaskSpec(seed=1)), Item((IMAGE,)), full)
    two = batch_key("m", FillImage(MaskSpec("block", 0.75, 9)), Item((OTHER,)), full)

    assert one == two


@pytest.mark.parametrize("operation", [FillImage(MaskSpec()), FillClip(MaskSpec())])
def test_a_key_for_what_the_model_lacks_is_refused(bare: Predictor, operation: Operation) -> None:
    with pytest.raises(Failure) as caught:
        batch_key("m", operation, Item((IMAGE,)), bare)

    assert caught.value.reason == errors_pb2.ERROR_REASON_CAPABILITY_MISSING


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("vector", ["joint", "pooled", "tokens"])
def test_images_are_answered_one_by_one_in_order(full: Predictor, vector: str) -> None:
    found = run(full, EmbedImages(vector), Item((IMAGE,)), Item((OTHER,)))  # type: ignore[arg-type]

    wanted = full.embed_images([IMAGE, OTHER], vector)  # type: ignore[arg-type]
    assert np.array_equal(np.stack([output.arrays[0] for output in found]), wanted)


def test_texts_and_clips_are_answered_as_the_predictor_does(full: Predictor) -> None:
    texts = run(full, EmbedTexts(), Item(text="open"), Item(text="close the door"))
    clips = run(full, EmbedClips("tokens"), Item((CLIP,)))

    assert np.array_equal(texts[1].arrays[0], full.embed_texts(["open", "close the door"])[1])
    assert np.array_equal(clips[0].arrays[0], full.embed_clips([CLIP], "tokens")[0])


def test_a_filled_image_comes_with_its_mask_and_errors(full: Predictor) -> None:
    specs = [MaskSpec(seed=seed) for seed in (1, 2)]
    batch = [
        (FillImage(spec), Item((image,))) for spec, image in zip(specs, (IMAGE, OTHER), strict=True)
    ]

    found = run_batch(full, batch)

    for output, spec, image in zip(found, specs, (IMAGE, OTHER), strict=True):
        seen, filled, mask, error = output.arrays
        wanted = image_mask(full, spec, image)
        assert seen.shape == filled.shape == (1, 32, 32, 3)
        assert np.array_equal(mask, wanted.numpy())
        assert np.array_equal(np.isnan(error), ~mask)


def test_a_filled_clip_comes_with_all_its_frames(full: Predictor) -> None:
    (found,) = run(full, FillClip(MaskSpec("tube")), Item((CLIP,)))

    seen, filled, mask, error = found.arrays
    assert seen.shape == filled.shape == (4, 32, 32, 3)
    assert mask.shape == error.shape == (32,)


def test_a_text_is_filled_in_token_by_token(full: Predictor) -> None:
    (found,) = run(full, FillText(None, 3), Item(text="open the [MASK]"))

    assert [(t.token, t.hidden) for t in found.tokens] == [
        ("open", False),
        ("the", False),
        ("[MASK]", True),
    ]
    candidates = found.tokens[2].candidates
    assert len(candidates) == 3
    assert [p for _, p in candidates] == sorted((p for _, p in candidates), reverse=True)
    assert found.tokens[2].error is None  # the truth is not known
    assert found.text == " ".join(("open", "the", candidates[0][0])).replace(" ##", "")


def test_a_hidden_token_whose_truth_is_known_has_its_surprise(full: Predictor) -> None:
    spec = MaskSpec("explicit", hidden=(1,))

    (found,) = run(full, FillText(spec, 77), Item(text="open the door"))

    hidden = found.tokens[1]
    assert (hidden.token, hidden.hidden) == ("the", True)
    assert hidden.error == pytest.approx(-np.log(dict(hidden.candidates)["the"]), rel=1e-5)
    assert [token.error for token in found.tokens if not token.hidden] == [None, None]


def test_filled_actions_keep_what_was_visible_and_measure_what_was_not(full: Predictor) -> None:
    given = actions(3)
    (found,) = run(full, FillActions(MaskSpec("block"), False, False), Item((given,)))

    filled, mask, error = found.arrays
    spread = np.array(SCALING.standard_deviation, np.float32)
    wanted = np.where(mask, (((filled - given) / spread) ** 2).mean(-1), np.nan)
    assert np.array_equal(filled[~mask], given[~mask])
    np.testing.assert_allclose(error, wanted, rtol=1e-5)


def test_conditions_of_actions_are_read_in_their_places(full: Predictor) -> None:
    state = np.array([1, 2, 3], np.float32)
    operation = FillActions(SECRET, has_state=True, has_image=True)

    (found,) = run(full, operation, Item((actions(), state, IMAGE), "open the door"))

    hidden = torch.zeros(1, 8, dtype=torch.bool)
    hidden[0, [0, 3]] = True
    wanted = full.fill_actions(actions()[None], hidden, [IMAGE], ["open the door"], state[None])
    np.testing.assert_allclose(found.arrays[0], wanted[0], rtol=1e-6)


def test_latent_actions_answer_only_what_was_asked(full: Predictor) -> None:
    (plain,) = run(full, LatentActions(False, False), Item((IMAGE, OTHER)))
    (whole,) = run(full, LatentActions(True, True), Item((IMAGE, OTHER)))

    assert [array.shape for array in plain.arrays] == [(8,), (2,), (0,), (0,)]
    assert [array.shape for array in whole.arrays] == [(8,), (2,), (4, 4), (16, 16, 3)]
    np.testing.assert_allclose(whole.arrays[0], plain.arrays[0], rtol=1e-6)


# ---------------------------------------------------------------- masks


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

    scores = full.image_importance(IMAGE)
    assert scores[mask.numpy()].min() >= scores[~mask.numpy()].max()


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
    assert kind in failure.message


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
