"""Transports by name: those that come with Tercet, and any that an installed package offers.

A package adds a transport by an entry point in the group `tercet.transports`, for instance in its
pyproject.toml

    [project.entry-points."tercet.transports"]
    mine = "my_package.transport:Mine"

Its nodes listen at `127.0.0.1:0`, which means any free port of this machine, and say at which address.
"""

from __future__ import annotations

from collections.abc import Mapping

from tercet.errors import TransportError
from tercet.plugins import Registry
from tercet.transports.base import Transport
from tercet.transports.identity import Identity

GROUP = "tercet.transports"
BUILT_IN = {
    "memory": "tercet.transports.memory:MemoryTransport",
    "tcp": "tercet.transports.tcp:TcpTransport",
    "tls": "tercet.transports.tls:TlsTransport",
}
REGISTRY: Registry[Transport] = Registry(
    group=GROUP, word="transport", base=Transport, built_in=BUILT_IN, error=TransportError
)


def names() -> list[str]:
    """All names that `get` knows, the built-in ones first."""
    return REGISTRY.names()


def get(name: str) -> type[Transport]:
    """The class of a transport. TransportError if nobody offers the name, or the plug-in does not load."""
    return REGISTRY.get(name)


def make(name: str, identities: Mapping[str, Identity], owner: str) -> Transport:
    """The transport of one party: its own identity, and the certificates of all others, where it has them."""
    pins = {other: identity.certificate_pem for other, identity in identities.items() if other != owner}
    return get(name).for_party(identities.get(owner), pins)


__all__ = ["BUILT_IN", "GROUP", "get", "make", "names"]
