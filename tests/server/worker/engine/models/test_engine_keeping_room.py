"""Nobody makes room for what does not come."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.server.worker.engine.engines import Started, corrupt, job, newer, states, until

from tectum_server.worker.failure import Failure


def damaged(root: Path, tmp_path: Path) -> str:
    """A newer version of `arm` whose content is not what its version says."""
    version = newer(root, tmp_path)
    (root / "arm" / version / "README.md").write_text("?")
    return version


def evictions(registry: CollectorRegistry, name: str) -> float:
    labels = {"model": name, "outcome": "evicted"}
    return registry.get_sample_value("tectum_model_loads_total", labels) or 0.0


@pytest.mark.parametrize("what", ["content", "config", "weights"])
async def test_nobody_makes_room_for_a_version_whose_files_are_unsound(
    started: Started,
    three: int,
    root: Path,
    tmp_path: Path,
    registry: CollectorRegistry,
    what: str,
) -> None:
    engine = await started("arm", "leg", watch=3600.0, model_memory_bytes=2 * three)

    version = damaged(root, tmp_path) if what == "content" else corrupt(root, tmp_path, what)
    await engine._keeper._follower.look()

    rejection = engine.models["arm"].rejection
    assert rejection is not None
    assert rejection.version == version
    assert states(engine) == {"arm": "ready", "leg": "ready"}
    assert evictions(registry, "leg") == 0.0
    assert (await engine.submit(job("leg"))).outputs


async def test_who_made_room_for_a_version_that_only_its_golden_outputs_give_away_comes_back(
    started: Started, three: int, root: Path, tmp_path: Path, registry: CollectorRegistry
) -> None:
    engine = await started("arm", "leg", watch=3600.0, model_memory_bytes=2 * three)

    corrupt(root, tmp_path, "golden")
    await engine._keeper._follower.look()
    await until(engine, lambda: states(engine)["leg"] == "ready")

    assert engine.models["arm"].rejection is not None
    assert evictions(registry, "leg") == 1.0
    assert (await engine.submit(job("leg"))).outputs


async def test_who_made_room_in_vain_stays_away_where_somebody_else_has_the_room_by_now(
    started: Started, three: int, root: Path, tmp_path: Path
) -> None:
    engine = await started("arm", "leg", model_memory_bytes=2 * three)
    corrupt(root, tmp_path, "golden")

    loading = engine._keeper.load("arm", "", make_default=False)
    with pytest.raises(Failure, match="golden"):
        await loading
    async with engine._keeper._loading:  # before `leg` has its turn
        await engine._keeper._bring("hand", "")
    await until(engine, lambda: states(engine)["leg"] == "evicted")

    assert states(engine) == {"arm": "ready", "leg": "evicted", "hand": "ready"}
