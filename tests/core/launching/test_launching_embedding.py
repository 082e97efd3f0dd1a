"""What a predictor embeds by recorded graphs is what it embeds without them."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.bundles import clip, picture
from tests.late_device import LateDevice, as_device

from tectum_core.golden import check_golden
from tectum_core.launching import (
    EmbeddingLane,
    Flight,
    Lane,
    device_for,
    embedding_lane,
    graph_sizes,
)
from tectum_core.launching.lane import Row
from tectum_core.numerics import Numerics
from tectum_core.outputs import Float32, Picture
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ImagePreprocessing, fitted, kept

MOST = 4
SIZES = [(32, 32), (40, 56), (17, 90), (32, 32)]
TEXTS = ["open the drawer", "close", "push the red button quickly", "pull"]
PICTURES = [picture(seed, *SIZES[seed]) for seed in range(MOST)]
CLIPS = [clip(seed, 4, *SIZES[seed]) for seed in range(MOST)]
KINDS: dict[str, Callable[[Predictor, Sequence[int]], Float32]] = {
    "image joint": lambda p, w: p.embed_images([PICTURES[i] for i in w], "joint"),
    "image pooled": lambda p, w: p.embed_images([PICTURES[i] for i in w], "pooled"),
    "image tokens": lambda p, w: p.embed_images([PICTURES[i] for i in w], "tokens"),
    "clip pooled": lambda p, w: p.embed_clips([CLIPS[i] for i in w], "pooled"),
    "clip tokens": lambda p, w: p.embed_clips([CLIPS[i] for i in w], "tokens"),
    "text joint": lambda p, w: p.embed_texts([TEXTS[i] for i in w]),
}


def with_lane(plain: Predictor, late: LateDevice, most: int = MOST) -> Predictor:
    """The same model, embedding by graphs."""
    own = Predictor(plain.bundle)
    own.lane = embedding_lane(own, most, lambda _: as_device(late))
    assert own.lane is not None
    return own


# ---------------------------------------------------------------- the same


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_needs_no_padding_has_the_same_bits(full: Predictor, kind: str) -> None:
    late = LateDevice()
    lane, embed = with_lane(full, late), KINDS[kind]
    before = late.replays

    for size in graph_sizes(MOST):
        found = embed(lane, range(size))

        np.testing.assert_array_equal(found, embed(full, range(size)))
        assert found.dtype == np.float32
    assert late.replays == before + len(graph_sizes(MOST))


@pytest.mark.parametrize("kind", KINDS)
def test_with_padding_it_differs_in_the_last_bits_at_most(full: Predictor, kind: str) -> None:
    lane, embed = with_lane(full, LateDevice(1), 16), KINDS[kind]
    many = [place % MOST for place in range(9)]

    for which in (many[:5], many[:7], many):
        np.testing.assert_allclose(embed(lane, which), embed(full, which), rtol=1e-5, atol=1e-5)


def test_texts_behind_pictures_are_padded_with_no_byte_of_these(full: Predictor) -> None:
    lane = with_lane(full, LateDevice(), 9)

    for count in range(1, 10):
        KINDS["image joint"](lane, [place % MOST for place in range(9)])
        which = [place % MOST for place in range(count)]
        found, wanted = (KINDS["text joint"](one, which) for one in (lane, full))

        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_pictures_that_were_prepared_ahead_go_beside_others(full: Predictor) -> None:
    lane = with_lane(full, LateDevice())
    ahead = [lane.fitted(PICTURES[place]) for place in (1, 3)]
    mixed: list[Picture] = [ahead[0], PICTURES[0], PICTURES[2], ahead[1]]

    found = lane.embed_images(mixed, "joint")

    wanted = full.embed_images([PICTURES[place] for place in (1, 0, 2, 3)], "joint")
    np.testing.assert_array_equal(found, wanted)


def test_pictures_that_may_not_be_written_are_read(full: Predictor) -> None:
    locked = [picture.copy() for picture in PICTURES]
    for one in locked:
        one.flags.writeable = False

    found = with_lane(full, LateDevice()).embed_images(locked, "pooled")

    np.testing.assert_array_equal(found, full.embed_images(PICTURES, "pooled"))


@pytest.mark.parametrize("most", [1, 2, 3])
def test_golden_outputs_are_asked_of_all_graphs_and_reproduced_by_them(
    full: Predictor, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    lane, launched = with_lane(full, LateDevice(), most), set[str]()
    launch = Lane.launch

    def counted(self: Lane, name: str, rows: Sequence[Row]) -> Flight | None:
        launched.add(name)
        return launch(self, name, rows)

    monkeypatch.setattr(Lane, "launch", counted)

    report = check_golden(lane)

    assert report.min_cosine > 0.99999
    assert launched == set(KINDS)


def test_more_than_the_largest_batch_is_embedded_without_graphs(full: Predictor) -> None:
    late = LateDevice()
    lane = with_lane(full, late, 2)
    before = late.replays

    found = lane.embed_images(PICTURES, "joint")

    assert late.replays == before
    np.testing.assert_array_equal(found, full.embed_images(PICTURES, "joint"))


def test_once_closed_it_embeds_without_graphs(full: Predictor) -> None:
    late = LateDevice()
    lane = with_lane(full, late)
    assert isinstance(lane.lane, EmbeddingLane)
    lane.lane.close()
    before = late.replays

    for kind in KINDS.values():
        np.testing.assert_array_equal(kind(lane, range(2)), kind(full, range(2)))

    assert late.replays == before


@given(
    size=st.integers(1, 9),
    more=st.integers(0, 7),
    mode=st.sampled_from(["stretch", "center_crop"]),
)
def test_what_is_kept_of_a_picture_that_fits_is_what_resizing_leaves(
    size: int, more: int, mode: str
) -> None:
    whole = size if mode == "stretch" else size + more
    tree = {"size": size, "resize_mode": mode}
    spec = ImagePreprocessing.model_validate(
        tree if mode == "stretch" else {**tree, "resize_to": whole}
    )
    one = np.random.default_rng(size).integers(0, 256, (whole, whole, 3), np.uint8)

    found = kept(one, spec)

    wanted = fitted(one, spec, torch.device("cpu")).movedim(-3, -1).numpy()
    np.testing.assert_array_equal(found, wanted)


# ---------------------------------------------------------------- what has none


def test_a_processor_needs_no_lane(full: Predictor) -> None:
    assert device_for(torch.device("cpu")) is None
    assert embedding_lane(full, MOST) is None


def test_what_was_not_learnt_is_not_recorded(full: Predictor) -> None:
    recorded = {}
    for name, untrained in {"all": (), "some": ("video", "vision.pool", "joint")}.items():
        summary = full.config.training.model_copy(update={"untrained": untrained})
        config = full.config.model_copy(update={"training": summary})
        late = LateDevice()
        with_lane(Predictor(replace(full.bundle, config=config)), late, 1)
        recorded[name] = late.pools[0].recorded

    assert recorded == {"all": 6, "some": 1}  # at batches of one; tokens of pictures are left


def test_if_nothing_can_be_recorded_there_is_no_lane_and_nothing_is_held(full: Predictor) -> None:
    late = LateDevice()

    def refuse() -> None:
        raise RuntimeError("not permitted")

    late.before_capture = refuse

    assert embedding_lane(full, MOST, lambda _: as_device(late)) is None
    assert late.held == 0
    assert late.pools[0].closed


NONE = {
    "on the device": (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate\nmuch"),
    "on the host": (torch.AcceleratorError, "CUDA error: out of memory\nmuch"),
}


@pytest.mark.parametrize("where", NONE)
def test_if_there_is_no_memory_for_batches_there_is_no_lane(
    full: Predictor, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    late, original, (kind, told) = LateDevice(), LateDevice.memory, NONE[where]

    def exhausted(count: int) -> torch.Tensor:
        raise kind(told)

    def memory(count: int) -> torch.Tensor:
        return exhausted(count) if late.pools[0].recorded else original(late, count)

    if where == "on the host":
        late.pinned = exhausted  # type: ignore[method-assign]
    else:
        late.memory = memory  # type: ignore[method-assign]

    assert embedding_lane(full, MOST, lambda _: as_device(late)) is None

    assert [one.__dict__["reason"] for one in caplog.records] == [told.partition("\n")[0]]
    assert late.pools[0].closed
    caplog.clear()
    gc.collect()
    assert late.held == 0


def test_if_a_device_cannot_even_be_found_for_lack_of_memory_there_is_no_lane(
    full: Predictor,
) -> None:
    def find(device: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    assert embedding_lane(full, MOST, find) is None


def test_any_other_error_of_a_device_is_not_passed_over(full: Predictor) -> None:
    def find(device: torch.device) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    with pytest.raises(torch.AcceleratorError):
        embedding_lane(full, MOST, find)


# ---------------------------------------------------------------- on a GPU

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def on_gpu(full: Predictor, numerics: Numerics, most: int) -> tuple[Predictor, Predictor]:
    """Without a lane and with one."""
    moved = replace(full.bundle, model=copy.deepcopy(full.bundle.model))
    plain, fast = (Predictor(moved, "cuda", numerics) for _ in range(2))
    fast.lane = embedding_lane(fast, most)
    assert fast.lane is not None
    return plain, fast


def least_cosine(found: Float32, wanted: Float32) -> float:
    a, b = (torch.from_numpy(one).flatten(1).double() for one in (found, wanted))
    return float(torch.nn.functional.cosine_similarity(a, b, dim=1).min())


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_graphs_embed_what_is_embedded_without_them(
    full: Predictor, kind: str, precision: str
) -> None:
    plain, fast = on_gpu(full, Numerics("bfloat16" if precision == "bfloat16" else "float32"), 16)
    assert fast.lane is not None
    many = [place % MOST for place in range(16)]

    for size in range(1, 17):
        found, wanted = (KINDS[kind](one, many[:size]) for one in (fast, plain))
        assert least_cosine(found, wanted) > 0.9999
        if precision == "float32":
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert fast.lane.without == {}
    fast.lane.close()


@pytest.mark.gpu
@needs_cuda
def test_on_a_gpu_batches_that_overlap_are_answered_each_from_its_own(full: Predictor) -> None:
    _, fast = on_gpu(full, Numerics(), MOST)
    assert fast.lane is not None
    alone = [fast.embed_images([one], "joint")[0] for one in PICTURES]
    before = None

    for round_ in range(200):
        order = [(round_ + place) % MOST for place in range(1 + round_ % MOST)]
        flight = fast.lane.images([PICTURES[place] for place in order], "joint")
        assert flight is not None
        if before is not None:
            found = before[0].result()
            np.testing.assert_allclose(found, [alone[place] for place in before[1]], atol=1e-4)
        before = flight, order
    assert before is not None
    before[0].result()
    fast.lane.close()


@pytest.mark.gpu
@needs_cuda
def test_on_a_gpu_closing_gives_the_memory_back(full: Predictor) -> None:
    plain = Predictor(replace(full.bundle, model=copy.deepcopy(full.bundle.model)), "cuda")

    def held() -> int:
        torch.cuda.synchronize()
        return torch.cuda.memory_reserved()

    rounds = []
    for _ in range(3):
        lane = embedding_lane(plain, MOST)
        assert lane is not None
        assert lane.memory > 0
        lane.close()
        del lane
        rounds.append(held())

    assert rounds[2] <= rounds[1]
