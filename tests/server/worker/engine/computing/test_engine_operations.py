"""Each operation on the predictor: which items may share a batch, and what a batch answers."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.bundles import SCALING, actions, clip, picture

from tectum.v1 import errors_pb2
from tectum_core.outputs import FilledTexts
from tectum_core.predictor import Predictor
from tectum_core.rollouts import RolloutRequest
from tectum_server.worker.engine.computing.masking import image_masks
from tectum_server.worker.engine.computing.operations import batch_key, run_batch
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
    Rollout,
)

IMAGE, OTHER, CLIP = picture(1), picture(2, 64, 33), clip(1)
SECRET = MaskSpec("explicit", hidden=(0, 3))


SEEN, DONE = np.random.default_rng(0).normal(size=(2, 16, 32)).astype(np.float32), actions()


def rollout(frames: int = 2, seen: int = 2, **asked: bool) -> Rollout:
    """A rollout of two frames; only what is named is asked for."""
    flags = ("has_goal", "return_latents", "decode_frames")
    return Rollout(frames, seen, has_actions=True, **{**dict.fromkeys(flags, False), **asked})


def outputs(predictor: Predictor, batch: Sequence[tuple[Operation, Item]]) -> list[ItemOutput]:
    """Of a batch in which every item has one."""
    found = run_batch(predictor, batch)
    return [output for output in found if isinstance(output, ItemOutput)]


def run(predictor: Predictor, operation: Operation, *items: Item) -> list[ItemOutput]:
    return outputs(predictor, [(operation, item) for item in items])


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
    (FillImage(MaskSpec("importance")), Item((IMAGE,))),
    (FillImage(MaskSpec("importance")), Item((IMAGE,), "open")),
    (FillClip(MaskSpec("importance")), Item((CLIP,))),
    (FillClip(MaskSpec("importance", source="change")), Item((CLIP,))),
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
    (rollout(), Item((SEEN, DONE[:4], DONE))),
    (rollout(frames=1), Item((SEEN, DONE[:4], DONE[:4]))),
    (rollout(seen=1), Item((SEEN[:1], DONE[:0], DONE))),
    (rollout(has_goal=True), Item((SEEN, DONE[:4], DONE, SEEN[0]))),
    (rollout(return_latents=True), Item((SEEN, DONE[:4], DONE))),
    (rollout(decode_frames=True), Item((SEEN, DONE[:4], DONE))),
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

    found = outputs(full, batch)

    for output, wanted in zip(found, image_masks(full, specs, (IMAGE, OTHER)), strict=True):
        seen, filled, mask, error = output.arrays
        assert seen.shape == filled.shape == (1, 32, 32, 3)
        assert np.array_equal(mask, wanted.numpy())
        assert np.array_equal(np.isnan(error), ~mask)


@pytest.mark.parametrize(
    ("operation", "score", "pictures"),
    [
        (FillImage(MaskSpec("importance")), "image_importance", (IMAGE, OTHER, IMAGE)),
        (FillClip(MaskSpec("importance")), "clip_importance", (CLIP, clip(2))),
        (FillClip(MaskSpec("importance", source="change")), "clip_change", (CLIP, clip(2))),
    ],
    ids=["image", "clip", "change"],
)
def test_what_matters_in_a_batch_is_asked_in_one_pass(
    full: Predictor,
    monkeypatch: pytest.MonkeyPatch,
    operation: Operation,
    score: str,
    pictures: Sequence[NDArray[np.uint8]],
) -> None:
    asked: list[int] = []
    ask = getattr(full, score)

    def counted(given: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        asked.append(len(given))
        found: NDArray[np.float32] = ask(given)
        return found

    monkeypatch.setattr(full, score, counted)

    together = run(full, operation, *(Item((one,)) for one in pictures))

    assert asked == [len(pictures)]
    for one, found in zip(pictures, together, strict=True):
        (alone,) = run(full, operation, Item((one,)))
        assert np.array_equal(found.arrays[2], alone.arrays[2])


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


def test_a_text_that_cannot_be_masked_costs_its_neighbours_nothing(
    full: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    fill = full.fill_texts

    def counted(ids: Sequence[Sequence[int]], images: None = None) -> FilledTexts:
        computed.append(len(ids))
        return fill(ids, images)

    monkeypatch.setattr(full, "fill_texts", counted)
    operation = FillText(SECRET, 3)
    texts = ["open the red door", "open", "close the red drawer", "open the door"]

    found = run_batch(full, [(operation, Item(text=text)) for text in texts])

    assert computed == [2]
    alone = [run(full, operation, Item(text=texts[place]))[0] for place in (0, 2)]
    for place, one in zip((0, 2), alone, strict=True):
        together = found[place]
        assert isinstance(together, ItemOutput)
        assert (together.text, len(together.tokens)) == (one.text, len(one.tokens))
    for place, words in ((1, "at least 2 tokens"), (3, "index 3 lies outside 0..2")):
        failure = found[place]
        assert isinstance(failure, Failure)
        assert words in failure.message


def test_a_batch_of_nothing_but_such_texts_computes_nothing(
    full: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Predictor, "fill_texts")

    found = run_batch(full, [(FillText(None, 3), Item(text="open"))] * 2)

    assert [isinstance(one, Failure) for one in found] == [True, True]


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


def test_rollouts_answer_only_what_was_asked(full: Predictor) -> None:
    (plain,) = run(full, rollout(), Item((SEEN, DONE[:4], DONE)))
    asked = rollout(has_goal=True, return_latents=True, decode_frames=True)
    (whole,) = run(full, asked, Item((SEEN, DONE[:4], DONE, SEEN[0])))

    assert [array.shape for array in plain.arrays] == [(0,), (0,), (0,)]
    assert [array.shape for array in whole.arrays] == [(2, 16, 32), (2,), (2, 32, 32, 3)]


def test_candidates_are_rolled_out_one_by_one_in_order(full: Predictor) -> None:
    many = [actions(seed) for seed in range(3)]
    asked = rollout(has_goal=True, return_latents=True)

    found = run(full, asked, *(Item((SEEN, DONE[:4], one, SEEN[1])) for one in many))

    wanted = full.rollout(
        RolloutRequest(
            np.stack([SEEN] * 3), 2, np.stack([DONE[:4]] * 3), np.stack(many),
            np.stack([SEEN[1]] * 3),
        )
    )  # fmt: skip
    assert np.array_equal(np.stack([output.arrays[0] for output in found]), wanted.latents)
    assert wanted.distances is not None
    assert np.array_equal(np.stack([output.arrays[1] for output in found]), wanted.distances)
