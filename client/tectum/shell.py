"""What both clients are made of: where the worker is, and what calls default to.

No channel lives here; `client.py` opens grpc's and `aio.py` grpc.aio's from the same options.
"""

import inspect
import os
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, get_args

import grpc

from tectum import calls
from tectum.calls import Answer, Call, Defaults, Plan
from tectum.errors import (
    ClientClosed,
    DeadlineExceeded,
    NotFound,
    TectumError,
    Unavailable,
    invalid,
)
from tectum.opening import Opening, StreamOptions, opening
from tectum.vocabulary import Priority

DEFAULT_ADDRESS = "127.0.0.1:50051"
"""Where a worker listens unless told otherwise."""
TARGETS = ("dns", "unix", "unix-abstract", "ipv4", "ipv6", "vsock", "xds")
"""What gRPC's own names of servers begin with: they may look like URLs, `dns:///robot:50051`.

Source: https://github.com/grpc/grpc/blob/master/doc/naming.md
"""
_HOST_AND_PORT = re.compile(r"(\[.+\]|[^:\[\]]+):[^:]+")
"""Brackets hold the colons of an IPv6 address. Without a port gRPC would take that of HTTPS."""
MEBIBYTE = 1024 * 1024
ALIVE_EVERY, ALIVE_WITHIN = 10.0, 5.0
"""Seconds between looks at whether a connection still lives, also while nothing is asked, and for
the answer: one that has gone silent is given up within their sum, and the next call takes a new
one. The worker lets nobody look more often than every 5 s."""
POLL_INTERVAL = 0.1
"""Seconds between looks at a worker that is not ready yet."""

__version__ = metadata.version("tectum")

Tls = bool | bytes | os.PathLike[str]
"""How to reach the worker: False in the clear, True by TLS with grpc's own root certificates, or
by TLS with root certificates in PEM (their bytes, or the path of a file)."""

Method = TypeVar("Method", bound=Callable[..., Any])


class Shell:
    """What a client is before it has a channel."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        model: str = "",
        token: str | None = None,
        priority: Priority = Priority.INTERACTIVE,
        timeout: float | None = None,
        retries: int = 2,
        tls: Tls = False,
        max_message_bytes: int = 64 * MEBIBYTE,
    ) -> None:
        """Prepare to talk to a worker; nothing is sent yet.

        Args:
            address: `host:port`, or any target gRPC understands (`dns:///…`, `unix:…`); no URL.
            model: Model of calls that name none. Empty: the worker's default.
            token: Bearer credentials of every call.
            priority: Priority of calls that set none; streams are CONTROL unless they say.
            timeout: Seconds of calls that set none. None: the worker's default for the priority,
                and in any case no longer than `calls.LONGEST_WAIT`.
            retries: How often a call is tried again when the worker says it can be.
            tls: See `Tls`.
            max_message_bytes: Largest message, either way.

        Raises:
            InvalidInput: the address is a URL or has no port, or the roots cannot be read.
        """
        self.address = _known_address(address)
        self._defaults = Defaults(
            model=model,
            priority=calls.known_priority(priority),
            timeout=calls.timeout(timeout),
            retries=calls.bounded_retries(retries),
            token=token,
            max_message_bytes=max_message_bytes,
        )
        self._tls = _credentials(tls)
        self._channel_options = (
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
            # A robot must find a restarted worker in seconds; gRPC's own backoff goes to minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.keepalive_time_ms", round(ALIVE_EVERY * 1000)),
            ("grpc.keepalive_timeout_ms", round(ALIVE_WITHIN * 1000)),
            ("grpc.http2.ping_timeout_ms", round(ALIVE_WITHIN * 1000)),  # else that is a minute
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),  # who only listens looks, too
            # A connection of each client's own: a worker's fronts share its callers by these, and a
            # new client does not inherit a connection that has gone silent.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.primary_user_agent", f"tectum/{__version__}"),
        )
        self._closed = False
        self._begin()

    def _plan(self, call: Call[Answer]) -> Plan[Answer]:
        if self._closed:
            raise ClientClosed("the client is closed")
        return calls.plan(call, self._defaults)

    def _open_stream(self, options: StreamOptions) -> Opening:
        if self._closed:
            raise ClientClosed("the client is closed")
        return opening(options, self._defaults)

    def _begin(self) -> None:
        """What a client sets up for itself."""


def still_starting(error: TectumError) -> bool:
    """Whether an error of a health check says no more than that the worker is not there yet."""
    return isinstance(error, Unavailable | DeadlineExceeded | NotFound)


def never_ready(address: str, patience: float, last: object) -> Unavailable:
    """The error for a worker that did not become ready within so many seconds."""
    return Unavailable(f"the worker at {address} is not ready after {patience:g} s: {last}")


def _known_address(address: str) -> str:
    """An address that can lead to a worker: HOST:PORT, or one of gRPC's own targets."""
    scheme, is_url, _ = address.partition("://")
    if address.partition(":")[0].lower() in TARGETS and ":" in address:
        return address
    if is_url:
        raise invalid("address", f"found {address!r}; allowed: HOST:PORT, without {scheme}://")
    if not _HOST_AND_PORT.fullmatch(address):
        allowed = f"allowed: HOST:PORT, such as {DEFAULT_ADDRESS}"
        raise invalid("address", f"found {address!r}; {allowed}")
    return address


def _credentials(tls: Tls) -> grpc.ChannelCredentials | None:
    """TLS credentials; None: in the clear."""
    if isinstance(tls, bool):
        return grpc.ssl_channel_credentials() if tls else None
    if isinstance(tls, bytes):
        return grpc.ssl_channel_credentials(tls)
    try:
        return grpc.ssl_channel_credentials(Path(tls).read_bytes())
    except OSError as error:
        raise invalid("tls", f"cannot read {os.fspath(tls)}: {error.strerror}") from error


def dress(method: Method, ask: Callable[..., Call[Any]]) -> Method:
    """Give a client's method the name, signature and docstring of what it asks.

    The result is the call's answer, so that is what the signature says it returns.
    """
    signature = inspect.signature(ask)
    (answer,) = get_args(signature.return_annotation)
    owner = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__name__ = ask.__name__
    method.__doc__ = ask.__doc__
    method.__module__ = ask.__module__
    method.__qualname__ = ask.__qualname__
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[owner, *signature.parameters.values()], return_annotation=answer
    )
    return method
