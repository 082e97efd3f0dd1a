"""Health: what is told of services, and its watchers, each for itself."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tectum_server.worker.front.door.health import Health

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


class Asking:
    """A caller that is told no."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None

    async def abort(self, code: grpc.StatusCode) -> None:
        self.code = code
        raise grpc.RpcError


async def check(health: Health, service: str) -> int | grpc.StatusCode | None:
    """What is said of a service."""
    asking = Asking()
    try:
        said = await health.Check(health_pb2.HealthCheckRequest(service=service), asking)
    except grpc.RpcError:
        return asking.code
    return said.status


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


async def test_a_service_has_the_status_that_was_told_last() -> None:
    health = Health()
    await health.set("arm", Status.SERVING)
    first = await check(health, "arm")

    await health.set("arm", Status.NOT_SERVING)

    assert (first, await check(health, "arm")) == (Status.SERVING, Status.NOT_SERVING)


async def test_a_service_that_is_gone_is_unknown_until_it_is_told_again() -> None:
    health = Health()
    watching = Watching(health)
    await health.set("arm", Status.SERVING)
    await settled()

    await health.forget("arm")
    await settled()
    gone = await check(health, "arm")
    await health.set("arm", Status.SERVING)
    await settled()

    watching.task.cancel()
    assert gone is grpc.StatusCode.NOT_FOUND
    known, unknown = Status.SERVING, Status.SERVICE_UNKNOWN
    assert watching.told == [known, unknown, known]


async def test_at_first_the_worker_does_not_serve_and_nothing_else_is_known() -> None:
    health = Health()

    assert await check(health, "") == Status.NOT_SERVING
    assert await check(health, "arm") is grpc.StatusCode.NOT_FOUND


async def test_a_worker_that_ends_serves_nothing_whatever_is_told_meanwhile() -> None:
    health = Health()
    watching = [Watching(health) for _ in range(3)]
    await settled()
    await health.set("arm", Status.SERVING)
    await settled()

    await asyncio.gather(
        *(health.set(name, Status.SERVING) for name in ("a", "b")),
        health.enter_graceful_shutdown(),
        *(health.set(name, Status.SERVING) for name in ("arm", "c")),
        health.forget("arm"),
    )
    await settled()

    for one in watching:
        one.task.cancel()
        assert one.told == [Status.SERVICE_UNKNOWN, Status.SERVING, Status.NOT_SERVING]
    told = [await check(health, name) for name in ("", "a", "b", "arm")]
    assert told == [Status.NOT_SERVING] * 4
    assert await check(health, "c") is grpc.StatusCode.NOT_FOUND


def test_nothing_private_of_the_library_is_built_on() -> None:
    assert Health.__bases__ == (health_pb2_grpc.HealthServicer,)
