"""Reaching a lake whose nodes run elsewhere: a member's key, the lake's file, and a link to every node."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import trio

from tercet.actors.client import Client
from tercet.actors.cluster import Cluster, close_link, plain_errors
from tercet.actors.node import CONNECT_S
from tercet.actors.party import is_party, party_name
from tercet.consent.keys import MemberKeys
from tercet.errors import ConfigError, PeerLost
from tercet.nodes.config import ClusterFile
from tercet.nodes.desk import Desk
from tercet.transports import Identity, Link, TlsTransport


@attrs.define(eq=False, kw_only=True)
class Remote(Cluster):
    """A cluster whose nodes run elsewhere, and the member's desk."""

    desk: Desk


def who_am_i(cluster: ClusterFile, identity: Identity, where: Path) -> str:
    """The member to whom an identity belongs. Raises ConfigError."""
    name = cluster.name_of(identity.certificate_pem)
    if name is None or is_party(name):
        raise ConfigError(
            f"{where} lists no member with the certificate of {identity.name}; merge its public part into "
            "it, and give the file to all nodes"
        )
    return name


async def dial(cluster: ClusterFile, transport: TlsTransport, index: int) -> Link:
    """A link to a node. Raises PeerLost or TransportError, with the node's name for people."""
    entry, peer = cluster.nodes[index], party_name(index)
    with trio.move_on_after(CONNECT_S):
        return await transport.connect(entry.address, peer=peer)
    raise PeerLost(
        f"node {entry.name} ({peer}) did not answer at {entry.address} within {CONNECT_S:g} s; is it "
        "running, and is its port open?",
        peer=peer,
    )


@contextlib.asynccontextmanager
async def open_remote(
    path: str | Path, identity: str | Path, *, timeout_s: float = 6.0
) -> AsyncIterator[Remote]:
    """Connect to all nodes of a lake as a member, and hang up at the end.

    Raises ConfigError for files that do not fit, PeerLost or TransportError for nodes that do not answer.
    """
    cluster, own = ClusterFile.read(Path(path)), Identity.read(Path(identity))
    caller = who_am_i(cluster, own, Path(path))
    transport = TlsTransport(own, cluster.pins(nodes_only=True))
    async with plain_errors(), trio.open_nursery() as nursery, contextlib.AsyncExitStack() as stack:
        try:
            links = []
            for index in range(len(cluster.nodes)):
                link = await dial(cluster, transport, index)
                stack.push_async_callback(close_link, link)
                links.append(link)
            client = await Client.connect(
                cluster.protocol_class, links, nursery=nursery, timeout_s=timeout_s, lake=cluster.digest()
            )
            yield Remote(
                client,
                cluster.protocol,
                len(links),
                "tls",
                caller=caller,
                desk=Desk(client, cluster, MemberKeys(attrs.evolve(own, name=caller))),
            )
        finally:
            nursery.cancel_scope.cancel()
