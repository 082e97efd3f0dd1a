"""Why nothing can listen somewhere, and that what can is not refused."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from tectum_server.listening import cannot_listen, what_is_wrong

OURS, FOREIGN = "127.0.0.1", "203.0.113.9"
NAME = "a name of several addresses"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of ours that somebody listens on."""
    with socket.create_server((OURS, 0)) as listener:
        yield listener.getsockname()[1]


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let the name have these addresses."""

    def found(host: str, port: int, **_: object) -> list[object]:
        assert host == NAME
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.parametrize("addresses", [[OURS], [FOREIGN, OURS], [OURS, FOREIGN]])
def test_one_address_that_is_ours_is_enough(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    resolve(monkeypatch, *addresses)

    assert what_is_wrong(NAME, 0) is None


def test_a_name_none_of_whose_addresses_is_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, FOREIGN, FOREIGN)

    found = what_is_wrong(NAME, 0)

    assert found is not None
    assert found.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("other", [FOREIGN, "127.0.0.2"])
def test_one_address_that_is_taken_is_too_many(
    monkeypatch: pytest.MonkeyPatch, taken: int, other: str
) -> None:
    resolve(monkeypatch, other, OURS)

    found = what_is_wrong(NAME, taken)

    assert found is not None
    assert found.errno == errno.EADDRINUSE


def test_a_name_that_is_none_is_refused() -> None:
    assert isinstance(what_is_wrong("no such host", 0), OSError)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EADDRINUSE, "port 80 is in use; choose another with --port"),
        (errno.EACCES, "cannot listen on port 80: no; see --port"),
        (errno.EADDRNOTAVAIL, "cannot listen on port 80: no; see --host"),
    ],
)
def test_the_flag_that_helps_is_named(number: int, said: str) -> None:
    error = OSError(number, "no")

    assert str(cannot_listen("port 80", error, "--host", "--port")) == said
