"""What is an address of a worker, and what is said where none listens."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.checkout import ROOT

import tectum
from tectum.v1 import errors_pb2

PICTURE = np.zeros((2, 2, 3), np.uint8)
TLS = ROOT / "tests" / "fixtures" / "tls"
R = errors_pb2.ErrorReason
BARE_CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("scheme", ["http", "HTTPS", "grpc", "grpcs", "tcp", "ws"])
def test_a_url_is_no_address(scheme: str) -> None:
    with pytest.raises(tectum.InvalidInput, match=f"allowed: HOST:PORT, without {scheme}://"):
        tectum.Client(f"{scheme}://robot:50051")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "robot", "robot:", ":1", "", "[::1]", "fe80::1", "dns", "unix"]
)
def test_an_address_without_a_port_is_refused_by_name(address: str) -> None:
    with pytest.raises(tectum.InvalidInput) as caught:
        tectum.Client(address)

    allowed = "allowed: HOST:PORT, such as 127.0.0.1:50051"
    assert str(caught.value) == f"address: found {address!r}; {allowed}"


@pytest.mark.parametrize("address", ["robot:1", "127.0.0.1:50051", "[::1]:50051", "[fe80::1%a]:1"])
def test_a_host_and_its_port_are_an_address(address: str) -> None:
    with tectum.Client(address) as client:
        assert client.address == address


@pytest.mark.parametrize(
    "address",
    [
        "dns:robot",
        "dns:robot:1",
        "dns:///robot",
        "DNS://8.8.8.8/robot:1",
        "unix:a",
        "unix:///run/a",
    ],
)
def test_what_grpc_itself_calls_a_server_is_an_address(address: str) -> None:
    with tectum.Client(address) as client:
        assert client.address == address


def test_where_nobody_listens_it_is_said_what_starts_a_worker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

    with tectum.Client(address) as client, pytest.raises(tectum.Unavailable) as raised:
        client.get_model(retries=0)

    said = f"no worker answers at {address} (start one: tectum up): connection refused"
    assert str(raised.value) == said


def test_a_port_of_http_is_told_to_be_one() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with (
            tectum.Client(f"127.0.0.1:{server.server_port}") as client,
            pytest.raises(tectum.Unavailable, match="this is no gRPC port"),
        ):
            client.get_model(retries=0)
    finally:
        server.shutdown()
        server.server_close()


def test_whether_tls_is_wanted_is_told() -> None:
    certificate = TLS / "certificate.pem"
    credentials = grpc.ssl_server_credentials(
        [((TLS / "key.pem").read_bytes(), certificate.read_bytes())]
    )
    server = grpc.server(ThreadPoolExecutor(1))
    by_tls = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
    in_the_clear = f"localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    try:
        assert "perhaps it is reached by TLS alone" in said(by_tls, tls=False)
        assert "not signed by roots known here" in said(by_tls, tls=True)
        assert "it speaks no TLS" in said(in_the_clear, tls=certificate)
    finally:
        server.stop(None).wait()


def said(address: str, tls: bool | Path) -> str:
    """Why nobody is reached there."""
    with tectum.Client(address, tls=tls) as client, pytest.raises(tectum.Unavailable) as raised:
        client.get_model(retries=0)
    return str(raised.value)
