"""What an engine tries before it serves, so that no caller is the first to pay for it."""

import types
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.bundles import picture

from tectum_core.predictor import Predictor
from tectum_server.worker.engine.computing.operations import batch_key
from tectum_server.worker.engine.computing.pictures import preparation
from tectum_server.worker.engine.models import warmup
from tectum_server.worker.engine.models.warmup import (
    batch_sizes,
    prepare_cameras,
    warm_up,
    warm_up_there,
)
from tectum_server.worker.engine.policy.cost import CostModel
from tectum_server.worker.jobs import FillClip, FillImage, Item, MaskSpec, Operation, Rollout


@pytest.fixture(scope="module")
def warmed(full: Predictor) -> CostModel:
    """The costs of `full`, as warming up tells them."""
    costs = CostModel()
    for key, size, took in warm_up(full, 2):
        costs.observe(key, size, took)
    return costs


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])],
)
def test_buckets_are_powers_of_two_up_to_the_largest(largest: int, sizes: list[int]) -> None:
    assert batch_sizes(largest) == sizes


def test_warming_up_teaches_the_cost_of_all_a_model_does(full: Predictor) -> None:
    seen = warm_up(full, 2)

    keys = [key for key, _, _ in seen if isinstance(key, tuple)]
    operations = {key[1] for key in keys}
    assert operations == {
        "embed_images",
        "embed_texts",
        "embed_clips",
        "fill_images",
        "fill_clips",
        "fill_texts",
        "fill_actions",
        "latent_actions",
        "rollout",
    }
    assert {key[0] for key in keys} == {f"full@{full.bundle.version}"}
    assert {size for _, size, _ in seen} == {1, 2}
    assert all(took > 0 for _, _, took in seen)


def test_all_that_was_warmed_up_runs_once_more_where_it_is_sent(
    full: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[object, int]] = []

    def run(predictor: Predictor, batch: Sequence[tuple[Operation, Item]]) -> None:
        operation, item = batch[0]
        ran.append((batch_key("full", operation, item, predictor), len(batch)))

    monkeypatch.setattr(warmup, "run_batch", run)
    warm_up(full, 2)
    first, before = set(ran), len(ran)
    sent: list[Callable[[], object]] = []

    warm_up_there(full, 2, sent.append)

    assert len(ran) == before
    for work in sent:
        work()
    assert set(ran[before:]) == first


def test_warming_up_teaches_what_masks_by_what_matters_cost(
    warmed: CostModel, full: Predictor
) -> None:
    image, clip = Item((picture(),)), Item((np.stack([picture()] * 4),))
    for operation, item in (
        (FillImage(MaskSpec("importance")), image),
        (FillClip(MaskSpec("importance")), clip),
        (FillClip(MaskSpec("importance", source="change")), clip),
    ):
        key = batch_key(f"full@{full.bundle.version}", operation, item, full)
        assert key in warmed.known


@pytest.mark.parametrize("frames", range(1, 7))
@pytest.mark.parametrize("seen", [1, 2, 3])
def test_warming_up_tells_the_cost_of_a_rollout_of_any_length(
    warmed: CostModel, full: Predictor, frames: int, seen: int
) -> None:
    def cost(frames: int, seen: int, decodes: bool) -> float:
        operation = Rollout(frames, seen, True, True, True, decodes)
        key = batch_key(f"full@{full.bundle.version}", operation, Item(), full)
        found = warmed.cost(key)
        assert found is not None
        return found.of(2)

    for decodes in (False, True):
        told = cost(frames, seen, decodes)
        ends = sorted(cost(end, 3, decodes) for end in (1, 6))
        assert ends[0] <= told <= ends[1]


def test_warming_up_teaches_what_pictures_of_any_size_need(bare: Predictor) -> None:
    costs = CostModel()
    for kind, size, took in prepare_cameras(bare):
        costs.observe(kind, size, took)

    sent = Item((picture(0, 720, 1280),))
    needed = preparation(f"bare@{bare.bundle.version}", sent, bare)
    assert needed is not None
    told = costs.cost(needed)
    assert told is not None
    assert told.of(1) > 0


def test_one_slow_run_of_a_batch_teaches_nothing(
    bare: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, runs = [0.0], Counter[int]()

    def slow_at_first(_: Predictor, work: list[object]) -> None:
        now[0] += 0.3 if runs[len(work)] % 2 == 0 else 0.01
        runs[len(work)] += 1

    monkeypatch.setattr(warmup, "run_batch", slow_at_first)
    monkeypatch.setattr(warmup, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

    seen = warm_up(bare, 2)

    assert {round(took) for _, _, took in seen} == {10}


def test_warming_up_asks_nothing_of_a_model_that_it_lacks(bare: Predictor) -> None:
    seen = warm_up(bare, 2)

    assert {key[1:] for key, _, _ in seen if isinstance(key, tuple)} == {
        ("embed_images", "pooled"),
        ("embed_images", "tokens"),
    }


def test_warming_up_shows_no_condition_that_the_training_never_showed(full: Predictor) -> None:
    inputs = "pixel_decoder.from_text", "fusion.from_image", "fusion.actions.embed"
    summary = full.config.training.model_copy(update={"untrained": inputs})
    config = full.config.model_copy(update={"training": summary})

    seen = warm_up(Predictor(replace(full.bundle, config=config)), 1)

    keys = {key[1:3] for key, _, _ in seen if isinstance(key, tuple)}
    assert {key for key in keys if key[0] == "fill_texts"} == {("fill_texts", False)}
    assert "fill_images" in {key[0] for key in keys}
    assert "fill_actions" not in {key[0] for key in keys}
