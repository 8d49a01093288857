"""Plain TCP: for one machine, a trusted rack or a tunnel; nothing is encrypted and nobody is authenticated.

Addresses are "host:port" (IPv6: "[::1]:port"; an empty host listens everywhere; port 0 asks for a free one).
What the peer is called comes from the application's first message, so `link.peer` is set by whoever reads it.
The sockets are tuned for frames of megabytes and rounds of microseconds; TLS builds on the same ones.
"""

from __future__ import annotations

import errno
import logging
import socket as stdlib_socket
from pathlib import Path

import trio

from tercet.errors import PeerLost, TransportError
from tercet.transports.base import Listener, Transport
from tercet.transports.forks import keep_from_children
from tercet.transports.stream import SocketStream, StreamLink
from tercet.transports.wire import DEFAULT_LIMITS, FrameLimits

logger = logging.getLogger(__name__)

_BUFFER_SIZE = 4 * 1024 * 1024
_BACKLOG = 128
_PAUSE_AFTER_FAILED_ACCEPT = 0.1
_PORT_DIGITS = 5


def split_address(address: str) -> tuple[str, int]:
    """Return (host, port) of "host:port".

    Raises:
      TransportError: the address has another form.
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not port.isdecimal() or len(port) > _PORT_DIGITS or int(port) > 0xFFFF:
        raise TransportError(
            f"{address!r:.300} is no address; write host:port, for instance 192.0.2.7:7001 or [::1]:7001."
        )
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Return "host:port", with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _kernel_allows(limit: str) -> int:
    try:
        return int((Path("/proc/sys/net/core") / limit).read_text())
    except (OSError, ValueError):
        return 0


def _enlarge_buffers(socket: trio.socket.SocketType) -> None:
    """Ask for buffers of megabytes, unless the kernel would clamp them below what it reaches by itself."""
    for limit, option in (("wmem_max", stdlib_socket.SO_SNDBUF), ("rmem_max", stdlib_socket.SO_RCVBUF)):
        if _kernel_allows(limit) >= _BUFFER_SIZE:
            socket.setsockopt(stdlib_socket.SOL_SOCKET, option, _BUFFER_SIZE)


def tune(socket: trio.socket.SocketType) -> None:
    """Set a connected socket up: no delay for small frames, room for large ones, probes for dead peers."""
    tcp = stdlib_socket.IPPROTO_TCP
    socket.setsockopt(tcp, stdlib_socket.TCP_NODELAY, 1)
    _enlarge_buffers(socket)
    # A host that vanished sends no reset; without probes an idle link to it would live for ever.
    socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if (option := getattr(stdlib_socket, name, None)) is not None:
            socket.setsockopt(tcp, option, value)
    # trio.open_tcp_stream keeps the kernel's unsent queue tiny, which suits prompt cancellation, not bulk.
    if (low_water := getattr(stdlib_socket, "TCP_NOTSENT_LOWAT", None)) is not None:
        socket.setsockopt(tcp, low_water, 0)


async def open_socket(address: str, *, peer: str) -> trio.socket.SocketType:
    """Connect a tuned socket; raises like `Transport.connect`."""
    host, port = split_address(address)
    try:
        socket = (await trio.open_tcp_stream(host, port)).socket
        tune(socket)
    except OSError as error:
        cause: BaseException = error.__cause__ or error
        if isinstance(cause, BaseExceptionGroup):  # a host of several addresses
            cause = cause.exceptions[0]
        raise PeerLost(
            f"{peer} cannot be reached at {address} ({getattr(cause, 'strerror', None) or cause}); check "
            "that it is running and that the address is right.",
            peer=peer,
        ) from error
    return socket


async def open_listening_socket(address: str) -> trio.socket.SocketType:
    """Bind and listen; raises like `Transport.listen`. A host name is bound to its first address only."""
    host, port = split_address(address)
    try:
        found = await trio.socket.getaddrinfo(
            host or None, port, type=stdlib_socket.SOCK_STREAM, flags=stdlib_socket.AI_PASSIVE
        )
        family, kind, protocol, _, where = found[0]
        socket = trio.socket.socket(family, kind, protocol)
        try:
            socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
            _enlarge_buffers(
                socket
            )  # accepted sockets inherit; the window's scale is fixed when they connect
            await socket.bind(where)
            socket.listen(_BACKLOG)
        except BaseException:
            socket.close()
            raise
    except OSError as error:
        raise TransportError(
            f"This end cannot listen at {address} ({error.strerror or error}); choose another address or "
            "stop the program that holds it."
        ) from error
    return socket


class SocketListener:
    """A listening socket that survives what its clients and a full descriptor table do."""

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._socket = keep_from_children(socket)
        host, port, *_ = socket.getsockname()
        self.address = join_address(host, port)
        self.closed = False

    async def accept(self) -> tuple[trio.socket.SocketType, str]:
        """Wait for a connection; return its tuned socket and its address."""
        while True:
            try:
                socket, (host, port, *_) = await self._socket.accept()
            except OSError as error:
                if self.closed:
                    raise trio.ClosedResourceError("the listener has been closed") from None
                if error.errno != errno.ECONNABORTED:  # that one is the client's own doing
                    logger.error(  # noqa: TRY400  # the traceback would say nothing
                        "A connection to %s has to wait: %s; if it persists, raise the limit on open files.",
                        self.address,
                        error.strerror,
                    )
                    await trio.sleep(_PAUSE_AFTER_FAILED_ACCEPT)
                continue
            try:
                tune(socket)
            except OSError:
                socket.close()
                continue
            return socket, join_address(host, port)

    def close(self) -> None:
        """Stop listening."""
        self.closed = True
        self._socket.close()


class TcpListener(Listener):
    """Where plain TCP links arrive, named "client at host:port" until the application knows better."""

    def __init__(self, listener: SocketListener, limits: FrameLimits) -> None:
        self._listener = listener
        self._limits = limits

    @property
    def address(self) -> str:
        """The "host:port" that is listened at."""
        return self._listener.address

    async def accept(self) -> StreamLink:
        """Wait for the next link; see `Listener.accept`."""
        socket, where = await self._listener.accept()
        return StreamLink(SocketStream(socket), peer=f"client at {where}", limits=self._limits)

    async def aclose(self) -> None:
        """Stop listening."""
        self._listener.close()
        await trio.lowlevel.checkpoint()


class TcpTransport(Transport):
    """Plain TCP; see the module's warning."""

    name: str = "tcp"

    def __init__(self, *, limits: FrameLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits

    async def connect(self, address: str, *, peer: str) -> StreamLink:
        """Connect to "host:port"; nothing checks that `peer` is who answers."""
        socket = await open_socket(address, peer=peer)
        return StreamLink(SocketStream(socket), peer=peer, limits=self._limits)

    async def listen(self, address: str, *, nursery: trio.Nursery) -> TcpListener:  # noqa: ARG002
        """Listen at "host:port"; plain TCP has no handshakes, so the nursery stays unused."""
        return TcpListener(SocketListener(await open_listening_socket(address)), self._limits)
