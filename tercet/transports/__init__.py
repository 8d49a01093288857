"""Framed, ordered, authenticated links between parties: in memory, over TCP, over TLS, shaped, or faulty.

Start with `base` for what a link promises and `wire` for what a frame looks like. `MemoryTransport`,
`TcpTransport` and `TlsTransport` make links; `ShapedLink` and `FaultyLink` wrap one for experiments and
tests.
"""

from tercet.transports.base import Buffer, Link, Listener, Transport, WrappedLink
from tercet.transports.faulty import Fault, FaultyLink
from tercet.transports.identity import Identity, make_identity
from tercet.transports.memory import MemoryTransport, memory_pair
from tercet.transports.shaped import ShapedLink, Shaping
from tercet.transports.tcp import TcpTransport
from tercet.transports.tls import TlsTransport
from tercet.transports.wire import DEFAULT_LIMITS, FrameLimits, pack_message, unpack_message

__all__ = [
    "DEFAULT_LIMITS",
    "Buffer",
    "Fault",
    "FaultyLink",
    "FrameLimits",
    "Identity",
    "Link",
    "Listener",
    "MemoryTransport",
    "ShapedLink",
    "Shaping",
    "TcpTransport",
    "TlsTransport",
    "Transport",
    "WrappedLink",
    "make_identity",
    "memory_pair",
    "pack_message",
    "unpack_message",
]
