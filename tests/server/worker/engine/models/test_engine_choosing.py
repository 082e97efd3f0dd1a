"""`precision: auto`: the fastest numerics that are right, tried once and kept."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.server.worker.engine.engines import job

from tectum.v1 import model_pb2
from tectum_core.bundle import Repository
from tectum_core.golden import GoldenMismatch, GoldenReport, check_golden
from tectum_core.numerics import REFERENCE, Numerics
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.models import choosing, loading
from tectum_server.worker.engine.models.choosing import (
    CANDIDATES,
    Choice,
    Tried,
    choose,
    kind_of_host,
)
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import ItemOutput
from tectum_server.worker.metrics import EngineMetrics

COMPILED, NARROW, BOTH = CANDIDATES[1:]


def choice(*speedups: float) -> Choice:
    """Of all candidates; 0: it fails."""
    tried = (
        Tried(numerics, speedup, why="" if speedup else "no good")
        for numerics, speedup in zip(CANDIDATES, speedups, strict=True)
    )
    return Choice("host", tuple(tried))


# ---------------------------------------------------------------- the order


def test_the_fastest_goes_first_and_the_reference_last() -> None:
    assert choice(1.0, 1.2, 1.6, 2.3).order() == [BOTH, NARROW, COMPILED, REFERENCE]


def test_a_tenth_is_too_little_to_give_up_what_is_simpler() -> None:
    assert choice(1.0, 1.05, 1.08, 1.09).order() == [REFERENCE]
    assert choice(1.0, 2.0, 1.9, 2.1).order()[0] == COMPILED


def test_what_fails_is_in_no_order() -> None:
    assert choice(1.0, 0.0, 0.0, 3.0).order() == [BOTH, REFERENCE]
    assert choice(1.0, 0.0, 0.0, 0.0).order() == [REFERENCE]


@given(st.tuples(*[st.floats(0.2, 5.0) for _ in CANDIDATES[1:]]))
def test_what_is_chosen_is_within_a_tenth_of_the_fastest(speedups: tuple[float, ...]) -> None:
    made = choice(1.0, *speedups)

    order = made.order()

    by = {one.numerics: one.speedup for one in made.tried}
    assert by[order[0]] * 1.1 >= max(by.values())
    assert order[-1] == REFERENCE
    assert len(set(order)) == len(order)


# ---------------------------------------------------------------- trying


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Numerics]:
    """Nothing is compiled, and speeds are as these say; gives what was timed."""
    timed: list[Numerics] = []
    speeds = {REFERENCE: 1.0, COMPILED: 1.3, NARROW: 0.4, BOTH: 2.0}

    def speedup(predictor: Predictor, _: Predictor) -> float:
        timed.append(predictor.numerics)
        return speeds[predictor.numerics]

    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(choosing, "_speedup", speedup)
    return timed


def test_all_are_tried_once_and_what_came_of_it_is_kept(
    bare: Predictor, tmp_path: Path, quick: list[Numerics]
) -> None:
    first = choose(bare.bundle, "cpu", tmp_path / "kept")
    second = choose(bare.bundle, "cpu", tmp_path / "kept")

    assert quick == [*CANDIDATES]
    assert second == first
    assert first.host == kind_of_host("cpu")
    assert first.order() == [BOTH, COMPILED, REFERENCE]
    assert all(one.min_cosine >= 0.999 for one in first.tried)
    (file,) = (tmp_path / "kept").iterdir()
    kept = json.loads(file.read_text())
    assert [one["numerics"]["precision"] for one in kept["tried"]][2:] == ["bfloat16"] * 2


def test_another_host_and_another_shape_choose_for_themselves(
    bare: Predictor, full: Predictor, tmp_path: Path, quick: list[Numerics],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    choose(bare.bundle, "cpu", tmp_path)
    choose(full.bundle, "cpu", tmp_path)
    monkeypatch.setattr(choosing, "kind_of_host", lambda *_: "another")
    choose(bare.bundle, "cpu", tmp_path)

    assert len(quick) == 3 * len(CANDIDATES)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("content", ["", "{", '{"host": 1}', '{"host": "h", "tried": [{}]}'])
def test_what_was_kept_and_is_damaged_is_tried_again(
    bare: Predictor, tmp_path: Path, quick: list[Numerics], content: str
) -> None:
    choose(bare.bundle, "cpu", tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(content)

    choose(bare.bundle, "cpu", tmp_path)

    assert len(quick) == 2 * len(CANDIDATES)
    assert json.loads(file.read_text())["tried"]


def test_where_nothing_can_be_kept_that_is_said_once(
    bare: Predictor, tmp_path: Path, quick: list[Numerics], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)

    found = [choose(bare.bundle, "cpu") for _ in range(2)]

    assert found[0].order()[0] == BOTH
    assert len(quick) == 2 * len(CANDIDATES)
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ  # torch has a folder of its own
    (said,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "XDG_CACHE_HOME" in said.message
    assert said.__dict__["folder"] == str(tmp_path / "file" / "tectum")


def test_what_fails_is_left_out_and_tried_again_at_the_next_start_alone(
    bare: Predictor, tmp_path: Path, quick: list[Numerics], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiles = torch.compile

    def fails(_: object) -> object:
        raise MemoryError("no memory left\nand a page more")

    monkeypatch.setattr(torch, "compile", fails)
    found = choose(bare.bundle, "cpu", tmp_path / "kept")
    first = list(quick)
    monkeypatch.setattr(torch, "compile", compiles)
    later = choose(bare.bundle, "cpu", tmp_path / "kept")

    none = "MemoryError: no memory left"
    assert [one.why for one in found.tried] == ["", none, "", none]
    assert found.order() == [REFERENCE]
    assert first == [REFERENCE, NARROW]
    assert quick == [*first, COMPILED, BOTH]
    assert later.order() == [BOTH, COMPILED, REFERENCE]
    assert choose(bare.bundle, "cpu", tmp_path / "kept") == later


def test_what_needs_a_compiler_is_not_tried_before_there_is_one(
    bare: Predictor, tmp_path: Path, quick: list[Numerics], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiles, tries = torch.compile, list[object]()

    def no_compiler(function: object) -> object:
        tries.append(function)
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setenv("CXX", str(tmp_path / "g++"))
    found = choose(bare.bundle, "cpu", tmp_path / "kept")
    count = len(tries)
    again = choose(bare.bundle, "cpu", tmp_path / "kept")
    (tmp_path / "g++").touch(0o755)
    monkeypatch.setattr(torch, "compile", compiles)
    later = choose(bare.bundle, "cpu", tmp_path / "kept")

    assert again == found
    assert [one.lacks for one in found.tried] == ["", "a C++ compiler"] * 2
    assert count == len(tries) > 0
    assert quick == [REFERENCE, NARROW, COMPILED, BOTH]
    assert later.order() == [BOTH, COMPILED, REFERENCE]


def test_weights_that_one_does_not_suit_do_not_decide_for_others(
    bare: Predictor, tmp_path: Path, quick: list[Numerics], monkeypatch: pytest.MonkeyPatch
) -> None:
    check = check_golden

    def checked(predictor: Predictor) -> GoldenReport:
        if predictor.numerics == BOTH:
            raise GoldenMismatch("cosine 0.9 (at least 0.999)")
        return check(predictor)

    monkeypatch.setattr(choosing, "check_golden", checked)

    found = choose(bare.bundle, "cpu", tmp_path)

    assert [one.min_cosine for one in found.tried][-1] == 0
    assert found.order()[0] == BOTH


def test_a_bundle_that_not_even_the_reference_reproduces_decides_nothing(
    bare: Predictor, tmp_path: Path, quick: list[Numerics]
) -> None:
    golden = {**bare.bundle.golden, "output/pooled": bare.bundle.golden["output/pooled"] + 0.1}

    with pytest.raises(GoldenMismatch, match="here in float32"):
        choose(replace(bare.bundle, golden=golden), "cpu", tmp_path)

    assert list(tmp_path.iterdir()) == []
    assert quick == []


def test_a_speedup_is_timed_against_the_reference(bare: Predictor) -> None:
    same = choosing._speedup(Predictor(bare.bundle, numerics=NARROW), bare)

    assert 0.01 < same < 100
    assert choosing._speedup(bare, bare) == 1.0


# ---------------------------------------------------------------- serving


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(choosing, "keep_compiled", lambda: None)
    monkeypatch.setattr(loading, "keep_compiled", lambda: None)
    return tmp_path / "cache"


async def told(root: Path, **changes: Any) -> tuple[model_pb2.Model, float]:
    """What an engine says of `arm`, and a number of what it answers."""
    settings = EngineSettings(str(root), ("arm",), max_batch=1, **changes)
    engine = LocalEngine(settings, EngineMetrics(CollectorRegistry()))
    try:
        await engine.start()
        (output,) = (await engine.submit(job())).outputs
        assert isinstance(output, ItemOutput)
        value = float(output.arrays[0][0])
        return model_pb2.Model.FromString(engine.models["arm"].description), value
    finally:
        await engine.close()


@pytest.mark.parametrize(
    ("changes", "precision", "kind"),
    [
        ({}, "float32", "eager"),
        ({"precision": "bfloat16"}, "bfloat16", "eager"),
        ({"precision": "int8"}, "int8", "eager"),
        ({"compiled": True}, "float32", "compiled"),
        ({"precision": "auto"}, "bfloat16", "compiled"),
    ],
)
async def test_a_model_is_served_in_what_was_asked_for_and_says_so(
    root: Path, cache: Path, quick: list[Numerics], changes: dict[str, Any], precision: str,
    kind: str,
) -> None:  # fmt: skip
    model, _ = await told(root, **changes)
    reference, _ = await told(root)

    assert model.numerics.precision == precision
    assert model.numerics.engine.endswith(f"/cpu/{kind}")
    assert model.golden.passed
    assert list(model.spaces) == list(reference.spaces)


async def test_weights_that_the_best_does_not_suit_are_served_in_the_next(
    root: Path, cache: Path, quick: list[Numerics], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    await told(root, precision="auto")
    check = check_golden

    def checked(predictor: Predictor) -> GoldenReport:
        if predictor.numerics.precision == "bfloat16":
            raise GoldenMismatch("cosine 0.9 (at least 0.999)")
        return check(predictor)

    monkeypatch.setattr(loading, "check_golden", checked)
    model, _ = await told(root, precision="auto")

    assert (model.numerics.precision, len(quick)) == ("float32", len(CANDIDATES))
    assert model.numerics.engine.endswith("/compiled")
    (said,) = [r for r in caplog.records if r.message == "numerics do not suit a model"]
    assert said.__dict__["reason"] == "cosine 0.9 (at least 0.999)"


async def test_numerics_that_were_asked_for_and_do_not_suit_are_rejected(
    root: Path, cache: Path, tmp_path: Path, bare: Predictor
) -> None:
    stated = {"float32": bare.config.tolerances["float32"]}
    config = bare.config.model_copy(update={"tolerances": stated})
    folder, _ = Repository(root).locate("arm")
    (folder / "config.json").write_text(config.model_dump_json())
    Repository(tmp_path / "strict").publish(folder, "arm")

    with pytest.raises(Failure, match="states no tolerance for bfloat16"):
        await told(tmp_path / "strict", precision="bfloat16")


async def test_int8_without_its_library_says_what_to_install(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)

    with pytest.raises(Failure, match=r"pip install 'tectum\[int8\]'"):
        await told(root, precision="int8")


async def test_a_narrow_model_takes_less_memory_than_the_reference(
    root: Path, cache: Path, memory: Callable[..., Any]
) -> None:
    assert await memory("bfloat16") < await memory("float32")


@pytest.fixture
def memory(root: Path) -> Callable[..., Any]:
    async def found(precision: str) -> int:
        settings = EngineSettings(str(root), ("arm",), max_batch=1, precision=precision)  # type: ignore[arg-type]
        engine = LocalEngine(settings, EngineMetrics(CollectorRegistry()))
        await engine.start()
        entry = engine.models["arm"]
        await engine.close()
        return entry.memory_bytes

    return found


def test_trying_leaves_the_bundle_as_it_was(
    bare: Predictor, quick: list[Numerics], tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in bare.model.state_dict().items()}

    choose(bare.bundle, "cpu", tmp_path)

    assert all(torch.equal(bare.model.state_dict()[name], was) for name, was in before.items())
