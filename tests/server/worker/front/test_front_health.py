"""Health's watchers, each for itself."""

import asyncio
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from tectum_server.worker.front.health import Health

Status = health_pb2.HealthCheckResponse


class Watching:
    """A caller that notes what it is told."""

    def __init__(self, health: Health, reads: bool = True) -> None:
        self.told: list[int] = []
        self._reads = reads
        request = health_pb2.HealthCheckRequest(service="arm")
        self.task = asyncio.get_running_loop().create_task(health.Watch(request, self))

    async def write(self, response: Any) -> None:
        if not self._reads:
            await asyncio.Event().wait()
        self.told.append(response.status)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("reads", [True, False])
async def test_a_watcher_hears_of_changes_whoever_leaves_or_does_not_read(reads: bool) -> None:
    health = Health()
    staying, other = Watching(health), Watching(health, reads)
    await settled()
    if reads:
        other.task.cancel()
        await settled()

    await asyncio.wait_for(health.set("arm", Status.SERVING), 10)
    await settled()
    await health.set("arm", Status.NOT_SERVING)
    await settled()

    staying.task.cancel()
    other.task.cancel()
    assert staying.told == [Status.SERVICE_UNKNOWN, Status.SERVING, Status.NOT_SERVING]
