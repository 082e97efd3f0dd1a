"""What the gateway's tests share: a fake worker, an app in front of it, and ways to call it."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI
from tests.client.fake_worker import FakeWorker
from tests.server.gateway.live import LiveGateway

from tectum_server.gateway import GatewaySettings, create_app


@pytest.fixture
def worker() -> Iterator[FakeWorker]:
    """A worker that answers by arithmetic."""
    with FakeWorker() as worker:
        yield worker


@pytest.fixture
async def app(worker: FakeWorker) -> AsyncIterator[FastAPI]:
    """A gateway in front of that worker."""
    app = create_app(GatewaySettings(worker_address=worker.address))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that gateway, without a network."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


@pytest.fixture
def live(worker: FakeWorker) -> Iterator[LiveGateway]:
    """A gateway in front of that worker, on a real port, with tight bounds."""
    settings = GatewaySettings(
        worker_address=worker.address,
        port=0,
        max_body_bytes=100_000,
        max_buffered_bytes=150_000,
        max_concurrent_requests=4,
        body_seconds=1.0,
    )
    with LiveGateway(settings) as live:
        yield live
