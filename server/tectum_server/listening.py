"""Why nothing can listen where an operator wants it: what the system says, and what helps."""

from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path

__all__ = ["CannotListen", "cannot_listen", "check_pair", "what_is_wrong"]


class CannotListen(OSError):
    """Nothing can listen there; says why, and how to choose otherwise."""


def cannot_listen(what: str, error: OSError, host_flag: str, port_flag: str) -> CannotListen:
    """The error for an operator.

    Args:
        what: whose address it is, as in "port 9464 for metrics".
        error: the system's.
        host_flag, port_flag: what chooses another.
    """
    if error.errno == errno.EADDRINUSE:
        return CannotListen(f"{what} is in use; choose another with {port_flag}")
    # A system keeps low ports for some users; an address of its own it denies nobody.
    flag = port_flag if error.errno == errno.EACCES else host_flag
    return CannotListen(f"cannot listen on {what}: {error.strerror or error}; see {flag}")


def what_is_wrong(host: str, port: int) -> OSError | None:
    """What the system says to listening there, for servers that do not tell; None: nothing.

    One of a name's addresses is enough: a container may know `localhost` as one that it lacks.
    None of them may be taken, though: half of a name's callers would meet another server.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return error
    wrong: list[OSError] = []
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return error
            wrong.append(error)
    return wrong[-1] if len(wrong) == len(found) else None


def check_pair(certificate: Path, key: Path) -> None:
    """Let pass a certificate chain and the private key that belongs to it, both PEM.

    Raises:
        CannotListen: they are not that.
        OSError: a file cannot be read.
    """
    key.read_bytes()  # ssl's own error would not name a missing file
    chain = certificate.read_text(errors="replace")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=chain)
    except (ssl.SSLError, ValueError) as error:
        raise CannotListen(f"{certificate} holds no PEM certificate") from error
    try:
        # A password: an encrypted key is to be refused, not asked a terminal about.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise CannotListen(f"{key} holds no plain PEM private key of {certificate}") from error
