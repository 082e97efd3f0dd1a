"""What the SDK's tests share: a fake worker and clients of it."""

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.client.fake_worker import FakeWorker

import tectum


@pytest.fixture
def worker() -> Iterator[FakeWorker]:
    """A worker that answers by arithmetic."""
    with FakeWorker() as worker:
        yield worker


@pytest.fixture
def client(worker: FakeWorker) -> Iterator[tectum.Client]:
    """A client of that worker."""
    with tectum.Client(worker.address) as client:
        yield client


@pytest.fixture
async def aclient(worker: FakeWorker) -> AsyncIterator[tectum.AsyncClient]:
    """An asyncio client of that worker."""
    async with tectum.AsyncClient(worker.address) as client:
        yield client
