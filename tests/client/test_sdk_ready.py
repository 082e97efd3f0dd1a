"""Finding a worker: waiting for it, finding it again after a restart, and TLS."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from tests.checkout import ROOT
from tests.client.fake_worker import FakeWorker

import tectum


async def test_waiting_ends_when_the_worker_serves(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    worker.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    waiting = asyncio.gather(
        asyncio.to_thread(client.wait_until_ready, 10), aclient.wait_until_ready(10)
    )
    await asyncio.sleep(0.3)
    assert not waiting.done()
    worker.health.set("", health_pb2.HealthCheckResponse.SERVING)

    await asyncio.wait_for(waiting, 5)


async def test_waiting_for_what_does_not_come_ends_too(
    client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    with pytest.raises(tectum.Unavailable, match=r"not ready after 0\.3 s"):
        await asyncio.to_thread(client.wait_until_ready, 0.3, model="nobody")
    with pytest.raises(tectum.Unavailable, match=r"not ready after 0\.3 s"):
        await aclient.wait_until_ready(0.3, model="nobody")


async def test_a_restarted_worker_is_found_again_within_seconds() -> None:
    with FakeWorker() as first:
        port = first.port
        client, aclient = tectum.Client(first.address), tectum.AsyncClient(first.address)
        await asyncio.to_thread(client.embed_texts, ["a"])
        await aclient.embed_texts(["a"])
    with pytest.raises(tectum.Unavailable):
        await asyncio.to_thread(client.embed_texts, ["a"])
    with pytest.raises(tectum.Unavailable):
        await aclient.embed_texts(["a"])

    with FakeWorker(port):
        began = time.monotonic()
        await asyncio.to_thread(client.wait_until_ready, 10)
        await aclient.wait_until_ready(10)
        assert time.monotonic() - began < 6
        assert len(await aclient.embed_texts(["a"])) == 1
        client.close()
        await aclient.close()


async def test_a_worker_behind_tls_is_reached_with_its_roots() -> None:
    folder = ROOT / "tests" / "fixtures" / "tls"
    roots, key = folder / "certificate.pem", folder / "key.pem"
    pair = [(key.read_bytes(), roots.read_bytes())]
    with FakeWorker(credentials=grpc.ssl_server_credentials(pair)) as worker:
        for tls in (roots, roots.read_bytes()):
            with tectum.Client(worker.address, tls=tls) as client:
                assert len(await asyncio.to_thread(client.embed_texts, ["a"])) == 1
            async with tectum.AsyncClient(worker.address, tls=tls) as aclient:
                assert len(await aclient.embed_texts(["a"])) == 1
        with tectum.Client(worker.address, tls=True) as client, pytest.raises(tectum.Unavailable):
            await asyncio.to_thread(client.embed_texts, ["a"])


def test_roots_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(tectum.InvalidInput, match=r"tls: cannot read .*nothing\.pem"):
        tectum.Client(tls=tmp_path / "nothing.pem")


async def test_each_client_has_a_connection_of_its_own_and_one_alone(worker: FakeWorker) -> None:
    with tectum.Client(worker.address) as one, tectum.Client(worker.address) as two:
        for client in (one, two, one, two):
            client.get_model()
    async with (
        tectum.AsyncClient(worker.address) as three,
        tectum.AsyncClient(worker.address) as four,
    ):
        for other in (three, four, three, four):
            await other.get_model()

    peers = [seen.peer for seen in worker.seen]
    assert peers[0:2] + peers[4:6] == peers[2:4] + peers[6:8]
    assert len(set(peers)) == 4
