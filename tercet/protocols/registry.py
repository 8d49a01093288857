"""Protocols by name: those that come with Tercet, and any that an installed package offers.

A package adds a protocol by an entry point in the group `tercet.protocols`, for instance in its
pyproject.toml

    [project.entry-points."tercet.protocols"]
    mine = "my_package.protocol:Mine"
"""

from __future__ import annotations

from tercet.errors import ProtocolError
from tercet.plugins import Registry
from tercet.protocols.base import Protocol

GROUP = "tercet.protocols"
BUILT_IN = {
    "replicated": "tercet.protocols.replicated:Replicated",
    "plain": "tercet.protocols.plain:Plain",
    "shamir": "tercet.protocols.shamir:Shamir",
    "rep4": "tercet.protocols.rep4:Rep4",
}
REGISTRY: Registry[Protocol] = Registry(
    group=GROUP, word="protocol", base=Protocol, built_in=BUILT_IN, error=ProtocolError
)


def names() -> list[str]:
    """All names that `get` knows, the built-in ones first."""
    return REGISTRY.names()


def get(name: str) -> type[Protocol]:
    """The class of a protocol. ProtocolError if nobody offers the name, or the plug-in does not load."""
    return REGISTRY.get(name)


__all__ = ["BUILT_IN", "GROUP", "get", "names"]
