"""The socket that a server listens on.

What comes in: host and port. What goes out: a bound socket with the options that streams need. It does not know who
accepts from it.
"""

from __future__ import annotations

import errno
import socket
import sys
from typing import Final

from agentstream.errors import InvalidInput

__all__ = ("address_of", "listen")

# A stream's client that is slow must be seen as slow by us, not hidden behind megabytes in the kernel: without a size
# the kernel grows the buffer to 4 MB a connection. It doubles what is asked for.
_SEND_BUFFER: Final = 128 * 1024

# A client whose network is gone without a word is otherwise noticed after 15 minutes. Accepted sockets inherit it.
_UNACKNOWLEDGED_MS: Final = 10_000


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the first address of `host`; nobody listens on it yet. The caller closes it.

    Raises:
        InvalidInput: the host has no address, or the port is taken or not allowed; it says what to do.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise InvalidInput(
            f"host {host[:64]!r} has no address on this machine: use 127.0.0.1 or a name of it"
        ) from None
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        _set_options(sock)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise InvalidInput(f"cannot listen on {host}, port {port}: {_advice(error)}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def address_of(sock: socket.socket) -> str:
    """The address for people: `http://127.0.0.1:8000/`."""
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  # every address: the one of this machine is the one that works here
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _set_options(sock: socket.socket) -> None:
    if sys.platform != "win32":  # there it would let two servers share a port
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another process listens there; end it, or take another port (`--port 0` takes a free one)"
        case errno.EACCES:
            return "ports below 1024 need rights that this process does not have; take a higher one"
        case errno.EADDRNOTAVAIL:
            return "this machine does not have that address"
        case _:
            return error.strerror or "the system refused"
