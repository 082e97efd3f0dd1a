"""What a scheduler writes down: calls, who left, and what streams' places were for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.server.worker.engine.gated import Rig, settle
from tests.server.worker.renewals import Source

from tectum_server.worker.engine.replay.cameras import Camera
from tectum_server.worker.engine.replay.recording import Recorder, read_recording
from tectum_server.worker.jobs import Item, Priority

KEY = "m@v1/embed_texts"


async def test_who_left_is_recorded_with_the_time_and_who_was_answered_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "arrivals.jsonl"
    rig = Rig(recorder=Recorder(path))
    await rig.busy()
    gone = rig.submit("gone")
    await settle()
    rig.clock.now += 0.25
    stays = rig.submit("stays")
    await settle()

    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    rig.predictor.open()
    await stays
    await rig.scheduler.close()

    found = read_recording(path).arrivals
    assert [(one.at_ms, one.leaves_after_ms) for one in found] == [(0, None), (0, 250), (250, None)]


async def test_a_streams_places_are_recorded_as_what_its_camera_saw(tmp_path: Path) -> None:
    path, source = tmp_path / "arrivals.jsonl", Source()
    rig = Rig(recorder=Recorder(path))
    await rig.busy()
    about: dict[str, Any] = {"name": "robot-7", "turn": 99.0, "priority": Priority.CONTROL}
    first = rig.submit("old", arrived=100.0, within=1.0, renewal=source, **about)
    await source.asked.wait()
    assert await source.has_settled(Item(text="newer"), until=101.25)
    rig.predictor.open()
    await first
    await rig.submit("newest", arrived=100.5, within=1.5, **about)
    await rig.submit("of another", arrived=100.125, within=1.125, **{**about, "name": "robot-8"})
    await rig.scheduler.close()

    found = read_recording(path)

    assert [one.keys for one in found.arrivals] == [(KEY,)]
    assert found.cameras == (
        Camera(0, 0, 3, 1000, KEY, Priority.CONTROL, captures_ms=(0, 250, 500)),
        Camera(125, 0, 1, 1000, KEY, Priority.CONTROL, captures_ms=(125,)),
    )
    assert "robot" not in path.read_text()
